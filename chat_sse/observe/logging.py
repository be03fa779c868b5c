"""What an operator reads: one line an event, with ids, sizes and durations, never content.

A record is an event name as its message and `extra={"fields": {...}}`.
"""

import logging
import re
import secrets
import time
import traceback
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
from starlette.types import ASGIApp, Message, Receive, Scope, Send

log = logging.getLogger(__name__)

# At DEBUG these log what passes through them: prompts, answers, headers.
CONTENT_LOGGERS = ("openai", "httpx2", "httpcore2", "aiohttp", "sse_starlette", "asyncio")

# client, method, path with query, HTTP version, status
UVICORN_ACCESS_ARGS = 5

MAX_PATH_CHARS = 200

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,128}")


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
    """Writes the time once a second, and of an exception its kind and where it was raised.

    A record's own time would be half of what its line costs. An exception's message may quote what was being
    worked on: a prompt, a key, a URL with a password.
    """

    time_format: str

    def __init__(self) -> None:
        super().__init__()
        self._second, self._time = -1, ""

    def formatException(self, ei: Any) -> str:  # noqa: N802 - the base class's name
        """Format a traceback without messages, that of each cause before that of its effect."""
        return "\n".join(_traceback(ei[1])) if ei[1] else ""

    def time_of(self, record: logging.LogRecord) -> str:
        """Write a record's time."""
        second = int(record.created)
        if second != self._second:
            self._second, self._time = second, time.strftime(self.time_format, time.localtime(second))
        return self._time


class TextFormatter(_Formatter):
    """`2026-11-23T20:15:01 INFO answer.ended id=8f3c… seconds=0.42`, for people."""

    time_format = "%Y-%m-%dT%H:%M:%S"

    def format(self, record: logging.LogRecord) -> str:
        """Write a record."""
        fields = [f" {name}={value}" for name, value in getattr(record, "fields", {}).items()]
        line = f"{self.time_of(record)} {record.levelname} {record.getMessage()}{''.join(fields)}"
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


class JsonFormatter(_Formatter):
    """One JSON object a line, for collectors."""

    time_format = "%Y-%m-%dT%H:%M:%S%z"

    def format(self, record: logging.LogRecord) -> str:
        """Encode a record."""
        line: dict[str, Any] = {
            "time": self.time_of(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return msgspec.json.encode(line).decode()


def configure_logging(level: str, log_format: str) -> None:
    """Send every record to standard error in one format."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter() if log_format == "json" else TextFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    logging.getLogger("uvicorn").setLevel(logging.WARNING)  # it says what our own lines say
    logging.getLogger("uvicorn.error").addFilter(_is_no_broken_end)
    # No line tells where it was called, so finding out is left out (logging how-to, "Optimization").
    logging._srcfile = None  # noqa: SLF001 - the documented name
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False


def _is_no_broken_end(record: logging.LogRecord) -> bool:
    """Drop uvicorn's complaint about a body without an end: text is broken off so, and logs why."""
    return record.msg != "ASGI callable returned without completing response."


def quiet_content_loggers() -> None:
    """Keep the libraries that log what they carry above DEBUG, whatever level is set."""
    for name in CONTENT_LOGGERS:
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger("uvicorn.access").addFilter(_cut_query)


def _cut_query(record: logging.LogRecord) -> bool:
    """Take the query string, which may be a question, out of the line that uvicorn itself logs."""
    if isinstance(record.args, tuple) and len(record.args) == UVICORN_ACCESS_ARGS:
        client, method, path, *rest = record.args
        record.args = (client, method, str(path).partition("?")[0], *rest)
    return True


def _printable_path(scope: Scope) -> str:
    """Give the path as it was sent, percent-encoded: decoded, it could hold a line of log of its own."""
    raw: bytes = scope.get("raw_path") or scope["path"].encode("ascii", "backslashreplace")
    return raw.partition(b"?")[0].decode("ascii", "backslashreplace")[:MAX_PATH_CHARS]


def _given_id(scope: Scope) -> str | None:
    """Give the id that the client or a proxy has given the request, if it is one."""
    given = next((value for name, value in scope["headers"] if name == b"x-request-id"), b"")
    return given.decode() if _REQUEST_ID.fullmatch(given) else None


class RequestLog:
    """Pure ASGI: give each request an id, and log its end in one line, without its query string."""

    def __init__(self, app: ASGIApp, *, headers: Sequence[tuple[bytes, bytes]] = ()) -> None:
        """`headers`: what every response gets that does not have it; here, where all of them pass."""
        self.app = app
        self._headers = headers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a connection."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request_id = _given_id(scope) or secrets.token_hex(8)
        state = scope.setdefault("state", {})
        state["request_id"] = request_id
        state["server_send"] = send  # for bodies: see `ClientStream`
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
            del state["server_send"]  # it leads back to this scope, and only the collector would free both
            fields = {"method": scope["method"], "path": _printable_path(scope), "status": status}
            seconds = round(time.monotonic() - started, 3)
            log.info("request", extra={"fields": {**fields, "request_id": request_id, "seconds": seconds}})
