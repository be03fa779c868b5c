"""An upstream that replies as `tests/cases/README.md` describes: a status, headers, and parts of a body."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import msgspec

PIECE_BYTES = 65_536


class Replay(ThreadingHTTPServer):
    """A server on a free loopback port. Set `case` before asking; `paid` counts the calls not refused."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.case: Mapping[str, Any] = {}
        self.paid = 0
        self.bodies: list[dict[str, Any]] = []
        self.paths: list[str] = []

    @property
    def url(self) -> str:
        """The base URL."""
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def play(self, case: Mapping[str, Any]) -> None:
        """Reply by a case from now on, and count anew."""
        self.case, self.paid, self.bodies, self.paths = case, 0, [], []


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Replay

    def do_POST(self) -> None:
        server, case = self.server, self.server.case
        body = self.rfile.read(int(self.headers["content-length"]))
        server.bodies.append(msgspec.json.decode(body))
        server.paths.append(self.path)
        refused = case.get("first_refused")
        if refused and refused["if_body_has"].encode() in body:
            self._reply(refused["status"], {}, [msgspec.json.encode(refused["body"]).decode()])
            return
        server.paid += 1
        self._reply(case["status"], case["headers"], case["body"])

    def _reply(self, status: int, headers: Mapping[str, str], parts: list[Any]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for part in parts:
            if isinstance(part, int | float):
                time.sleep(part)
                continue
            if isinstance(part, dict):
                before, text, times, after = part["repeat"]
                part = before + text * times + after  # noqa: PLW2901
            data = part.encode()
            for start in range(0, len(data), PIECE_BYTES):
                piece = data[start : start + PIECE_BYTES]
                self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
        self.wfile.write(b"0\r\n\r\n")

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        """Say nothing."""


@contextmanager
def replaying() -> Iterator[Replay]:
    """Run a Replay in a thread."""
    server = Replay()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)
