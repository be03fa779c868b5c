"""Under which host names the service answers."""

from collections.abc import Sequence

from starlette.types import ASGIApp, Receive, Scope, Send

from chat_sse.errors import Misdirected

LOOPBACK_NAMES = ("localhost", "127.0.0.1", "[::1]")


class TrustedHost:
    """Refuse requests for host names that are not the service's: pure ASGI.

    Against DNS rebinding: when a foreign page's own name is made to lead to this machine, its browser takes
    the page and the service for one origin. Only the `Host` of its requests shows the difference.
    """

    def __init__(self, app: ASGIApp, *, bound_to: str, allowed: Sequence[str]) -> None:
        """`allowed`: names beside those of the loopback interface.

        With none, a service on the loopback interface has those alone, and one beyond it answers to any.
        """
        self.app = app
        self._names = frozenset(name.lower().encode() for name in (*LOOPBACK_NAMES, bound_to, *allowed))
        self._always = bool(allowed) and "*" not in allowed
        self._on_loopback = not allowed and is_loopback(bound_to)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a connection. Raises Misdirected."""
        if scope["type"] == "http" and self._applies(scope):
            host = next((value for name, value in scope["headers"] if name == b"host"), b"")
            # No browser leaves it out; some health checks do.
            if host and _without_port(host).lower() not in self._names:
                raise Misdirected("this host name is not in CHAT_SSE_ALLOWED_HOSTS")
        await self.app(scope, receive, send)

    def _applies(self, scope: Scope) -> bool:
        # The socket counts as well: another server may listen elsewhere than the setting says.
        server = scope.get("server")
        return self._always or (self._on_loopback and server is not None and is_loopback(server[0]))


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach a host."""
    return host in ("localhost", "::1") or host.startswith("127.")


def _without_port(host: bytes) -> bytes:
    name, colon, _ = host.rpartition(b":")
    return name if colon and not host.endswith(b"]") else host
