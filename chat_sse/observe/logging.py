"""The log: one line per event, with ids, sizes and durations, never content.

A record is an event name as its message and `extra={"fields": {...}}`. A value may come from a client or from
upstream, so the formatters escape it: no value can end a line, add a field or control a terminal.
"""

import json
import logging
import re
import secrets
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec
from starlette.types import ASGIApp, Message, Receive, Scope, Send

log = logging.getLogger(__name__)

# At DEBUG these log what passes through them: prompts, answers, headers.
CONTENT_LOGGERS = ("openai", "httpx2", "httpcore2", "aiohttp", "sse_starlette", "asyncio")

# client, method, path with query, HTTP version, status
UVICORN_ACCESS_ARGS = 5

MAX_PATH_CHARS = 200
# Of one value; ids and model names are shorter.
MAX_VALUE_CHARS = 500

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,128}")
# What could be taken for the end of a value.
_DELIMITERS = re.compile(r"""[\s="'\\]""")
# Fields whose values need no quotes, and are short: nearly all. One look at the whole costs less than one at
# each; a value with a space in it would make more fields than there are.
_PLAIN_FIELDS = re.compile(r"(?: [a-z_]+=[!#-&(-<>-\[\]-~]{1,128})*")


def _traceback(exc: BaseException) -> Iterator[str]:
    before = exc.__cause__ or (None if exc.__suppress_context__ else exc.__context__)
    if before is not None:
        yield from _traceback(before)
        yield "which led to:"
    yield "".join(traceback.format_tb(exc.__traceback__)) + type(exc).__qualname__
    if isinstance(exc, BaseExceptionGroup):
        for part in exc.exceptions:
            yield "of which one part is:"
            yield from _traceback(part)


class _Formatter(logging.Formatter):
    """Formats the time once per second, and exceptions without their messages.

    Formatting the time of each record would be half of a line's cost. An exception's message may quote a
    prompt, a key or a URL with a password.
    """

    time_format: str

    def __init__(self) -> None:
        super().__init__()
        self._second, self._time = -1, ""

    def formatException(self, ei: Any) -> str:  # noqa: N802 - the base class's name
        """Return a traceback without messages, each cause before its effect."""
        return "\n".join(_traceback(ei[1])) if ei[1] else ""

    def time_of(self, record: logging.LogRecord) -> str:
        """Return a record's time."""
        second = int(record.created)
        if second != self._second:
            self._second, self._time = second, time.strftime(self.time_format, time.localtime(second))
        return self._time


class TextFormatter(_Formatter):
    """`2026-11-23T20:15:01 INFO answer.ended id=8f3c… seconds=0.42`, for people."""

    time_format = "%Y-%m-%dT%H:%M:%S"

    def format(self, record: logging.LogRecord) -> str:
        """Return a record's line, and below it the traceback of its exception."""
        fields: dict[str, object] = getattr(record, "fields", {})
        told = "".join([f" {name}={value}" for name, value in fields.items()])
        if not _PLAIN_FIELDS.fullmatch(told) or told.count(" ") != len(fields):
            told = "".join([f" {name}={_quoted(value)}" for name, value in fields.items()])
        line = f"{self.time_of(record)} {record.levelname} {_escaped(record.getMessage())}{told}"
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


def _escaped(text: str) -> str:
    """Escape the line ends, control and other unprintable characters as Python does."""
    return text if text.isprintable() else repr(text)[1:-1]


def _quoted(value: object) -> str:
    """Return a field's value, as a Python literal where it is not one printable word."""
    text = str(value)[:MAX_VALUE_CHARS]
    return text if text and text.isprintable() and not _DELIMITERS.search(text) else repr(text)


DEL = b"\x7f"
_encode = msgspec.json.Encoder(enc_hook=str).encode


