"""Ask over HTTP and read one answer to its end, however often the connection breaks.

The question carries an `Idempotency-Key`, and every attempt after the first event a `Last-Event-ID`, so
whatever is tried again is paid for once.
"""

import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus

import httpx2
import msgspec

from chat_sse.errors import ErrorBody
from chat_sse.events import Done, Event, Failure, decode_event

# How long to try again without hearing anything. An answer that nobody reads is cancelled in less.
RECONNECT_SECONDS = 30.0
# Until the service says otherwise in `retry`. The first attempt after a break does not wait.
RETRY_SECONDS = 2.0
MAX_RETRY_SECONDS = 10.0
# Stopping is one short request, and somebody waits to get the prompt back.
STOP_SECONDS = 5.0
# What proxies say while the service behind them restarts.
PASSING = (502, 503, 504)


class Unreachable(Exception):
    """Nobody answers at the address, or nobody who speaks this protocol."""


class Refused(Exception):
    """The service answered with an error instead of a stream."""

    def __init__(self, body: ErrorBody) -> None:
        super().__init__(body.content)
        self.body = body


class _Broken(Exception):
    """The connection broke, and trying again costs nothing."""


class Answer:
    """One question, and the reading of its answer."""

    def __init__(self, client: httpx2.Client, question: bytes) -> None:
        """`question`: the body of `POST /ask`."""
        self._client = client
        self._question = question
        self._headers = {"Content-Type": "application/json", "Idempotency-Key": uuid.uuid4().hex}
        self._address: str | None = None
        self._reached = False
        self._attempts = 0
        self._heard_at = time.monotonic()
        self._retry_seconds = RETRY_SECONDS

    @property
    def service(self) -> str:
        """The URL of the service."""
        return str(self._client.base_url)

    @property
    def begun(self) -> bool:
        """Whether any of it has been read."""
        return "Last-Event-ID" in self._headers

    def events(self) -> Iterator[Event]:
        """Read the events, the last one terminal. Raises Unreachable or Refused."""
        while True:
            try:
                for event in self._attempt():
                    yield event
                    if isinstance(event, Done | Failure):
                        return
            except _Broken as exc:
                self._wait(exc)

    def stop(self) -> None:
        """Stop the answer upstream, once the service has told its address. Raises httpx2.RequestError."""
        if self._address is not None:
            self._client.delete(self._address, timeout=STOP_SECONDS)

    def _attempt(self) -> Iterator[Event]:
        """Ask, or read on. Always raises in the end; the reader leaves after the terminal event."""
        with (
            self._translating(),
            self._client.sse("/ask", method="POST", content=self._question, headers=self._headers) as source,
        ):
            self._admit(source.response)
            for received in source:
                self._heard_at, self._attempts = time.monotonic(), 0
                self._headers["Last-Event-ID"] = received.id
                if received.retry is not None:
                    self._retry_seconds = min(received.retry / 1000, MAX_RETRY_SECONDS)
                yield decode_event(received.data.encode())
        raise _Broken("the service closed the connection")

    def _admit(self, response: httpx2.Response) -> None:
        """Let a stream pass, and raise what any other response means."""
        returning, self._reached = self._reached, True
        self._address = response.headers.get("Content-Location", self._address)
        if response.status_code == HTTPStatus.OK:
            return
        if returning and response.status_code in PASSING:
            raise _Broken(f"the service answered {response.status_code}")
        try:
            raise Refused(msgspec.json.decode(response.read(), type=ErrorBody))
        except msgspec.DecodeError as exc:
            raise Unreachable(f"no chat_sse service, but an HTTP {response.status_code}") from exc

    @contextmanager
    def _translating(self) -> Iterator[None]:
        try:
            yield
        except (httpx2.SSEError, msgspec.DecodeError) as exc:
            raise Unreachable(f"no chat_sse service: {exc}") from exc
        except httpx2.RequestError as exc:
            fault = str(exc) or type(exc).__name__
            if isinstance(exc, httpx2.ConnectError | httpx2.ConnectTimeout) and not self._reached:
                raise Unreachable(fault) from exc
            self._reached = True
            raise _Broken(fault) from exc

    def _wait(self, fault: _Broken) -> None:
        """Wait before the next attempt, or raise Unreachable after too many."""
        if time.monotonic() - self._heard_at > RECONNECT_SECONDS:
            raise Unreachable(str(fault)) from fault
        if self._attempts:
            time.sleep(self._retry_seconds)
        self._attempts += 1
