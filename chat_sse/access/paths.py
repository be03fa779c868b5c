"""Under which path the service lies, and how a path may be written."""

from collections.abc import Awaitable
from urllib.parse import quote

from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send


class RootPath:
    """Lay the service under a path: pure ASGI, outside of everything that looks at one.

    A proxy may take the path away from what it hands on, or leave it: both are understood. A server or an
    application that tells the path itself (`root_path` in ASGI's scope) is believed.
    """

    def __init__(self, app: ASGIApp, *, root_path: str) -> None:
        """`root_path`: begins with a slash and does not end in one."""
        self.app = app
        self._root_path = root_path

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Handle a connection, without a coroutine of its own."""
        if scope["type"] == "http" and not scope.get("root_path"):
            root, path = self._root_path, scope["path"]
            if path == root:  # the page's links are relative to the path with a slash
                return Response(status_code=307, headers={"Location": f"{root.rpartition('/')[2]}/"})(
                    scope, receive, send
                )
            if not path.startswith(f"{root}/"):
                path = root + path
            scope = {**scope, "root_path": root, "path": path}
        return self.app(scope, receive, send)


class TrailingSlash:
    """Route `/ask/` as `/ask`: pure ASGI, outside of everything that looks at the path.

    Starlette would redirect, to an address that it builds from `Host` and the scheme that the server
    believes: behind TLS the wrong one, and any host that the client names. `raw_path` stays as it was sent.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Handle a connection. No coroutine of its own: a running answer would hold its frame."""
        if scope["type"] == "http" and scope["path"].endswith("/"):
            path = scope["path"].rstrip("/")
            if path != scope.get("root_path", "").rstrip("/"):  # the page at `/` has no name without it
                scope = {**scope, "path": path}
        return self.app(scope, receive, send)


def public_path(scope: Scope, path: str = "") -> str:
    """Return the path of this site that leads to one of the service's own; by default, what it lies under."""
    root = scope.get("root_path", "").strip("/")
    # With two slashes at its beginning it would name a host.
    return f"/{quote(root)}{path}" if root else path


def own_path(scope: Scope) -> str:
    """Return a request's path without what the service lies under."""
    path: str = scope["path"]
    return path.removeprefix(scope.get("root_path", ""))
