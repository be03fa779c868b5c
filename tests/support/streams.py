"""Streams that a test reads while they go on, and readers that come back as EventSource does."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import httpx2
import msgspec

from chat_sse.formats.sse import HEARTBEAT
from tests.support import plain_http
from tests.support.service import HELLO, RunningService


class Stream:
    """A response that is being read, by a thread of its own."""

    def __init__(self, response: httpx2.Response) -> None:
        self.response = response
        self.body = b""
        self._grown = threading.Condition()
        self.ended = False
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        try:
            for data in self.response.iter_raw():
                with self._grown:
                    self.body += data
                    self._grown.notify_all()
        except (httpx2.HTTPError, httpx2.StreamError):
            pass  # the test has closed it, or its server was killed
        with self._grown:
            self.ended = True
            self._grown.notify_all()

    def wait_for(self, text: bytes, seconds: float = 10.0) -> None:
        """Wait until some bytes have come."""
        with self._grown:
            assert self._grown.wait_for(lambda: text in self.body, seconds), self.body

    def whole(self, seconds: float = 20.0) -> bytes:
        """Wait for the end and give all bytes but the heartbeats."""
        with self._grown:
            assert self._grown.wait_for(lambda: self.ended, seconds), self.body
        return self.body.replace(HEARTBEAT, b"")

    def last_event(self) -> dict[str, Any]:
        """Wait for the end and give the last event, with or without an id."""
        last = self.whole().split(b"data: ")[-1].partition(b"\n")[0]
        event: dict[str, Any] = msgspec.json.decode(last)
        return event

    def close(self) -> None:
        """Leave, as a client does that closes its tab."""
        self.response.extensions["network_stream"].get_extra_info("socket").shutdown(2)
        self.whole()

    @property
    def id(self) -> str:
        return self.response.headers["content-location"].removeprefix("/ask/")


@contextmanager
def streaming(method: str, url: str, **options: Any) -> Iterator[Stream]:
    """Send a request and read its stream."""
    with plain_http.Client(timeout=30) as client, client.stream(method, url, **options) as response:
        assert response.status_code == 200
        stream = Stream(response)
        try:
            yield stream
        finally:
            if not stream.ended:
                stream.close()


def asking(service: RunningService, **options: Any) -> Any:
    """Ask, and read the stream."""
    return streaming("POST", f"{service.url}/ask", json=HELLO, **options)


def attaching(service: RunningService, stream_id: str) -> Any:
    """Read an answer from its start."""
    return streaming("GET", f"{service.url}/ask/{stream_id}")


class Place(Protocol):
    """Where a reader asks: a service, or a proxy before several."""

    @property
    def url(self) -> str:
        """Return where it is."""
        ...


class Reader:
    """A client that comes back after a cut with the last id it has seen, to whichever service it is told.

    It holds what a client knows: the events in their order, each with its id or None. `check` holds them to
    what the service promises of every reader.
    """

    def __init__(self, key: str | None = None) -> None:
        self.headers = {} if key is None else {"Idempotency-Key": key}
        self.found: list[tuple[str | None, dict[str, Any]]] = []
        self.statuses: list[int] = []

    @property
    def last_id(self) -> str | None:
        """The id of the last event that had one."""
        return next((event_id for event_id, _ in reversed(self.found) if event_id), None)

    @property
    def is_ended(self) -> bool:
        return bool(self.found) and self.found[-1][1]["type"] in ("done", "error")

    def ask(self, service: Place, *, leave_after: int | None = None) -> None:
        """Ask, and read to the end, or until so many events are there."""
        self._read(plain_http.Client(timeout=30), "POST", f"{service.url}/ask", leave_after, json=HELLO)

    def come_back(self, service: Place, *, leave_after: int | None = None) -> None:
        """Read on after the last event."""
        assert self.last_id is not None
        url = f"{service.url}/ask/{self.last_id.partition('.')[0]}"
        resumed = {"Last-Event-ID": self.last_id}
        self._read(plain_http.Client(timeout=30), "GET", url, leave_after, headers=resumed)

    def _read(
        self, client: httpx2.Client, method: str, url: str, leave_after: int | None, **options: Any
    ) -> None:
        headers = {**self.headers, **options.pop("headers", {})}
        try:
            with client, client.stream(method, url, headers=headers, **options) as response:
                self.statuses.append(response.status_code)
                if response.status_code != 200:
                    response.read()
                    return
                for block in _blocks(response.iter_raw()):
                    self.found.append(block)
                    if leave_after is not None and len(self.found) >= leave_after:
                        return
        except (httpx2.HTTPError, httpx2.StreamError):
            pass  # its server was killed, or has cut it

    def check(self, *texts: str) -> None:
        """Hold that numbers have no gaps, one event ends it, and the text is whole, or cut and told so.

        `texts`: the whole answers that it may have got.
        """
        events = [event for _, event in self.found]
        numbers = [int(event_id.partition(".")[2]) for event_id, _ in self.found if event_id]
        assert numbers == list(range(len(numbers))), self.found
        assert [event["type"] in ("done", "error") for event in events] == [False] * (len(events) - 1) + [
            True
        ]
        assert [event["type"] == "start" for event in events] == [True] + [False] * (len(events) - 1)
        text = "".join(event["content"] for event in events if event["type"] == "delta")
        if events[-1]["type"] == "done" and events[-1]["finish_reason"] == "stop":
            assert text in texts
        else:
            assert any(whole.startswith(text) for whole in texts)


def _blocks(parts: Iterator[bytes]) -> Iterator[tuple[str | None, dict[str, Any]]]:
    rest = b""
    for part in parts:
        *blocks, rest = (rest + part).replace(HEARTBEAT, b"").split(b"\n\n")
        for block in blocks:
            fields = dict(line.split(": ", 1) for line in block.decode().split("\n"))
            yield fields.get("id"), msgspec.json.decode(fields["data"])


def check_all(readers: Sequence[Reader], *texts: str, paid_calls: int, questions: int) -> None:
    """Hold every reader to its promises, and the service to one paid call a question."""
    for reader in readers:
        reader.check(*texts)
    assert paid_calls == questions
