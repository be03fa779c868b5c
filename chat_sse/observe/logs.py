"""What an operator reads: one line an event, with ids, sizes and durations, never content.

A record is an event name as its message and `extra={"fields": {...}}`.
"""

import logging
import re
import secrets
import time
from collections.abc import Sequence
from typing import Any

import msgspec
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

log = logging.getLogger(__name__)

# At DEBUG these log what passes through them: prompts, answers, headers.
CONTENT_LOGGERS = ("openai", "httpx2", "httpcore2", "aiohttp", "sse_starlette", "asyncio")

# client, method, path with query, HTTP version, status
UVICORN_ACCESS_ARGS = 5

MAX_PATH_CHARS = 200

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")


class TextFormatter(logging.Formatter):
    """`2026-11-23T20:15:01 INFO answer.ended id=8f3c… seconds=0.42`, for people."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(message)s", "%Y-%m-%dT%H:%M:%S")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the base class's name
        """Append the fields."""
        fields = getattr(record, "fields", {})
        return " ".join(
            [super().formatMessage(record), *(f"{name}={value}" for name, value in fields.items())]
        )


class JsonFormatter(logging.Formatter):
    """One JSON object a line, for collectors."""

    def format(self, record: logging.LogRecord) -> str:
        """Encode a record."""
        line: dict[str, Any] = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S%z"),
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
        given = Headers(scope=scope).get("x-request-id", "")
        request_id = given if _REQUEST_ID.fullmatch(given) else secrets.token_hex(8)
        scope.setdefault("state", {})["request_id"] = request_id
        started, status = time.monotonic(), 0

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["x-request-id"] = request_id
                told = dict(message["headers"])
                message["headers"] += [header for header in self._headers if header[0] not in told]
            await send(message)

        try:
            await self.app(scope, receive, send_with_id)
        finally:
            fields = {"method": scope["method"], "path": _printable_path(scope), "status": status}
            seconds = round(time.monotonic() - started, 3)
            log.info("request", extra={"fields": {**fields, "request_id": request_id, "seconds": seconds}})
