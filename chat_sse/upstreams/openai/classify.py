"""What an upstream's error means, wherever and in whichever form it was said. Pure: no I/O, no clock.

An error may be an object, a string, a list, nested, with a number or a word as its code. Its words decide
what it is called; only names (type, code, parameter) are passed on, since its message may quote the question.
"""

import re
from collections.abc import Iterator
from typing import Any

import msgspec

from chat_sse.errors import (
    UpstreamAuthentication,
    UpstreamError,
    UpstreamRateLimit,
    UpstreamRejected,
    UpstreamTimeout,
    UpstreamUnavailable,
)

# Errors within errors: gateways wrap what they were told.
MAX_DEPTH = 5
MAX_MESSAGE_CHARS = 4000

_MONEY = re.compile(
    r"insufficient[ _-]?(\w+[ _-])?(quota|balance|credit|fund)|"
    r"(quota|balance|credits?|funds?)[ _-](is |are )?(insufficient|not[ _-]enough|exhausted)|余额不足|欠费|"
    r"(no|out of|not enough|exhausted) (\w+ )?(quota|credit|balance)|credit balance|"
    r"billing[ _-](hard|not|issue|limit)|payment[ _-]required|arrearage|arrears",
    re.IGNORECASE,
)
_AUTHENTICATION = re.compile(
    r"insufficient[ _-](permission|scope|privilege)|"
    r"authentication|unauthorized|unauthenticated|permission[ _]denied|"
    r"(invalid|incorrect|missing|expired|wrong)[ _-](\w+[ _-])?(api[ _-]?key|access[ _-]token|credential)|"
    r"api[ _-]?key[ _-](is |was |has )?(not valid|invalid|expired|missing|required)",
    re.IGNORECASE,
)
_TIMEOUT = re.compile(r"time[ _-]?out|timed[ _-]out|deadline[ _-]exceeded", re.IGNORECASE)
_RATE = re.compile(
    r"rate[ _-]?limit|too[ _-]?many[ _-]?requests|throttl|resource[ _-]exhausted|^(tokens|requests)$",
    re.IGNORECASE | re.MULTILINE,
)
_REJECTED = re.compile(
    r"invalid|bad[ _-]?request|not[ _-]?found|context[ _-]?(length|size|window)|unsupported|unprocessable|"
    r"content[ _-]?(filter|policy)|moderation|validation|exceeds|too[ _-]long",
    re.IGNORECASE,
)

# These words are believed whatever the status: some gateways make every error of theirs a 500.
_TOO_LONG = re.compile(r"context[ _-]?(length|size|window)|maximum context|prompt is too long", re.IGNORECASE)
_REJECTED_TYPE = re.compile(
    r"invalid[ _-]?(request|argument)|bad[ _-]?request|unsupported[ _-]|unprocessable|"
    r"not[ _-]?found[ _-]?error",
    re.IGNORECASE,
)


_TYPES = ("type", "status", "kind")
_CODES = ("code", "status_code", "reason", "error_code", "errcode", "err_code")
_NAMES = (*_TYPES, *_CODES)
_MESSAGES = (
    *("message", "msg", "error", "detail", "error_description", "title", ""),
    *("error_msg", "errmsg", "err_msg", "status_msg", "error_message"),
)


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """An error object's members, found at whichever depth; None where there is none."""

    message: str | None = None
    type: str | None = None
    code: str | None = None
    param: str | None = None
    words: str = ""
    """Type, code, status and reasons, one a line."""
    status: int | None = None
    """An HTTP status among them."""


def read_error(error: Any) -> Told:
    """Find the members of an error in any form."""
    members = list(_members(error, MAX_DEPTH))

    def first(*names: str) -> str | None:
        return next((value for name, value in members if name in names), None)

    words = [value for name, value in members if name in (*_NAMES, "error")]
    numbers = [int(word) for word in words if re.fullmatch(r"[45][0-9]{2}", word)]
    message = first(*_MESSAGES)
    return Told(
        message=message[:MAX_MESSAGE_CHARS] if message else None,
        type=first(*_TYPES),
        code=first(*_CODES),
        param=first("param", "parameter", "field"),
        words="\n".join(words)[:MAX_MESSAGE_CHARS],
        status=numbers[0] if numbers else None,
    )


def classify(  # noqa: PLR0911 - a table in the order of its precedence
    told: Told, status: int | None, details: str, retry_after: float | None = None
) -> UpstreamError:
    """Return the error of our own tree. `status`: HTTP's, for an error response; else the error's own counts.

    Errors that asking again cannot mend are not retryable.
    """
    statuses = {number for number in (status, told.status) if number is not None}
    text = f"{told.words}\n{told.message or ''}"
    if statuses & {402} or _MONEY.search(text):
        return UpstreamRateLimit(details, retryable=False)
    if 403 in statuses and re.search("moderation|flagged", text, re.IGNORECASE):  # noqa: PLR2004 - OpenRouter's
        return UpstreamRejected(details)
    if statuses & {401, 403} or _AUTHENTICATION.search(text):
        return UpstreamAuthentication(details)
    # A message may quote anything: it counts where nothing else does.
    hints = told.words if statuses else text
    if statuses & {408, 504, 524} or _TIMEOUT.search(hints):
        return UpstreamTimeout(details, retry_after=retry_after)
    if statuses & {429} or _RATE.search(hints):
        return UpstreamRateLimit(details, retry_after=retry_after)
    rejected = any(400 <= number < 500 for number in statuses)  # noqa: PLR2004 - HTTP's client errors
    failed = any(number >= 500 for number in statuses)  # noqa: PLR2004 - HTTP's server errors
    if _TOO_LONG.search(text) or _REJECTED_TYPE.search(told.words):
        return UpstreamRejected(details)
    if rejected or (not failed and _REJECTED.search(text)):
        return UpstreamRejected(details)
    return UpstreamUnavailable(details, retry_after=retry_after)


def _members(value: Any, depth: int, name: str = "") -> Iterator[tuple[str, str]]:
    """Yield the members of an error that are text or numbers, the outer ones last: inner ones say more."""
    if depth == 0 or value is None or isinstance(value, bool):
        return
    if isinstance(value, dict):
        inner = {key: member for key, member in value.items() if isinstance(member, dict | list)}
        for key, member in inner.items():
            yield from _members(member, depth - 1, key)
        for key, member in value.items():
            if key not in inner:
                yield from _members(member, depth - 1, key)
    elif isinstance(value, list):
        for item in value[:10]:
            yield from _members(item, depth - 1, name)
    elif isinstance(value, str) and value.lstrip().startswith(("{", "[")) and (inside := _json(value)):
        yield from _members(inside, depth - 1, name)
    elif isinstance(value, str | int | float) and str(value):
        yield name, str(value)


def _json(text: str) -> Any:
    """Return the JSON in a string: gateways quote what they were told. None where there is none."""
    try:
        return msgspec.json.decode(text)
    except (ValueError, RecursionError):
        return None
