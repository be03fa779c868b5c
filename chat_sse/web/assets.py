"""A static file of the package, with its ETag and cache policy: the one file server of the pages.

Starlette's StaticFiles would take the media types from the machine's registry (on some, `.js` is no script)
and the ETags from file times, which differ between hosts that serve one site. Here both come from the
package: a table, and a digest of the contents.
"""

import hashlib
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response

# As text/javascript is the only type that WHATWG HTML wants for modules, `.mjs` has it too.
MEDIA_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".ts": "text/plain; charset=utf-8",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
}


class Asset:
    """A file that is read when it is first asked for, and kept.

    A client may keep it too, but has to ask each time whether it is still the same: an update shows at once.
    """

    def __init__(self, read: Callable[[], bytes], media_type: str, headers: Mapping[str, str]) -> None:
        """`headers`: what every response for this file has beside its ETag and cache policy."""
        self._read = read
        self._media_type = media_type
        self._own_headers = headers

    @cached_property
    def _content(self) -> bytes:
        return self._read()

    @cached_property
    def _headers(self) -> dict[str, str]:
        etag = f'"{hashlib.sha256(self._content).hexdigest()[:32]}"'
        return {**self._own_headers, "Cache-Control": "no-cache", "ETag": etag}

    async def respond(self, request: Request) -> Response:
        """Return the file, or 304 for a client that has it."""
        if _is_known(self._headers["ETag"], request.headers.get("if-none-match", "")):
            return Response(status_code=304, headers=self._headers)
        return Response(self._content, headers=self._headers, media_type=self._media_type)


def asset_of(path: Path, headers: Mapping[str, str]) -> Asset:
    """Return the asset of a file. Raises KeyError for a suffix that has no media type."""
    return Asset(path.read_bytes, MEDIA_TYPES[path.suffix], headers)


def served_files(folder: Path) -> list[Path]:
    """Return the files below a folder that have a media type."""
    return [path for path in sorted(folder.rglob("*")) if path.suffix in MEDIA_TYPES]


def _is_known(etag: str, if_none_match: str) -> bool:
    """Compare weakly (RFC 9110, 13.1.2): proxies that compress mark an ETag as weak."""
    known = [tag.strip().removeprefix("W/") for tag in if_none_match.split(",")]
    return etag in known or "*" in known
