"""Who may ask: pure ASGI, in front of every handler."""

from starlette.types import ASGIApp, Receive, Scope, Send

from chat_sse.guard.address import ClientAddresses
from chat_sse.guard.principal import Principal


class Authentication:
    """Find out who a request comes from."""

    def __init__(self, app: ASGIApp, addresses: ClientAddresses) -> None:
        self.app = app
        self._addresses = addresses

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a connection."""
        if scope["type"] == "http":
            scope["state"]["principal"] = Principal(client=self._addresses.client_of(scope))
        await self.app(scope, receive, send)
