"""The chat page at `/` and the client module `/ask.js`: plain files, served as they lie in the package.

Starlette's StaticFiles would take the media types from the machine's registry (on some, `.js` is no script)
and the ETags from file times, which differ between hosts that serve one site. Here both come from us: a
table, and a digest of the contents.
"""

import hashlib
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

FOLDER = Path(__file__).parent

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

# Nothing from elsewhere, nothing inline, and no string becomes markup but through DOMPurify (Trusted Types).
CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types dompurify",
    )
)

# Kept, but asked about each time: a new version of the service is a new page at once, for a 304 otherwise.
_HEADERS = {"Cache-Control": "no-cache"}
_PAGE_HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}


def routes() -> list[Route]:
    """Give the page at `/`, the client module beside `/ask`, and their parts under `/page/`."""
    files = [path for path in sorted(FOLDER.rglob("*")) if path.suffix in MEDIA_TYPES]
    return [_route(_address(path), path) for path in files]


def _route(address: str, path: Path) -> Route:
    # The OpenAPI document tells of the page, and not of its parts.
    told = address == "/"
    name = "chat_page" if told else path.name
    return Route(address, _serve(path), methods=["GET"], name=name, include_in_schema=told)


def _address(path: Path) -> str:
    name = path.relative_to(FOLDER).as_posix()
    if name == "index.html":
        return "/"
    return f"/{name}" if name in ("ask.js", "ask.d.ts") else f"/page/{name}"


def _serve(path: Path) -> Callable[[Request], Awaitable[Response]]:
    """Make the handler of one file, which is read now and kept: all of them are some 250 KB."""
    content = path.read_bytes()
    headers = {**_HEADERS, "ETag": f'"{hashlib.sha256(content).hexdigest()[:32]}"'}
    if path.suffix == ".html":
        headers |= _PAGE_HEADERS

    async def file(request: Request) -> Response:
        if _unchanged(request.headers, headers["ETag"]):
            return Response(status_code=304, headers=headers)
        return Response(content, headers=headers, media_type=MEDIA_TYPES[path.suffix])

    return file


def _unchanged(headers: Mapping[str, str], etag: str) -> bool:
    """Compare weakly (RFC 9110, 13.1.2): proxies that compress mark an ETag as weak."""
    known = [tag.strip().removeprefix("W/") for tag in headers.get("if-none-match", "").split(",")]
    return etag in known or "*" in known
