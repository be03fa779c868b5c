"""Show one answer, from its first event to an exit code."""

import os
import sys
from contextlib import closing

import httpx2

from chat_sse.errors import BudgetSpent, TooManyRequests, TooManyStreams
from chat_sse.events import Delta, Done, Failure
from chat_sse.terminal.answer_reader import AnswerReader, Refused, Unreachable
from chat_sse.terminal.plain import Plain, Screen
from chat_sse.terminal.telling import left_in_words, say, say_error

WHOLE, CUT, WRONG, UNREACHABLE, REFUSED = 0, 1, 2, 3, 4
INTERRUPTED = 130  # 128 + SIGINT, as shells count
READER_GONE = 141  # 128 + SIGPIPE

# What a whole answer ends with. Some upstreams give no reason at a good end.
WHOLE_REASONS = ("stop", None)
# Those after which it matters what is left.
LIMIT_ERRORS = (TooManyRequests.code, TooManyStreams.code, BudgetSpent.code)


def show(answer: AnswerReader) -> tuple[int, str]:
    """Show an answer. Returns the exit code, and the text as far as it has come."""
    pieces: list[str] = []
    return _show(answer, pieces), "".join(pieces)


def _show(answer: AnswerReader, pieces: list[str]) -> int:
    try:
        return _read(answer, pieces)
    except KeyboardInterrupt:
        return _stop(answer, INTERRUPTED)
    except BrokenPipeError:
        # Python writes what is left at its exit, and would complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _stop(answer, READER_GONE)
    except Refused as exc:
        code = say_error(CUT if answer.begun else REFUSED, exc.body, exc.retry_seconds)
        if exc.body.error in LIMIT_ERRORS and (me := answer.standing()):
            say(code, left_in_words(me))
        return code
    except Unreachable as exc:
        return say(UNREACHABLE, f"{answer.service} cannot be reached: {exc}")


def _read(answer: AnswerReader, pieces: list[str]) -> int:
    end: Done | Failure | None = None
    with closing(_screen()) as screen:
        for event in answer.events():
            if isinstance(event, Delta):
                pieces.append(event.content)
                screen.add(event.content)
            elif isinstance(event, Done | Failure):
                end = event
    if isinstance(end, Failure):
        return say_error(CUT, end)
    reason = end.finish_reason if end else None
    if reason not in WHOLE_REASONS:
        return say(CUT, f"the answer was cut short: {reason}")
    return WHOLE


def _screen() -> Screen:
    if not sys.stdout.isatty() or os.environ.get("TERM") == "dumb":
        return Plain()
    from chat_sse.terminal.markdown import Drawn  # noqa: PLC0415 - not needed for a pipe

    return Drawn()


def _stop(answer: AnswerReader, code: int) -> int:
    try:
        answer.stop()
    except httpx2.RequestError:
        return say(code, "the service could not be told to stop; it stops when nobody reads the answer")
    except KeyboardInterrupt:  # the person does not wait
        return code
    return code
