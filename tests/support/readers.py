"""Readers in threads of their own, and the requests of the request table."""

import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import httpx2
import pytest

from chat_sse.formats.sse import HEARTBEAT
from tests.conftest import QUICK
from tests.support import plain_http
from tests.support.service import HELLO, RunningService, ask, serve
from tests.support.upstream import ScriptedUpstream

OTHER = {"messages": [{"role": "user", "content": "Something else"}]}
UNKNOWN = "f" * 32
GRACE_SECONDS = 2.0
PATIENCE = 20.0  # for a thread that must come back

# Text that a careless reader would split, trim or lose.
PIECES = ("Grüße", "\n\n", " ", "data: x\n\n", "\u2028", "🙂", "\r\n", "id: 7", "end ")


def patient(upstream_port: int) -> AbstractContextManager[RunningService]:
    """Run a service whose upstream may be silent for long, and whose readers have a moment to come back."""
    env = {
        **QUICK,
        "OPENAI_BASE_URL": f"http://127.0.0.1:{upstream_port}/v1",
        "CHAT_SSE_ACCEPT_WAIT": "1",
        "CHAT_SSE_FIRST_TOKEN_TIMEOUT": "20",
        "CHAT_SSE_IDLE_TIMEOUT": "20",
        "CHAT_SSE_DISCONNECT_GRACE": str(GRACE_SECONDS),
    }
    return serve(env)


class Reader:
    """A reader in a thread of its own, as far from the others as another browser tab."""

    def __init__(self, pool: ThreadPoolExecutor, method: str, url: str, **options: Any) -> None:
        self.seen = b""
        self.status = 0
        self._grew = threading.Condition()
        self._leave = threading.Event()
        self._future: Future[None] = pool.submit(self._read, method, url, options)

    def wait_for(self, wanted: bytes) -> bytes:
        """Wait until so much has been seen."""
        with self._grew:
            assert self._grew.wait_for(lambda: wanted in self.seen, PATIENCE), self.seen
            return self.seen

    def wait_connected(self) -> int:
        """Wait for the response's head."""
        with self._grew:
            assert self._grew.wait_for(lambda: self.status, PATIENCE)
            return self.status

    def leave(self) -> None:
        """Close the connection at the next byte; heartbeats see to it that there is one soon."""
        self._leave.set()
        self._future.result(PATIENCE)

    def result(self) -> bytes:
        """Read to the end; what the service sent but for the heartbeats."""
        self._future.result(PATIENCE)
        return self.seen.replace(HEARTBEAT, b"")

    def stream_id(self) -> str:
        """Give the answer's id, from its start event."""
        start = self.wait_for(b'"type":"start"').partition(b'"id":"')[2]
        return start.partition(b'"')[0].decode()

    def _read(self, method: str, url: str, options: dict[str, Any]) -> None:
        with plain_http.stream(method, url, timeout=PATIENCE, **options) as response:
            with self._grew:
                self.status = response.status_code
                self._grew.notify_all()
            for piece in response.iter_raw():
                with self._grew:
                    self.seen += piece
                    self._grew.notify_all()
                if self._leave.is_set():
                    return


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    """Threads for readers."""
    with ThreadPoolExecutor(max_workers=64) as threads:
        yield threads


def wire(response: httpx2.Response) -> bytes:
    """What was sent, but for the heartbeats, which come by the clock."""
    assert response.status_code == 200, response.text
    return response.content.replace(HEARTBEAT, b"")


def get(url: str, **options: Any) -> httpx2.Response:
    return plain_http.get(url, timeout=PATIENCE, **options)


def post(service: RunningService, key: str | None = None, body: Any = HELLO) -> httpx2.Response:
    return ask(service.url, body, headers={} if key is None else {"Idempotency-Key": key})


def blocks_of(whole: bytes) -> list[bytes]:
    """Cut a stream into its events' bytes."""
    return [block + b"\n\n" for block in whole.split(b"\n\n")[:-1]]


def error_of(response: httpx2.Response) -> str:
    """Check the error body, and give its code."""
    body = response.json()
    assert set(body) == {"role", "content", "error", "details", "request_id", "retryable"}
    assert body["content"]
    code: str = body["error"]
    return code


@contextmanager
def no_paid_call(upstream: ScriptedUpstream) -> Iterator[None]:
    before = len(upstream.calls)
    yield
    assert len(upstream.calls) == before
