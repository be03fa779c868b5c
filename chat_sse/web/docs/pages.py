"""`/openapi.json` and the two pages that show it. Every byte comes from this package.

`assets/` holds Swagger UI and Redoc at pinned versions, fetched by `tests/vendor_docs.py`, and our own few
lines that start them.
"""

import hashlib
import os
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import NotModifiedResponse, StaticFiles
from starlette.types import Scope

from chat_sse.api.openapi.document import document

ASSETS = Path(__file__).parent / "assets"

# No inline script or style, no eval, no other host. Icons are data URLs.
STYLE = "style-src 'self'"
POLICY = (
    f"default-src 'none'; script-src 'self'; {STYLE}; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
# What Redoc needs beyond that: style elements that are created empty (the hash is that of no text) and filled
# through the CSS object model, style attributes in its coloured samples, and a font inside its script.
REDOC_POLICY = POLICY.replace(
    STYLE,
    f"{STYLE} 'sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU='; "
    "style-src-attr 'unsafe-inline'; font-src data:",
)

HEADERS = {
    "Content-Security-Policy": POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-cache",  # kept, but asked about first: an update shows at once
}

# As text, and as UTF-8 whatever the system's own table of types says.
MEDIA_TYPES = {".js": "text/javascript", ".css": "text/css", ".html": "text/html", ".txt": "text/plain"}


def documentation(described: Sequence[Route]) -> list[BaseRoute]:
    """Give the routes that document these routes, and themselves."""
    files = Assets(directory=ASSETS)
    pages = Pages(files)
    own = [
        Route("/openapi.json", pages.openapi),
        Route("/docs", pages.swagger_ui),
        Route("/redoc", pages.redoc),
    ]
    pages.described = (*described, *own)
    return [*own, Mount("/docs/assets", files)]


class Assets(StaticFiles):
    """Starlette's files, with our headers and media types."""

    def file_response(
        self,
        full_path: str | os.PathLike[str],
        stat_result: os.stat_result,
        scope: Scope,
        status_code: int = 200,
    ) -> Response:
        """Answer with a file, or with 304 for one that the client has."""
        response = super().file_response(full_path, stat_result, scope, status_code)
        response.headers.update(HEADERS)
        if media_type := MEDIA_TYPES.get(Path(full_path).suffix):
            response.headers["Content-Type"] = f"{media_type}; charset=utf-8"
        return response


class Pages:
    """The handlers."""

    described: Sequence[Route] = ()

    def __init__(self, files: Assets) -> None:
        self._files = files

    async def openapi(self, request: Request) -> Response:
        """The OpenAPI document of this service."""
        response = Response(self._document, media_type="application/json", headers={**HEADERS, **self._tag})
        if self._files.is_not_modified(response.headers, request.headers):
            return NotModifiedResponse(response.headers)
        return response

    async def swagger_ui(self, request: Request) -> Response:
        """Try the service out, with Swagger UI."""
        return await self._files.get_response("swagger.html", request.scope)

    async def redoc(self, request: Request) -> Response:
        """Read about the service, with Redoc."""
        response = await self._files.get_response("redoc.html", request.scope)
        response.headers["Content-Security-Policy"] = REDOC_POLICY
        return response

    @cached_property
    def _document(self) -> bytes:
        return msgspec.json.encode(document(self.described))

    @cached_property
    def _tag(self) -> dict[str, str]:
        return {"ETag": f'"{hashlib.sha256(self._document).hexdigest()[:32]}"'}
