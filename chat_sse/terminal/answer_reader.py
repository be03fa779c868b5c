"""Ask over HTTP and read one answer to its end, across broken connections.

The question carries an `Idempotency-Key`, and every attempt after the first event a `Last-Event-ID`, so that
an answer is paid for once. The service is not trusted: any response of it ends in an event, Unreachable or
Refused, and no address that it names is requested.
"""

import re
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus

import httpx2
import msgspec

from chat_sse.errors import ErrorBody
from chat_sse.events import Done, Event, Failure, decode_event, parse_event_id
from chat_sse.standing import Me

# How long to try again without receiving an event. The service cancels an answer that nobody reads sooner.
RECONNECT_SECONDS = 30.0
# Until the service sends its own in `retry`. The first attempt after a break does not wait.
RETRY_SECONDS = 2.0
MAX_RETRY_SECONDS = 10.0
# Stopping is one short request, and the person waits for the prompt.
STOP_SECONDS = 5.0
# What proxies answer while the service behind them restarts.
TEMPORARY_STATUSES = (502, 503, 504)
# An error body has less than 1 KB, and so has what is left to a caller.
MAX_BODY_BYTES = 65_536

_SECONDS = re.compile(r"[0-9]{1,9}")


class Unreachable(Exception):
    """Nothing answers at the address, or nothing that speaks this protocol."""


class Refused(Exception):
    """The service answered with an error instead of a stream."""

    def __init__(self, body: ErrorBody, retry_after: str | None) -> None:
        """`retry_after`: the header of that name."""
        super().__init__(body.content)
        self.body = body
        self.retry_seconds = int(retry_after) if retry_after and _SECONDS.fullmatch(retry_after) else None


class _Broken(Exception):
    """The connection broke. Another attempt costs nothing."""


class AnswerReader:
    """Asks one question and reads its answer."""

    def __init__(self, client: httpx2.Client, question: bytes) -> None:
        """`question`: the body of `POST /ask`."""
        self._client = client
        self._question = question
        self._headers = {"Content-Type": "application/json", "Idempotency-Key": uuid.uuid4().hex}
        self._asked = False
        self._first_id: str | None = None
        self._reached = False
        self._attempts = 0
        self._received_at = time.monotonic()
        self._retry_seconds = RETRY_SECONDS

    @property
    def service(self) -> str:
        """The URL of the service, without user, password and query."""
        return str(self._client.base_url.copy_with(username=None, password=None, query=None))

    @property
    def begun(self) -> bool:
        """Whether an event has been read."""
        return self._first_id is not None

    def events(self) -> Iterator[Event]:
        """Read the events; the last one is terminal. Raises Unreachable or Refused."""
        while True:
            try:
                for event in self._attempt():
                    yield event
                    if isinstance(event, Done | Failure):
                        return
            except _Broken as exc:
                self._wait(exc)

    def stop(self) -> None:
        """Stop the answer upstream, if one has been asked for. Raises httpx2.RequestError."""
        if self._asked and (stream_id := self._stream_id()):
            self._client.delete(f"/ask/{stream_id}", timeout=STOP_SECONDS)

    def _stream_id(self) -> str | None:
        """Return the answer's id; before its first event the service tells it to who has the question's key.

        Only an id is taken from the service, not an address: that could lead the key to another host.
        """
        event_id = self._headers.get("Last-Event-ID")
        if event_id is None:
            headers = {**self._headers, "Prefer": "respond-async"}
            told = self._client.post("/ask", content=self._question, headers=headers, timeout=STOP_SECONDS)
            event_id = told.headers.get("Content-Location", "").rpartition("/")[2] + ".0"
        try:
            return parse_event_id(event_id)[0]
        except ValueError:
            return None

    def standing(self) -> Me | None:
        """Return where the caller stands with the service's limits; None where it does not tell."""
        return standing(self._client)

    def _attempt(self) -> Iterator[Event]:
        """Ask, or read on. Always raises in the end; the caller leaves after the terminal event."""
        self._asked = True
        with (
            self._translate_errors(),
            self._client.sse("/ask", method="POST", content=self._question, headers=self._headers) as source,
        ):
            self._check(source.response)
            source.response.encoding = "utf-8"  # always, in an event stream
            resumed = self.begun
            for received in source:
                if resumed and received.id == self._first_id:
                    raise Unreachable("no chat_sse service: it begins an answer again instead of resuming it")
                resumed = False
                self._note(received)
                yield decode_event(received.data.encode())
        raise _Broken("the service closed the connection")

    def _check(self, response: httpx2.Response) -> None:
        """Raise what a response means that is no stream."""
        returning, self._reached = self._reached, True
        if response.status_code == HTTPStatus.OK:
            return
        if returning and response.status_code in TEMPORARY_STATUSES:
            raise _Broken(f"the service answered {response.status_code}")
        try:
            body = msgspec.json.decode(_start_of(response), type=ErrorBody)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
            raise Unreachable(f"no chat_sse service, but an HTTP {response.status_code}") from exc
        raise Refused(body, response.headers.get("Retry-After"))

    def _note(self, received: httpx2.ServerSentEvent) -> None:
        """Remember how to read on after an event. Raises Unreachable for an id that no header can carry."""
        if not (received.id.isascii() and received.id.isprintable()):
            raise Unreachable("no chat_sse service: an event's id is not ASCII")
        if self._first_id is None:
            self._first_id = received.id
        self._received_at, self._attempts = time.monotonic(), 0
        self._headers["Last-Event-ID"] = received.id
        if received.retry is not None:
            self._retry_seconds = min(max(received.retry, 0), MAX_RETRY_SECONDS * 1000) / 1000

    @contextmanager
    def _translate_errors(self) -> Iterator[None]:
        try:
            yield
        except (httpx2.SSEError, httpx2.DecodingError, msgspec.DecodeError) as exc:
            raise Unreachable(f"no chat_sse service: {exc}") from exc
        except RecursionError as exc:
            raise Unreachable("no chat_sse service: an event is nested too deeply") from exc
        except httpx2.RequestError as exc:
            reason = str(exc) or type(exc).__name__
            if isinstance(exc, httpx2.ConnectError | httpx2.ConnectTimeout) and not self._reached:
                if _is_refusal(exc):
                    reason += ". Is the service running there?"
                raise Unreachable(reason) from exc
            self._reached = True
            raise _Broken(reason) from exc

    def _wait(self, fault: _Broken) -> None:
        """Wait before the next attempt. Raises Unreachable after RECONNECT_SECONDS without an event."""
        if time.monotonic() - self._received_at > RECONNECT_SECONDS:
            raise Unreachable(str(fault)) from fault
        if self._attempts:
            time.sleep(self._retry_seconds)
        self._attempts += 1


def _is_refusal(exc: BaseException) -> bool:
    """Tell whether nothing listens at the address."""
    found: BaseException | None = exc
    while found and not isinstance(found, ConnectionRefusedError):
        found = found.__cause__ or found.__context__
    return found is not None


def standing(client: httpx2.Client) -> Me | None:
    """Return where the caller stands with the service's limits; None where it does not tell."""
    try:
        with client.stream("GET", "/me", timeout=STOP_SECONDS) as response:
            return msgspec.json.decode(_start_of(response), type=Me) if response.is_success else None
    except (httpx2.HTTPError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


def _start_of(response: httpx2.Response) -> bytearray:
    """Return a body that is to be short; of one that is not, the start."""
    body = bytearray()
    for piece in response.iter_bytes():
        body += piece
        if len(body) > MAX_BODY_BYTES:
            break
    return body
