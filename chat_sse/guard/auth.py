"""Who may ask: pure ASGI, in front of every handler."""

from starlette.types import ASGIApp, Receive, Scope, Send

from chat_sse.guard.principal import Principal


class Authentication:
    """Find out who a request comes from."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a connection."""
        if scope["type"] == "http":
            address = scope["client"][0] if scope.get("client") else "unknown"
            scope["state"]["principal"] = Principal(client=address)
        await self.app(scope, receive, send)
