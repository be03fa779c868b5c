"""Under which host names the service answers."""

from collections.abc import Awaitable, Sequence
from ipaddress import ip_address

from starlette.types import ASGIApp, Receive, Scope, Send

from chat_sse.access.address import is_unix_socket
from chat_sse.access.headers import shown
from chat_sse.access.paths import own_path
from chat_sse.errors import Misdirected

LOOPBACK_NAMES = ("localhost", "127.0.0.1", "[::1]")
# Health checks of container platforms use an address, or a name of their own.
HEALTH_PATHS = ("/healthz", "/readyz")


class TrustedHost:
    """Refuses requests for host names that are not the service's own: pure ASGI.

    Against DNS rebinding: a foreign page whose own name suddenly leads to this service is of one origin with
    it, as far as its browser can tell. Only the name in `Host` gives it away. An IP address cannot be
    rebound.
    """

    def __init__(self, app: ASGIApp, *, bound_to: str, allowed: Sequence[str], authenticated: bool) -> None:
        """`allowed`: names beside the loopback ones and `bound_to`; "*" is any.

        With none, a service on the loopback interface answers to the loopback names. Beyond it, and on a Unix
        socket, it answers to any name where requests are authenticated (a rebound page has no key), and else
        to IP addresses too.
        `authenticated`: whether every question needs a key.
        """
        self.app = app
        self._names = frozenset(name.lower().encode() for name in (*LOOPBACK_NAMES, bound_to, *allowed))
        self._configured = bool(allowed)
        self._any = "*" in allowed
        self._bound_to_loopback = is_loopback(bound_to)
        self._authenticated = authenticated

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Handle a connection, without a coroutine of its own. Raises Misdirected."""
        if scope["type"] == "http":
            host = next((value for name, value in scope["headers"] if name == b"host"), b"")
            if not self._accepts(scope, _without_port(host).lower()):
                raise Misdirected(
                    f"the Host asked for, {shown(host)}, is not in CHAT_SSE_ALLOWED_HOSTS; if a proxy "
                    "wrote it, let it pass the visitor's on (nginx: proxy_set_header Host $http_host)"
                )
        return self.app(scope, receive, send)

    def _accepts(self, scope: Scope, name: bytes) -> bool:
        # No browser leaves it out; some health checks do.
        if self._any or not name or name in self._names:
            return True
        if self._configured:
            return _is_address(name.decode("latin-1")) and own_path(scope) in HEALTH_PATHS
        # The socket counts as well: another server may listen elsewhere than the settings say.
        server, is_unix = scope.get("server"), is_unix_socket(scope)
        if server is None or not (is_unix or _is_address(server[0])):  # no socket at all
            return True
        if self._bound_to_loopback and not is_unix and is_loopback(server[0]):
            return False
        if self._authenticated or _is_address(name.decode("latin-1")):
            return True
        return own_path(scope) in HEALTH_PATHS


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach a host."""
    return host in ("localhost", "::1") or host.startswith("127.")


def _is_address(name: str) -> bool:
    try:
        ip_address(name.removeprefix("[").removesuffix("]"))
    except ValueError:
        return False
    return True


def _without_port(host: bytes) -> bytes:
    name, _, port = host.rpartition(b":")
    return name if name and (not port or port.isdigit()) else host
