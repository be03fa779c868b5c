"""Which web pages may use the service: a foreign page can make its visitor's browser send requests.

Sources: Fetch Metadata (https://www.w3.org/TR/fetch-metadata/), Fetch, "3.2 `Origin` header".
"""

from collections.abc import Iterable, Mapping, Sequence

from chat_sse.errors import ForbiddenOrigin


class Origins:
    """The origins whose pages may ask, resume and stop: the allowed ones, and the service's own."""

    def __init__(self, allowed: Sequence[str]) -> None:
        self._any = "*" in allowed
        self._allowed = frozenset(origin.encode() for origin in allowed)

    def check(self, raw_headers: Iterable[tuple[bytes, bytes]], *, asks_by_url: bool = False) -> None:
        """Raise ForbiddenOrigin for a request that a foreign page has caused, or a browser's guess.

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


def _origin_of(url: bytes) -> bytes:
    scheme, mark, rest = url.partition(b"://")
    return scheme + mark + rest.partition(b"/")[0]
