"""Which web pages may use the service: a foreign page can make its visitor's browser send requests.

Sources: Fetch Metadata (https://www.w3.org/TR/fetch-metadata/), Fetch, "3.2 `Origin` header".
"""

from collections.abc import Iterable, Mapping, Sequence
from ipaddress import ip_address

from starlette.types import ASGIApp, Receive, Scope, Send

from chat_sse.api.error_responses import error_response
from chat_sse.errors import ForbiddenOrigin, Misdirected

LOOPBACK_NAMES = ("localhost", "127.0.0.1", "[::1]")
# Health checks of container platforms use an address, or a name of their own.
HEALTH_PATHS = ("/healthz", "/readyz")


class Origins:
    """The origins whose pages may ask, resume and stop: the allowed ones, and the service's own."""

    def __init__(self, allowed: Sequence[str]) -> None:
        self._any = "*" in allowed
        self._allowed = frozenset(origin.encode() for origin in allowed)

    def check(self, raw_headers: Iterable[tuple[bytes, bytes]], *, asks_by_url: bool = False) -> None:
        """Raise ForbiddenOrigin for a request that a foreign page caused, or that is a prefetch.

        `asks_by_url`: the request is a GET that spends; a browser must then name the page that sent it.
        """
        headers = dict(raw_headers)
        if b"prefetch" in headers.get(b"sec-purpose", b"") + headers.get(b"purpose", b""):
            # The browser guesses what its user will open next.
            raise ForbiddenOrigin("a question is not asked in advance")
        if not self._any and self._is_foreign(headers, asks_by_url):
            raise ForbiddenOrigin("the page's origin is not in ALLOWED_ORIGIN")

    def _is_foreign(self, headers: Mapping[bytes, bytes], asks_by_url: bool) -> bool:
        origin, site = headers.get(b"origin"), headers.get(b"sec-fetch-site")
        if origin in self._allowed:
            return False
        if site is not None:
            # "none" is the address bar. Images, links and no-cors requests carry no origin: any page's may be
            # behind them, and the page of a neighbouring port or subdomain ("same-site") is another page.
            return site != b"same-origin" and (site != b"none" or origin is not None)
        # On plain http beyond this machine browsers send no `Sec-Fetch-Site`: images and links have a
        # `Referer`, unless their page forbids it. Programs send neither, but they are not "Mozilla".
        page = _origin_of(headers.get(b"referer", b"")) if origin is None else origin
        if not page:
            return asks_by_url and headers.get(b"user-agent", b"").startswith(b"Mozilla/")
        return page not in self._allowed and page.partition(b"://")[2] != headers.get(b"host")


class TrustedHost:
    """Refuses requests for host names that are not the service's own: pure ASGI.

    Against DNS rebinding: a foreign page whose own name suddenly leads to this service is of one origin with
    it, as far as its browser can tell. Only the name in `Host` gives it away. An IP address cannot be
    rebound.
    """

    def __init__(
        self, app: ASGIApp, *, bound_to: str, allowed: Sequence[str], authenticated: bool = True
    ) -> None:
        """`allowed`: names beside the loopback ones and `bound_to`; "*" is any.

        With none, a service on the loopback interface answers to the loopback names. Beyond it, it answers to
        any name where requests are authenticated (a rebound page has no key), and else to IP addresses too.
        `authenticated`: whether every question needs a key.
        """
        self.app = app
        self._names = frozenset(name.lower().encode() for name in (*LOOPBACK_NAMES, bound_to, *allowed))
        self._configured = bool(allowed)
        self._any = "*" in allowed
        self._bound_to_loopback = is_loopback(bound_to)
        self._authenticated = authenticated

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a connection."""
        if scope["type"] == "http" and not self._accepts(scope):
            refusal = Misdirected("this host name is not in CHAT_SSE_ALLOWED_HOSTS")
            response = error_response(refusal, scope["state"]["request_id"])
            await response(scope, receive, send)
            return
        await self.app(scope, receive, send)

    def _accepts(self, scope: Scope) -> bool:
        host = next((value for name, value in scope["headers"] if name == b"host"), b"")
        name = _without_port(host).lower()
        # No browser leaves it out; some health checks do.
        if self._any or not name or name in self._names:
            return True
        if self._configured:
            return _is_address(name.decode("latin-1")) and scope["path"] in HEALTH_PATHS
        # The socket counts as well: another server may listen elsewhere than the settings say.
        server = scope.get("server")
        if server is None or not _is_address(server[0]):  # a Unix socket, behind a proxy; or none at all
            return True
        if self._bound_to_loopback and is_loopback(server[0]):
            return False
        if self._authenticated or _is_address(name.decode("latin-1")):
            return True
        return scope["path"] in HEALTH_PATHS


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach a host."""
    return host in ("localhost", "::1") or host.startswith("127.")


def _origin_of(url: bytes) -> bytes:
    scheme, mark, rest = url.partition(b"://")
    return scheme + mark + rest.partition(b"/")[0]


def _is_address(name: str) -> bool:
    try:
        ip_address(name.removeprefix("[").removesuffix("]"))
    except ValueError:
        return False
    return True


def _without_port(host: bytes) -> bytes:
    name, _, port = host.rpartition(b":")
    return name if name and (not port or port.isdigit()) else host
