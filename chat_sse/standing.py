"""Where a caller stands: the body of `GET /me`."""

import msgspec


class Window(msgspec.Struct, frozen=True, kw_only=True):
    """What is left of a limit that begins anew."""

    limit: int
    left: int
    window_seconds: int
    reset_seconds: int


class Streams(msgspec.Struct, frozen=True, kw_only=True):
    """How many more answers may run at once."""

    limit: int
    left: int


class Me(msgspec.Struct, frozen=True, kw_only=True):
    """Who the caller is to this server, and what is left to it; null where nothing is limited."""

    name: str | None
    """Null for a caller that has not logged in."""
    models: tuple[str, ...]
    """Those that it may name; the first is the default."""
    requests: Window | None
    streams: Streams
    tokens: Window | None
