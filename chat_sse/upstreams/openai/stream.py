"""One answer as it arrives: from the body's bytes to the listener, and the verdict on how it ended."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from chat_sse.errors import UpstreamProtocol
from chat_sse.events import Done
from chat_sse.upstreams.base import Listener, UpstreamEvent
from chat_sse.upstreams.openai.chunks import ChunkDecoder, not_a_completion
from chat_sse.upstreams.openai.events import FIELD_STARTS, JSON_STARTS, MAX_EVENT_BYTES
from chat_sse.upstreams.openai.passthrough import Passthrough, derive

# After a finish_reason only usage and [DONE] are missing: some servers never send them, and a reader waits.
TAIL_SECONDS = 5.0
# How many templates an answer may derive that no delta is like.
LESSONS = 8
# What may stand before the first character of any body: a byte order mark, and white space to stay alive.
BLANK = b"\xef\xbb\xbf \t\r\n"


class CompletionStream:
    """Takes the body's bytes as they arrive and tells the listener; `finished` resolves at the end.

    It resolves once upstream has said all of a complete answer, even if its body has not ended yet. It raises
    UpstreamError for any other end, after all events that came before it, or what the listener raised.

    A body that is not called an event stream is looked at before it is accepted: it may be one all the same,
    or a whole completion, or an error.
    """

    __slots__ = (
        "_decoder",
        "_held",
        "_is_accepted",
        "_lessons",
        "_listener",
        "_tail",
        "_template",
        "_usable",
        "finished",
    )

    def __init__(self, listener: Listener, secrets: tuple[str, ...] = ()) -> None:
        """`secrets`: what must not stand in an error."""
        self.finished: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._decoder = ChunkDecoder(secrets)
        self._listener = listener
        self._is_accepted = False
        self._held: bytearray | None = None  # what came before that
        self._template: Passthrough | None = None
        self._usable: Passthrough | None = None  # the same, but only while the next bytes begin an event
        self._lessons = LESSONS
        self._tail: asyncio.TimerHandle | None = None

    def accept(self, headers: Mapping[str, str]) -> None:
        """Handle the head of a successful response."""
        if headers.get("content-encoding", "identity") != "identity":
            self.settle(UpstreamProtocol("upstream compressed its answer unasked"))
        elif headers.get("content-type", "").lower().startswith("text/event-stream"):
            self._guard(self._accept)

    def data(self, data: bytes) -> None:
        """Handle bytes as they arrive. Those after the end are ignored."""
        usable = self._usable
        if usable is not None and (entry := usable.entry(data)):
            try:
                self._listener.on_entry(entry)
            except Exception as exc:  # noqa: BLE001 - raised where `finished` is awaited
                self.settle(exc)
        elif not self.finished.done():
            self._guard(self._decode if self._is_accepted else self._look, data)

    def end(self, *, lost: bool) -> None:
        """Handle the end of the bytes. `lost`: they ended before the body was complete."""
        if not self.finished.done():
            self._guard(self._end, lost)

    def settle(self, fault: Exception | None) -> None:
        """Resolve `finished`, with a fault or without. The first call counts."""
        if self._tail is not None:
            self._tail.cancel()
        self._usable = None
        if self.finished.done():
            return
        if fault is None:
            self.finished.set_result(None)
        else:
            self.finished.set_exception(fault)

    def _guard(self, do: Callable[..., None], *arguments: Any) -> None:
        try:
            do(*arguments)
        except Exception as exc:  # noqa: BLE001 - raised where `finished` is awaited
            self.settle(exc)

    def _accept(self) -> None:
        self._is_accepted = True
        self._listener.on_accepted()

    def _look(self, data: bytes) -> None:
        """Find out what a body is that is not called an event stream."""
        self._listener.on_activity()
        held = self._held = bytearray() if self._held is None else self._held
        held += data
        if held[0] in BLANK:
            held = self._held = held.lstrip(BLANK)
        head = bytes(held[:16])
        if head.startswith(FIELD_STARTS):
            self._accept()
            self._decode(bytes(held))
        elif len(held) > MAX_EVENT_BYTES:
            self.settle(UpstreamProtocol("upstream sent an endless answer", retryable=False))
        elif head and not head.startswith(JSON_STARTS) and not _may_become_event_stream(head):
            self.settle(not_a_completion())

    def _decode(self, data: bytes) -> None:
        decoder = self._decoder
        if events := decoder.feed(data):
            self._listener.on_events(events)
            self._derive(data, events)
        else:
            self._listener.on_activity()  # a comment, half an event: upstream is alive
        # A template knows the text alone, so none is used while there is a finish_reason to be revoked.
        self._usable = self._template if decoder.is_at_rest and decoder.finish_reason is None else None
        if decoder.finished or decoder.fault:
            self.settle(decoder.fault)
        elif events or self._tail is None or decoder.is_doubtful:
            self._await_tail()

    def _await_tail(self) -> None:
        """After a finish_reason, take silence for the end: some servers send neither usage nor `[DONE]`."""
        if self._tail is not None:
            self._tail.cancel()
        if self._decoder.finish_reason:
            self._tail = self.finished.get_loop().call_later(TAIL_SECONDS, lambda: self.end(lost=False))

    def _end(self, lost: bool) -> None:
        decoder = self._decoder
        if self._is_accepted:
            events = decoder.end(lost=lost)
        elif events := decoder.read_body(bytes(self._held or b"")):
            self._accept()
        if events:
            self._listener.on_events(events)
        fault = decoder.fault
        if lost and isinstance(fault, UpstreamProtocol):
            fault = UpstreamProtocol("the connection to upstream broke before the answer was complete")
        self.settle(fault)

    def _derive(self, data: bytes, events: Sequence[UpstreamEvent]) -> None:
        """Learn from a lone delta, unless lessons have been in vain: each costs as much as some deltas."""
        if len(events) != 1 or isinstance(events[0], Done):
            return
        if self._template is not None and self._template.served:
            self._lessons = LESSONS
        if self._lessons > 0:
            self._lessons -= 1
            self._template = derive(data, events[0], self._template) or self._template


def _may_become_event_stream(head: bytes) -> bool:
    return any(start.startswith(head) for start in FIELD_STARTS)
