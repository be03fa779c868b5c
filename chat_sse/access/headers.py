"""Header fields that every response gets, unless it has its own."""

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
