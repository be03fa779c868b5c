"""One answer being heard: its bytes on their way to the listener, and the verdict on how they ended."""

import asyncio
from collections.abc import Mapping

from chat_sse.errors import UpstreamProtocol
from chat_sse.upstreams.base import Listener
from chat_sse.upstreams.chunks import ChunkDecoder

# After a finish_reason only usage and [DONE] are missing: some servers never send them, and a reader waits.
TAIL_SECONDS = 5.0


class Hearing:
    """Feed it the body's bytes as they arrive, by whichever way, and await `over`.

    `over` resolves once upstream has said all of a complete answer, even if its body has not ended yet. It
    raises UpstreamError for any other end, after all events that came before it, or what the listener raised.
    """

    __slots__ = ("_decoder", "_listener", "_tail", "over")

    def __init__(self, listener: Listener) -> None:
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._decoder = ChunkDecoder()
        self._listener = listener
        self._tail: asyncio.TimerHandle | None = None

    def accept(self, headers: Mapping[str, str]) -> None:
        """Take the head of a 200."""
        try:
            _check_head(headers)
            self._listener.accepted()
        except Exception as exc:  # noqa: BLE001 - whoever awaits the end is told
            self.settle(exc)

    def data(self, data: bytes) -> None:
        """Take bytes as they arrived. What comes after the end is let pass."""
        decoder = self._decoder
        if self.over.done():
            return
        try:
            if events := decoder.feed(data):
                self._listener.heard(events)
        except Exception as exc:  # noqa: BLE001 - as above
            self.settle(exc)
            return
        if decoder.finish_reason or decoder.fault or decoder.finished:
            self._judge()

    def end(self, *, lost: bool) -> None:
        """Take the end of the bytes. `lost`: they ended before the body was complete."""
        if self.over.done():
            return
        try:
            if events := self._decoder.end():
                self._listener.heard(events)
        except Exception as exc:  # noqa: BLE001 - as above
            self.settle(exc)
            return
        fault = self._decoder.fault
        if fault is not None and lost:
            fault = UpstreamProtocol("the connection to upstream broke before the answer was complete")
        self.settle(fault)

    def _judge(self) -> None:
        decoder = self._decoder
        if decoder.finished or decoder.fault:
            self.settle(decoder.fault)
        elif self._tail is None:
            self._tail = self.over.get_loop().call_later(TAIL_SECONDS, lambda: self.end(lost=False))

    def settle(self, fault: Exception | None) -> None:
        """End it: well, or with a fault. The first end counts."""
        if self._tail is not None:
            self._tail.cancel()
        if self.over.done():
            return
        if fault is None:
            self.over.set_result(None)
        else:
            self.over.set_exception(fault)


def _check_head(headers: Mapping[str, str]) -> None:
    """Refuse a 200 that is no readable event stream. The SDK takes it for an answer of no chunks."""
    if not headers.get("content-type", "").startswith("text/event-stream"):
        raise UpstreamProtocol("upstream answered with something that is no event stream")
    if headers.get("content-encoding", "identity") != "identity":
        raise UpstreamProtocol("upstream compressed its answer unasked")
