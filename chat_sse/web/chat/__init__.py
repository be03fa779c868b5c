"""The chat page at `/` and the client module `/ask.js`: plain files, served as they are in the package.

The client module is `ask.js` with its parts `ask-*.js`, each with the types that the compiler makes of it.
They lie side by side here and at the root of the site, because they import each other by relative URLs.
"""

from pathlib import Path

from starlette.routing import Route

from chat_sse.web.assets import asset_of, served_files

FOLDER = Path(__file__).parent

# Nothing from elsewhere, nothing inline, and no string becomes markup but through DOMPurify (Trusted Types).
CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",  # the reader's own; an answer has none
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types dompurify",
    )
)

_PAGE_HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}


def routes() -> list[Route]:
    """Return the page at `/`, the client module beside `/ask`, and the page's parts under `/page/`."""
    return [_route(_address(path), path) for path in served_files(FOLDER)]


def _route(address: str, path: Path) -> Route:
    # The OpenAPI document describes the page, and not its parts.
    is_page = address == "/"
    asset = asset_of(path, _PAGE_HEADERS if is_page else {})
    name = "chat_page" if is_page else path.name
    return Route(address, asset.respond, methods=["GET"], name=name, include_in_schema=is_page)


def _address(path: Path) -> str:
    name = path.relative_to(FOLDER).as_posix()
    if name == "index.html":
        return "/"
    return f"/{name}" if name.startswith(("ask.", "ask-")) else f"/page/{name}"
