"""A question that upstream refused: what came back, in bounds, and whether to ask again.

Error bodies are not what they should be: endless, or a few hundred bytes that unpack to gigabytes. So what is
read of one, packed and unpacked, is capped.
"""

import math
import random
import zlib
from collections.abc import Mapping
from email.utils import parsedate_to_datetime

import msgspec

# An error is a sentence or two.
MAX_REFUSAL_BYTES = 65_536
# How long the rest of an error is waited for, once its status is known.
REFUSAL_SECONDS = 5.0
# Twice compressed happens (a proxy before a proxy); more is a trap.
MAX_CODINGS = 2

# The SDK's own rules and figures, for the questions that do not go through it.
RETRIES = 2
_RETRY_STATUSES = (408, 409, 429)
_FIRST_BACKOFF_SECONDS = 0.5
_JITTER = 0.25
# The SDK would sleep up to 120 s for upstream's Retry-After with the client waiting; past this it is told.
MAX_RETRY_WAIT_SECONDS = 2.0
# Longer waits are told as this long.
MAX_TOLD_WAIT_SECONDS = 86_400.0

_WINDOW_BITS = {"gzip": 31, "x-gzip": 31, "deflate": 15}


class Refused(msgspec.Struct, frozen=True, kw_only=True):
    """An HTTP response that is no answer, and was not paid for."""

    status: int
    headers: Mapping[str, str]
    """Names are in lower case."""
    content: bytes
    """The body's beginning, as it arrived."""

    def text(self) -> bytes:
        """Return the body without its codings, or b"" where they cannot be undone."""
        return decompressed(self.content, self.headers.get("content-encoding", ""))


def decompressed(content: bytes, codings: str) -> bytes:
    """Undo content codings (RFC 9110, 8.4), up to MAX_REFUSAL_BYTES of each. b"" for what is no such code."""
    names = [name for part in codings.split(",") if (name := part.strip().lower()) not in ("", "identity")]
    if len(names) > MAX_CODINGS or not all(name in _WINDOW_BITS for name in names):
        return b""
    for name in reversed(names):
        try:
            content = zlib.decompressobj(_WINDOW_BITS[name]).decompress(content, MAX_REFUSAL_BYTES)
        except zlib.error:
            return b""
    return content


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds that upstream wants us to wait; None where it says nothing that makes sense.

    Source: RFC 9110, 10.2.3 (seconds, of which many send fractions, or a date); OpenAI's `retry-after-ms`.
    """
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        text = headers.get(name, "").strip()
        try:
            seconds = float(text) * unit
        except ValueError:
            seconds = _seconds_until(text)
        if math.isfinite(seconds) and seconds >= 0:
            return min(seconds, MAX_TOLD_WAIT_SECONDS)
    return None


def _seconds_until(text: str) -> float:
    try:
        date = parsedate_to_datetime(text)
        return max(0.0, (date - date.now(date.tzinfo)).total_seconds())
    except (ValueError, OverflowError, TypeError, IndexError):
        return math.nan


def retry_seconds(refused: Refused, attempt: int) -> float | None:
    """Return how long to wait before asking again; None where it is not worth it, or takes too long.

    `attempt`: from 0. The answer may be "no" in upstream's own `x-should-retry`, which the SDK knows as well.
    """
    said = refused.headers.get("x-should-retry")
    if said == "false" or not (
        said == "true" or refused.status in _RETRY_STATUSES or refused.status >= 500  # noqa: PLR2004
    ):
        return None
    wait = retry_after(refused.headers)
    if wait is None or wait == 0:
        return backoff_seconds(attempt)
    return wait if wait <= MAX_RETRY_WAIT_SECONDS else None


def backoff_seconds(attempt: int) -> float:
    """Return how long to wait after an attempt that says nothing about it."""
    spread: float = 1 - _JITTER * random.random()  # noqa: S311 - no secret
    return _FIRST_BACKOFF_SECONDS * 2.0**attempt * spread
