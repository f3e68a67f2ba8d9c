"""HEAD, as load balancers ask it of health checks."""

from collections.abc import Collection

from starlette.types import ASGIApp, Receive, Scope, Send


class HeadAsGet:
    """Answers HEAD of some paths as GET is answered; the web server leaves the body out."""

    def __init__(self, app: ASGIApp, paths: Collection[str]) -> None:
        self._app = app
        self._paths = paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope.get("method") == "HEAD" and scope["path"] in self._paths:
            scope = {**scope, "method": "GET"}  # a copy: the web server reads its own when it answers
        await self._app(scope, receive, send)
