"""What went wrong, in words on standard error."""

import math

import click

from chat_sse.errors import ErrorBody, Unauthenticated
from chat_sse.standing import Me
from chat_sse.terminal.plain import printable

UNITS = (("day", 86_400), ("hour", 3_600), ("minute", 60))


def say(code: int, text: str) -> int:
    """Write what went wrong, and return the exit code. `text` may be the service's."""
    click.echo(f"chat-sse: {printable(text)}", err=True)
    return code


def say_error(code: int, error: ErrorBody, retry_seconds: int | None = None) -> int:
    """Write an error of the service, with what can be done about it, and return the exit code."""
    lines = [
        error.content,
        ": ".join(part for part in (error.error, error.details) if part),
        f"request {error.request_id}",
    ]
    if error.error == Unauthenticated.code:
        lines.append("give the key, or a token of yours, by --key or CHAT_SSE_KEY")
    if retry_seconds is not None:
        lines.append(f"ask again {in_words(retry_seconds)}")
    return say(code, "\n  ".join(lines))


def in_words(seconds: int) -> str:
    """Say when it will be: rounded up in the largest unit of which there are at least two."""
    unit, size = next((one for one in UNITS if seconds >= 2 * one[1]), ("second", 1))
    count = max(1, math.ceil(seconds / size))
    return f"in {count} {unit}{'' if count == 1 else 's'}"


def left_in_words(me: Me) -> str:
    """Say in one line what is left to the caller."""
    windows = {"requests": me.requests, "tokens": me.tokens}
    left = [
        f"{window.left} of {window.limit} {what} (all again {in_words(window.reset_seconds)})"
        for what, window in windows.items()
        if window
    ]
    left.append(f"{me.streams.left} of {me.streams.limit} answers at once")
    return f"left{f' for {me.name}' if me.name else ''}: {', '.join(left)}"
