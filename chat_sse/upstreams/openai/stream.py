"""One answer being heard: its bytes on their way to the listener, and the verdict on how they ended."""

import asyncio
from collections.abc import Mapping, Sequence

from chat_sse.errors import UpstreamProtocol
from chat_sse.events import Done
from chat_sse.upstreams.base import Listener, UpstreamEvent
from chat_sse.upstreams.openai.chunks import ChunkDecoder
from chat_sse.upstreams.openai.passthrough import Passthrough, derive

# After a finish_reason only usage and [DONE] are missing: some servers never send them, and a reader waits.
TAIL_SECONDS = 5.0
# How many templates an answer may derive that no delta is like.
LESSONS = 8


class CompletionStream:
    """Feed it the body's bytes as they arrive, by whichever way, and await `over`.

    `over` resolves once upstream has said all of a complete answer, even if its body has not ended yet. It
    raises UpstreamError for any other end, after all events that came before it, or what the listener raised.
    """

    __slots__ = ("_decoder", "_lessons", "_listener", "_tail", "_template", "_usable", "finished")

    def __init__(self, listener: Listener) -> None:
        self.finished: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._decoder = ChunkDecoder()
        self._listener = listener
        self._template: Passthrough | None = None
        self._usable: Passthrough | None = None  # the same, but only while the next bytes begin an event
        self._lessons = LESSONS
        self._tail: asyncio.TimerHandle | None = None

    def accept(self, headers: Mapping[str, str]) -> None:
        """Take the head of a 200."""
        try:
            _check_head(headers)
            self._listener.on_accepted()
        except Exception as exc:  # noqa: BLE001 - whoever awaits the end is told
            self.settle(exc)

    def data(self, data: bytes) -> None:
        """Take bytes as they arrived. What comes after the end is let pass."""
        usable = self._usable
        if usable is not None and (entry := usable.entry(data)):
            try:
                self._listener.on_entry(entry)
            except Exception as exc:  # noqa: BLE001 - as above
                self.settle(exc)
        elif not self.finished.done():
            self._decode(data)

    def _decode(self, data: bytes) -> None:
        decoder = self._decoder
        try:
            if events := decoder.feed(data):
                self._listener.on_events(events)
                self._derive(data, events)
        except Exception as exc:  # noqa: BLE001 - as above
            self.settle(exc)
            return
        self._usable = self._template if decoder.is_at_rest else None
        if decoder.finish_reason or decoder.fault or decoder.finished:
            self._judge()

    def end(self, *, lost: bool) -> None:
        """Take the end of the bytes. `lost`: they ended before the body was complete."""
        if self.finished.done():
            return
        try:
            if events := self._decoder.end():
                self._listener.on_events(events)
        except Exception as exc:  # noqa: BLE001 - as above
            self.settle(exc)
            return
        fault = self._decoder.fault
        if fault is not None and lost:
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

    def _judge(self) -> None:
        decoder = self._decoder
        if decoder.finished or decoder.fault:
            self.settle(decoder.fault)
        elif self._tail is None:
            self._tail = self.finished.get_loop().call_later(TAIL_SECONDS, lambda: self.end(lost=False))

    def settle(self, fault: Exception | None) -> None:
        """End it: well, or with a fault. The first end counts."""
        if self._tail is not None:
            self._tail.cancel()
        self._usable = None
        if self.finished.done():
            return
        if fault is None:
            self.finished.set_result(None)
        else:
            self.finished.set_exception(fault)


def _check_head(headers: Mapping[str, str]) -> None:
    """Refuse a 200 that is no readable event stream. The SDK takes it for an answer of no chunks."""
    if not headers.get("content-type", "").startswith("text/event-stream"):
        raise UpstreamProtocol("upstream answered with something that is no event stream")
    if headers.get("content-encoding", "identity") != "identity":
        raise UpstreamProtocol("upstream compressed its answer unasked")
