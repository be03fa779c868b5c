"""`/openapi.json` and the two pages that show it. Every byte comes from this package.

`assets/` holds Swagger UI and Redoc at pinned versions, fetched by `tests/vendor_docs.py`, and the few lines
of our own that start them.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from chat_sse.access.paths import public_path
from chat_sse.web.assets import Asset, asset_of, served_files

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

# Under which the service is shown; an outer application's path may have anything in it.
KNOWN_PATHS = 8

HEADERS = {"Content-Security-Policy": POLICY, "Cross-Origin-Opener-Policy": "same-origin"}


def documentation(
    described: Sequence[Route], describe: Callable[[Iterable[Route], str], dict[str, Any]]
) -> list[Route]:
    """Return the routes that document these routes, and themselves. `describe` makes the OpenAPI document."""
    pages = Pages(lambda root_path: msgspec.json.encode(describe([*described, *own], root_path)))
    own = [
        Route("/openapi.json", pages.openapi),
        Route("/docs", pages.swagger_ui),
        Route("/redoc", pages.redoc),
    ]
    parts = [
        Route(f"/docs/assets/{path.name}", asset_of(path, HEADERS).respond, include_in_schema=False)
        for path in served_files(ASSETS)
    ]
    return [*own, *parts]


class Pages:
    """The handlers."""

    def __init__(self, document: Callable[[str], bytes]) -> None:
        """`document`: the OpenAPI document of a service under a path."""
        self._openapi_under = lru_cache(KNOWN_PATHS)(
            lambda path: Asset(lambda: document(path), "application/json", HEADERS)
        )
        self._swagger_ui = asset_of(ASSETS / "swagger.html", HEADERS)
        self._redoc = asset_of(ASSETS / "redoc.html", {**HEADERS, "Content-Security-Policy": REDOC_POLICY})

    async def openapi(self, request: Request) -> Response:
        """The OpenAPI document of this service."""
        return await self._openapi_under(public_path(request.scope)).respond(request)

    async def swagger_ui(self, request: Request) -> Response:
        """Try the service out, with Swagger UI."""
        return await _respond(self._swagger_ui, request)

    async def redoc(self, request: Request) -> Response:
        """Read about the service, with Redoc."""
        return await _respond(self._redoc, request)


async def _respond(page: Asset, request: Request) -> Response:
    """Return a page. Its links are relative: from its path with a slash at the end they would lead astray."""
    if request.scope.get("raw_path", b"").endswith(b"/"):
        return Response(
            status_code=307, headers={"Location": f"../{request.scope['path'].rpartition('/')[2]}"}
        )
    return await page.respond(request)
