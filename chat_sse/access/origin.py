"""Which web pages may use the service: a foreign page can make its visitor's browser send requests.

Sources: Fetch Metadata (https://www.w3.org/TR/fetch-metadata/), Fetch, "3.2 `Origin` header".
"""

import re
from collections.abc import Iterable, Mapping, Sequence

from chat_sse.access.headers import shown
from chat_sse.errors import ForbiddenOrigin
from chat_sse.origins import DEFAULT_PORTS, origin_regex

# As `Host` holds them where a proxy writes it.
_DEFAULT_PORTS = {scheme.encode(): f":{port}".encode() for scheme, port in DEFAULT_PORTS.items()}

_UNNAMED = "a browser asks by URL only where it names its page, in Origin or Referer"


class Origins:
    """The origins whose pages may ask, resume and stop: the allowed ones, and the service's own."""

    def __init__(self, allowed: Sequence[str]) -> None:
        """`allowed`: origins and patterns of them, or "*" for any. Raises ValueError for what is neither."""
        self.any = "*" in allowed
        self.regex = "|".join(origin_regex(text) for text in allowed if text != "*") or "(?!)"
        """Matches in full the allowed ones that are named."""
        self._allows = re.compile(self.regex.encode()).fullmatch

    def check(self, raw_headers: Iterable[tuple[bytes, bytes]], *, asks_by_url: bool = False) -> None:
        """Raise ForbiddenOrigin for a request that a foreign page has caused, or a browser's guess.

        `asks_by_url`: the request is a GET that spends; a browser must then name the page that sent it.
        """
        headers = dict(raw_headers)
        if b"prefetch" in headers.get(b"sec-purpose", b"") + headers.get(b"purpose", b""):
            # The browser guesses what its user will open next.
            raise ForbiddenOrigin("a question is not asked in advance")
        if not self.any and (cause := self._cause(headers, asks_by_url)):
            raise ForbiddenOrigin(cause)

    def _cause(self, headers: Mapping[bytes, bytes], asks_by_url: bool) -> str | None:
        """Return why a request is a foreign page's; None when it is not."""
        origin, site = headers.get(b"origin"), headers.get(b"sec-fetch-site")
        if origin is not None and self._allows(origin):
            return None
        if site is None:
            return self._cause_on_plain_http(headers, asks_by_url)
        # "none" is the address bar. Images, links and no-cors requests carry no origin: any page's may be
        # behind them, and the page of a neighbouring port or subdomain ("same-site") is another page.
        if site == b"same-origin" or (site == b"none" and origin is None):
            return None
        if origin is None:
            return f"another page's image, link or form (Sec-Fetch-Site: {shown(site)}) may not ask"
        return not_allowed(origin)

    def _cause_on_plain_http(self, headers: Mapping[bytes, bytes], asks_by_url: bool) -> str | None:
        # There, beyond this machine, browsers send no `Sec-Fetch-Site`: images and links have a `Referer`,
        # unless their page forbids it. Programs send neither, but they are not "Mozilla".
        page = headers.get(b"origin") or _origin_of(headers.get(b"referer", b""))
        if not page:
            is_browser = headers.get(b"user-agent", b"").startswith(b"Mozilla/")
            return _UNNAMED if asks_by_url and is_browser else None
        host = headers.get(b"host", b"")
        if self._allows(page) or _is_at(page, host):
            return None
        return (
            f"{not_allowed(page)}, nor that of the Host asked for, {shown(host)}; if it is the service's own "
            "page, the proxy must pass its Host on (nginx: proxy_set_header Host $http_host)"
        )


def not_allowed(origin: bytes) -> str:
    """Return the sentence that an origin is not among the allowed ones."""
    return f"the page's origin {shown(origin)} is not in ALLOWED_ORIGIN"


def _origin_of(url: bytes) -> bytes:
    scheme, mark, rest = url.partition(b"://")
    return scheme + mark + rest.partition(b"/")[0]


def _is_at(origin: bytes, host: bytes) -> bool:
    """Return whether an origin is a host's own. Proxies write a default port that browsers leave out."""
    scheme, _, place = origin.partition(b"://")
    return place == host.lower().removesuffix(_DEFAULT_PORTS.get(scheme, b""))
