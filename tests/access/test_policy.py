"""Every route has a policy, and every role gets exactly what it says."""

from pathlib import Path

import httpx
import pytest
from fastapi.routing import iter_route_contexts
from starlette.routing import Mount

from app.access.policy import GRANTS, POLICY, Permission, Role, roles_with
from app.access.route import GuardedRoute
from app.main import create_app
from tests.client import Client
from tests.conftest import make_settings

pytestmark = pytest.mark.sqlite_alone

UNGUARDED = {"/", "/openapi.json", "/docs", "/docs/assets"}
"""What documents the server and touches no data."""

LADDER = {
    Role.CLIENT: {Permission.PUBLIC, Permission.DESCRIBE, Permission.PREDICT},
    Role.VIEWER: {Permission.PUBLIC, Permission.DESCRIBE, Permission.READ},
    Role.SCIENTIST: set(Permission) - {Permission.OPERATE, Permission.ADMINISTER},
    Role.ENGINEER: set(Permission) - {Permission.ADMINISTER},
    Role.ADMIN: set(Permission),
}

ALLOWED = {
    # What each role may do, told once more and in other words than the policy's.
    "client": {
        "GET /v1/models",
        "GET /v1/models/{model}",
        "GET /v1/models/{model}/openapi.json",
        "POST /v1/models/{model}:predict",
        "POST /v1/models/{model}/versions/{version}:predict",
        "POST /v1/models/{model}/aliases/{alias}:predict",
        "GET /v1/predictions/{prediction}",
        "POST /v1/feedback",
        "POST /invocations",
        "POST /v1/models/{model}/invocations",
        "GET /v2/models/{model}",
        "GET /v2/models/{model}/ready",
        "GET /v2/models/{model}/config",
        "POST /v2/models/{model}/infer",
        "GET /v2/models/{model}/versions/{version}",
        "GET /v2/models/{model}/versions/{version}/ready",
        "GET /v2/models/{model}/versions/{version}/config",
        "POST /v2/models/{model}/versions/{version}/infer",
        "POST /v2/repository/index",
    },
    "viewer": {f"GET {path}" for method, path in POLICY if method == "GET" and "/keys" not in path}
    | {"POST /v1/predictions/{prediction}:replay", "POST /v2/repository/index"}
    | {"POST /v1/training-runs:search", "POST /v1/model-versions:search"}
    | {"POST /v1/datasets/{dataset}/contract:infer", "POST /v1/datasets/{dataset}/versions/{version}:check"},
}
ALLOWED["scientist"] = (
    ALLOWED["client"]
    | ALLOWED["viewer"]
    | {
        "POST /v1/datasets",
        "POST /v1/datasets/{dataset}/versions",
        "PUT /v1/datasets/{dataset}/contract",
        "PATCH /v1/datasets/{dataset}",
        "PATCH /v1/datasets/{dataset}/versions/{version}",
        "POST /v1/datasets/{dataset}/versions/{version}:append",
        "POST /v1/datasets/{dataset}/versions/{version}:split",
        "POST /v1/datasets/{dataset}/versions/{version}:sample",
        "POST /v1/datasets/{dataset}/versions:from-feedback",
        "POST /v1/datasets/{dataset}/versions/{version}:advise",
        "POST /v1/training-runs",
        "PATCH /v1/training-runs/{run}",
        "POST /v1/training-runs/{run}:cancel",
        "POST /v1/models/{model}/versions/{version}:verify",
        "POST /v1/models/{model}/batch-predictions",
        "POST /v1/batch-predictions/{batch}:cancel",
    }
)
ALLOWED["engineer"] = ALLOWED["scientist"] | {
    "POST /v1/datasets/{dataset}/versions/{version}:accept",
    "POST /v1/models/{model}:promote",
    "POST /v1/models/{model}:rollback",
    "PUT /v1/models/{model}/aliases/{alias}",
    "DELETE /v1/models/{model}/aliases/{alias}",
    "POST /v2/repository/models/{model}/load",
    "POST /v2/repository/models/{model}/unload",
}
ALLOWED["admin"] = {f"{method} {path}" for method, path in POLICY}

GUARDED = sorted(route for route, allowed in POLICY.items() if Permission.PUBLIC not in allowed)


def test_every_route_has_a_policy_and_every_policy_a_route(tmp_path: Path) -> None:
    found = set()
    for context in iter_route_contexts(create_app(make_settings(tmp_path)).routes):
        route = context.original_route
        path = route.path if isinstance(route, Mount) else context.path_format
        if isinstance(route, GuardedRoute):
            found |= {(method, path) for method in route.methods or ()}
        else:
            assert path in UNGUARDED, f"{path} is not guarded"
    assert found == set(POLICY)


def test_roles_are_granted_what_the_contract_says() -> None:
    assert {role: set(granted) for role, granted in GRANTS.items()} == LADDER


@pytest.fixture(scope="module")
def clients(shared: Client) -> dict[str, Client]:
    return {role: shared.as_role(role) for role in Role}


def refusal(path: str, answer: httpx.Response, code: str) -> str:
    """What a refusal says, which must have the form of the path's protocol."""
    body: dict[str, str] = answer.json()
    if path.startswith("/v2"):
        assert answer.headers["content-type"] == "application/json"
        assert list(body) == ["error"]
        return body["error"]
    if path.endswith("/invocations"):
        assert answer.headers["content-type"] == "application/json"
        assert list(body) == ["error_code", "message"]
        return body["message"]
    assert answer.headers["content-type"] == "application/problem+json"
    assert body["code"] == code
    return body["detail"]


@pytest.mark.parametrize("role", list(Role))
@pytest.mark.parametrize(("method", "path"), GUARDED)
def test_a_role_reaches_a_route_only_if_it_may(
    clients: dict[str, Client], role: Role, method: str, path: str
) -> None:
    url = path.format(
        dataset="none",
        version=1,
        other=1,
        model="none",
        run=999_999,
        alias="none",
        deployment=999_999,
        batch=999_999,
        prediction="none",
        key="none",
    )
    answer = clients[role].request(method, url)
    if f"{method} {path}" in ALLOWED[role]:
        assert answer.status_code not in (401, 403), answer.text
    else:
        assert answer.status_code == 403
        told = refusal(path, answer, "role_not_allowed")
        assert all(name in told for name in roles_with(POLICY[method, path]))


@pytest.mark.parametrize(("method", "path"), GUARDED)
def test_no_route_answers_without_a_key(shared: Client, method: str, path: str) -> None:
    answer = shared.request(method, path, headers={"authorization": ""})
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert "Bearer <key>" in refusal(path, answer, "key_missing")


@pytest.mark.parametrize("authorization", [b"Bearer wrong", b"Basic abc", b"Bearer", "Bearer é".encode()])
def test_a_bad_key_is_refused(shared: Client, authorization: bytes) -> None:
    answer = shared.get("/v1/models", headers={b"authorization": authorization})
    assert answer.status_code == 401
    assert answer.json()["code"] in ("unknown_key", "key_missing")
