"""A path that ends in a slash is the same path without it.

Starlette would redirect, to an address that it builds from `Host` and the scheme that the server believes:
behind TLS the wrong one, and any host that the client names.
"""

from collections.abc import Awaitable

from starlette.types import ASGIApp, Receive, Scope, Send


class TrailingSlash:
    """Route `/ask/` as `/ask`: pure ASGI, outside of everything that looks at the path.

    `raw_path` stays as it was sent, for the log.
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
