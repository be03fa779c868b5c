"""A small web server of a test's own: another site, a login, an issuer of tokens, somebody hostile."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

EMPTY_PAGE = b'<!doctype html><link rel="icon" href="data:,"><title>page</title>'
STOP_SECONDS = 10.0


class Handler(BaseHTTPRequestHandler):
    """One request. A test says in `do_GET` or `do_POST` what is replied."""

    def reply(self, status: int, body: bytes = b"", /, **headers: str) -> None:
        """Send one response."""
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def web_server(
    handler: type[BaseHTTPRequestHandler], *, port: int = 0, tls: ssl.SSLContext | None = None
) -> Iterator[int]:
    """Serve on loopback until the exit; gives the port."""
    with ThreadingHTTPServer(("127.0.0.1", port), handler) as server:
        if tls is not None:
            server.socket = tls.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join(STOP_SECONDS)
