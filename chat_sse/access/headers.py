"""Header fields: those that every response gets, and a quick look at a request's."""

from starlette.types import Scope

# Of a header's value that an error repeats.
MAX_SHOWN_CHARS = 200

# Every response gets these, unless it has its own.
RESPONSE_HEADERS: tuple[tuple[bytes, bytes], ...] = (
    # An answer is never run as a script, nor shown as a page, because it looks like one.
    (b"x-content-type-options", b"nosniff"),
    # Opened by itself, a response loads and runs nothing, and no page frames it. The pages have their own.
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    # Addresses hold questions and tokens.
    (b"referrer-policy", b"no-referrer"),
    # Other sites may read what CORS lets them, and embed nothing.
    (b"cross-origin-resource-policy", b"same-origin"),
    # Some statuses may be kept without being asked about (RFC 9111, 4.2.2): 204 and 404, for instance.
    (b"cache-control", b"no-store"),
)


def header(scope: Scope, name: bytes) -> str | None:
    """Return a request's first field of a name in lower case. Quicker than Starlette's mapping."""
    for field, value in scope["headers"]:
        if field == name:
            return str(value, "latin-1")
    return None


def shown(value: bytes) -> str:
    """Return a header's value as an error may repeat it."""
    return value.decode("latin-1")[:MAX_SHOWN_CHARS]