class JsonFormatter(_Formatter):
    """One JSON object per line, in printable ASCII, for collectors."""

    time_format = "%Y-%m-%dT%H:%M:%S%z"
    _encode_slowly = json.JSONEncoder(separators=(",", ":"), default=str).encode  # escapes DEL as well

    def format(self, record: logging.LogRecord) -> str:
        """Return a record's object."""
        line: dict[str, Any] = {
            "time": self.time_of(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
            **{name: _bounded(value) for name, value in getattr(record, "fields", {}).items()},
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        try:
            text = _encode(line)
        except UnicodeEncodeError:  # half of a UTF-16 pair
            return self._encode_slowly(line)
        return text.decode() if text.isascii() and DEL not in text else self._encode_slowly(line)


def _bounded(value: object) -> object:
    return value[:MAX_VALUE_CHARS] if isinstance(value, str) else value


def configure_logging(level: str, log_format: str) -> None:
    """Write every record to standard error: as `text`, `json`, or with `auto` as text to a terminal."""
    handler = logging.StreamHandler()
    is_json = log_format == "json" or (log_format == "auto" and not sys.stderr.isatty())
    handler.setFormatter(JsonFormatter() if is_json else TextFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    logging.getLogger("uvicorn").setLevel(logging.WARNING)  # our own lines say the same
    logging.getLogger("uvicorn.error").addFilter(_is_no_broken_end)
    # No line names its caller, so the caller is not looked up (logging how-to, "Optimization").
    logging._srcfile = None  # noqa: SLF001 - the documented name
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False


def logs_json() -> bool:
    """Return whether standard error is read by a program, which takes nothing but JSON."""
    return any(isinstance(handler.formatter, JsonFormatter) for handler in logging.getLogger().handlers)


def _is_no_broken_end(record: logging.LogRecord) -> bool:
    """Drop uvicorn's complaint about a body without an end: `TextFormat` breaks off so, and logs why."""
    return record.msg != "ASGI callable returned without completing response."


def quiet_content_loggers() -> None:
    """Keep the libraries that log content at DEBUG above that level, whichever level is set."""
    for name in CONTENT_LOGGERS:
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger("uvicorn.access").addFilter(_cut_query)


def _cut_query(record: logging.LogRecord) -> bool:
    """Remove the query string, which may be a question, from uvicorn's own access line."""
    if isinstance(record.args, tuple) and len(record.args) == UVICORN_ACCESS_ARGS:
        client, method, path, *rest = record.args
        record.args = (client, method, str(path).partition("?")[0], *rest)
    return True


def _printable_path(scope: Scope) -> str:
    """Return the path as it was sent, percent-encoded."""
    raw: bytes = scope.get("raw_path") or scope["path"].encode("ascii", "backslashreplace")
    return raw.partition(b"?")[0].decode("ascii", "backslashreplace")[:MAX_PATH_CHARS]


def _given_id(scope: Scope) -> str | None:
    """Return the request id that the client or a proxy sent; None when there is no valid one."""
    given = next((value for name, value in scope["headers"] if name == b"x-request-id"), b"")
    return given.decode() if _REQUEST_ID.fullmatch(given) else None


class RequestLog:
    """Pure ASGI: gives each request an id, and logs its end in one line, without its query string."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        headers: Sequence[tuple[bytes, bytes]] = (),
        observe: Callable[[int, str | None], object] | None = None,
    ) -> None:
        """`headers`: added to every response that does not have them.

        `observe`: called with each response's status and, where it is an error's, the code.
        """
        self.app = app
        self._headers = headers
        self._observe = observe

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a connection."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request_id = _given_id(scope) or secrets.token_hex(8)
        state = scope.setdefault("state", {})
        state["request_id"] = request_id
        state["server_send"] = send  # used by `ClientStream`
        started, status = time.monotonic(), 0

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                given = message.get("headers", ())
                told = dict(given)
                more = [header for header in self._headers if header[0] not in told]
                message["headers"] = [*given, *more, (b"x-request-id", request_id.encode())]
            await send(message)

        try:
            await self.app(scope, receive, send_with_id)
        finally:
            del state["server_send"]  # refers to this scope: a cycle
            error: str | None = state.get("error")
            if self._observe is not None:
                self._observe(status, error)
            fields = {"method": scope["method"], "path": _printable_path(scope), "status": status}
            fields |= state.get("log_fields", {})  # who has asked, or why it was refused
            if error is not None:
                fields["error"] = error
            seconds = round(time.monotonic() - started, 3)
            log.info("request", extra={"fields": {**fields, "request_id": request_id, "seconds": seconds}})
