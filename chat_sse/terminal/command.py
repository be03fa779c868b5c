"""`chat-sse ask`: from the arguments to the exit code."""

import io
import os
import sys
from contextlib import closing
from urllib.parse import urlsplit

import click
import httpx2
import msgspec

from chat_sse.errors import BudgetSpent, ErrorBody, TooManyRequests, TooManyStreams
from chat_sse.events import Delta, Done, Failure
from chat_sse.messages import AskRequest, Message
from chat_sse.standing import Me
from chat_sse.terminal.answer_reader import AnswerReader, Refused, Unreachable
from chat_sse.terminal.chats import Chat, ChatUnusable, newest
from chat_sse.terminal.plain import Plain, Screen, printable

WHOLE, CUT, WRONG, UNREACHABLE, REFUSED = 0, 1, 2, 3, 4
INTERRUPTED = 130  # 128 + SIGINT, as shells count
READER_GONE = 141  # 128 + SIGPIPE

# More than any service admits.
MAX_INPUT_CHARS = 32 * 1_048_576
# Heartbeats come more often.
SILENCE_SECONDS = 60.0
CONNECT_SECONDS = 5.0

# What a whole answer ends with. Some upstreams give no reason at a good end.
WHOLE_REASONS = ("stop", None)
# Those after which it matters what is left.
LIMIT_ERRORS = (TooManyRequests.code, TooManyStreams.code, BudgetSpent.code)
LOOPBACK = ("127.0.0.1", "localhost", "::1")


def ask_in_terminal(question: str, *, url: str, key: str | None, model: str | None, chat: str | None) -> int:
    """Ask, show the answer, save the conversation. Returns the exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a locale without a letter shall not end in a traceback
            stream.reconfigure(errors="backslashreplace")
    try:
        kept = Chat(chat) if chat is not None else None
        asked = Message(role="user", content=_whole_question(question))
        messages = newest([*(kept.load() if kept else []), asked])
        body = msgspec.json.encode(AskRequest(messages=messages, model=model))
        client = _client(url, key)
    except UnicodeError:
        return _say(WRONG, "the question is not valid UTF-8")
    except (ChatUnusable, ValueError) as exc:
        return _say(WRONG, str(exc))
    with client:
        code, text = _show(AnswerReader(client, body))
    if kept and code == WHOLE:
        try:
            kept.save([*messages, Message(role="assistant", content=text)])
        except ChatUnusable as exc:
            return _say(WRONG, str(exc))
    return code


def _whole_question(question: str) -> str:
    """Return the question with what is piped in. Raises ValueError when there is nothing to ask."""
    piped = ""
    if question in ("", "-") or not sys.stdin.isatty():
        piped = sys.stdin.read(MAX_INPUT_CHARS)
        if len(piped) == MAX_INPUT_CHARS:
            raise ValueError("the input is too long")
    parts = ("" if question == "-" else question, piped)
    text = "\n\n".join(part.strip("\n") for part in parts if part.strip())
    if not text:
        raise ValueError('nothing to ask: chat-sse ask "…"')
    return text


def _client(url: str, key: str | None) -> httpx2.Client:
    """Return a client for the service. Raises ValueError, which quotes neither the URL nor the key."""
    try:
        parts = urlsplit(url)
        httpx2.URL(url)
    except (ValueError, httpx2.InvalidURL) as exc:
        raise ValueError("--url is no URL") from exc
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("--url must be an http or https URL")
    if key is not None and not (key.isascii() and key.isprintable() and " " not in key):
        raise ValueError("--key may hold printable ASCII characters only, and no space")
    try:
        return httpx2.Client(
            base_url=url,
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=httpx2.Timeout(SILENCE_SECONDS, connect=CONNECT_SECONDS),
            trust_env=parts.hostname not in LOOPBACK,  # a proxy does not lead back to this machine
            follow_redirects=False,  # the key is for this host alone
        )
    except (ValueError, httpx2.InvalidURL) as exc:
        raise ValueError("the proxy that the environment names cannot be used") from exc


def _show(answer: AnswerReader) -> tuple[int, str]:
    """Show an answer. Returns the exit code and the text."""
    try:
        return _read(answer)
    except KeyboardInterrupt:
        return _stop(answer, INTERRUPTED), ""
    except BrokenPipeError:
        # Python writes what is left at its exit, and would complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _stop(answer, READER_GONE), ""
    except Refused as exc:
        code = _print_error(CUT if answer.begun else REFUSED, exc.body)
        if exc.body.error in LIMIT_ERRORS and (me := answer.standing()):
            _say(code, _standing(me))
        return code, ""
    except Unreachable as exc:
        return _say(UNREACHABLE, f"{answer.service} cannot be reached: {exc}"), ""


def _read(answer: AnswerReader) -> tuple[int, str]:
    pieces: list[str] = []
    end: Done | Failure | None = None
    with closing(_screen()) as screen:
        for event in answer.events():
            if isinstance(event, Delta):
                pieces.append(event.content)
                screen.add(event.content)
            elif isinstance(event, Done | Failure):
                end = event
    if isinstance(end, Failure):
        return _print_error(CUT, end), ""
    reason = end.finish_reason if end else None
    if reason not in WHOLE_REASONS:
        return _say(CUT, f"the answer was cut short: {reason}"), ""
    return WHOLE, "".join(pieces)


def _screen() -> Screen:
    if not sys.stdout.isatty() or os.environ.get("TERM") == "dumb":
        return Plain()
    from chat_sse.terminal.markdown import Drawn  # noqa: PLC0415 - not needed for a pipe

    return Drawn()


def _stop(answer: AnswerReader, code: int) -> int:
    try:
        answer.stop()
    except httpx2.RequestError:
        return _say(code, "the service could not be told to stop; it stops when nobody reads the answer")
    return code


def _print_error(code: int, error: ErrorBody) -> int:
    reason = ": ".join(part for part in (error.error, error.details) if part)
    return _say(code, f"{error.content}\n  {reason}\n  request {error.request_id}")


def _standing(me: Me) -> str:
    """Return in one line what is left to the caller."""
    windows = {"requests": me.requests, "tokens": me.tokens}
    left = [
        f"{window.left} of {window.limit} {what} for {window.reset_seconds} s more"
        for what, window in windows.items()
        if window
    ]
    left.append(f"{me.streams.left} of {me.streams.limit} answers at once")
    return f"left{f' for {me.name}' if me.name else ''}: {', '.join(left)}"


def _say(code: int, text: str) -> int:
    """Write to standard error what went wrong, and return the exit code. `text` may be the service's."""
    click.echo(f"chat-sse: {printable(text)}", err=True)
    return code
