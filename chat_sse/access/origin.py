"""Which web pages may act: a foreign one can make a visitor's browser send requests, and must spend nothing.

Sources: Fetch Metadata (https://www.w3.org/TR/fetch-metadata/), Fetch, "3.2 `Origin` header".
"""

from collections.abc import Iterable, Mapping, Sequence

from starlette.types import ASGIApp, Receive, Scope, Send

from chat_sse.api.error_responses import error_response
from chat_sse.errors import ForbiddenOrigin, Misdirected

LOOPBACK_NAMES = ("localhost", "127.0.0.1", "[::1]")


class Origins:
    """The pages that may ask, read on and stop: the allowed origins, and the service's own."""

    def __init__(self, allowed: Sequence[str]) -> None:
        self._any = "*" in allowed
        self._allowed = frozenset(origin.encode() for origin in allowed)

    def check(self, raw_headers: Iterable[tuple[bytes, bytes]], *, asks_by_url: bool = False) -> None:
        """Raise ForbiddenOrigin for a request that a foreign page has caused, or nobody has meant yet.

        `asks_by_url`: opening the address is all that it takes to spend, so a browser must say who wants it.
        """
        headers = dict(raw_headers)
        if b"prefetch" in headers.get(b"sec-purpose", b"") + headers.get(b"purpose", b""):
            # A browser that guesses what its user will open next: typing must not be asking.
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
        # On plain http beyond this machine a browser says less: of images and links the `Referer`, and where
        # their page forbids that, nothing. Programs say nothing either, but do not call themselves Mozilla.
        page = _origin_of(headers.get(b"referer", b"")) if origin is None else origin
        if not page:
            return asks_by_url and headers.get(b"user-agent", b"").startswith(b"Mozilla/")
        return page not in self._allowed and page.partition(b"://")[2] != headers.get(b"host")


class TrustedHost:
    """Refuse requests for host names that are not ours: pure ASGI.

    Against DNS rebinding: a foreign page whose own name suddenly leads to this machine is of one origin with
    the service, as far as its browser can tell. Only the name that it uses gives it away.
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
        """Handle a connection."""
        if scope["type"] == "http" and self._applies(scope):
            host = next((value for name, value in scope["headers"] if name == b"host"), b"")
            # No browser leaves it out; some health checks do.
            if host and _without_port(host).lower() not in self._names:
                refusal = Misdirected("this host name is not in CHAT_SSE_ALLOWED_HOSTS")
                response = error_response(refusal, scope["state"]["request_id"])
                await response(scope, receive, send)
                return
        await self.app(scope, receive, send)

    def _applies(self, scope: Scope) -> bool:
        # What the socket says as well: a server of the caller's choice may listen elsewhere than we are told.
        server = scope.get("server")
        return self._always or (self._on_loopback and server is not None and is_loopback(server[0]))


def is_loopback(host: str) -> bool:
    """Tell whether only this machine can reach a host."""
    return host in ("localhost", "::1") or host.startswith("127.")


def _origin_of(url: bytes) -> bytes:
    scheme, mark, rest = url.partition(b"://")
    return scheme + mark + rest.partition(b"/")[0]


def _without_port(host: bytes) -> bytes:
    name, colon, _ = host.rpartition(b":")
    return name if colon and not host.endswith(b"]") else host
