"""The gate before every operation: who is it, may they, and only then the body is read."""

from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from ipaddress import ip_address
from typing import Annotated, Any
from urllib.parse import urlsplit

from fastapi import Depends, Request, Response
from starlette.concurrency import run_in_threadpool

from app.access.caller import Caller, Forbidden, Unauthorized
from app.access.key_ring import KeyRing, caller_of
from app.access.policy import POLICY, Permission, Role, roles_with
from app.http.bodies import limit_body
from app.http.idempotency import IdempotentRoute


class GuardedRoute(IdempotentRoute):
    """A route that its policy guards; without a policy it answers nobody."""

    body_limit = "max_request_bytes"
    """The setting that bounds a request's body."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handler = super().get_route_handler()

        async def handle(request: Request) -> Response:
            permissions = POLICY.get((request.method, request.scope["route"].path_format), ())
            request.state.caller = await authorize(request, permissions)
            limit = getattr(request.app.state.settings, self.body_limit)
            setting = f"ROUNDHOUSE_{self.body_limit.upper()}"
            return await handler(limit_body(request, limit, setting))

        return handle


class UploadRoute(GuardedRoute):
    """A guarded route that takes data files."""

    body_limit = "max_upload_bytes"


async def authorize(request: Request, permissions: tuple[Permission, ...]) -> Caller:
    """The caller, if the request's key carries one of ``permissions``.

    Raises Unauthorized without a good key, Forbidden where the key's role or model pattern forbids.
    """
    now = datetime.now(UTC)
    request_id = request.scope.get("state", {}).get("request_id")
    if Permission.PUBLIC in permissions:
        return Caller("anyone", Role.CLIENT, now, request_id)
    if request.app.state.settings.no_auth:
        _require_loopback(request)
        return Caller("no-auth", Role.ADMIN, now, request_id)
    scheme, _, secret = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not secret.strip():
        raise Unauthorized("key_missing", "Send your API key as 'Authorization: Bearer <key>'.")
    ring: KeyRing = request.app.state.key_ring
    key = ring.known(secret.strip())
    if key is None:
        key = await run_in_threadpool(ring.find, secret.strip())
    caller = caller_of(key, request_id)
    if not any(caller.has(permission) for permission in permissions):
        roles = ", ".join(roles_with(permissions)) or "none"
        raise Forbidden(
            "role_not_allowed",
            f"The key {key.name!r} has the role {key.role!r}; this needs one of: {roles}.",
        )
    if (model := request.path_params.get("model")) is not None:
        caller.require_model(model)
    return caller


def _require_loopback(request: Request) -> None:
    """Without keys the address is the only gate; Host and Origin keep foreign web pages out."""
    origin = request.headers.get("origin")
    hosts = [request.client.host if request.client else None, request.url.hostname]
    if origin is not None:
        hosts.append(urlsplit(origin).hostname)
    for host in hosts:
        if not is_loopback(host or ""):
            raise Forbidden(
                "loopback_only", f"This server runs without keys and answers on loopback only, not {host!r}."
            )


def is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


# Asynchronous, as all that only looks something up: a thread would take longer to begin.
async def get_caller(request: Request) -> Caller:
    caller: Caller = request.state.caller
    return caller


CallerDep = Annotated[Caller, Depends(get_caller)]
