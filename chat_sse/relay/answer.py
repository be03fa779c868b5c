"""A running answer: its log, its call to upstream, and the gate at which its first readers wait."""

import asyncio
import logging
from collections.abc import Sequence
from enum import Enum, auto

from chat_sse.errors import ChatError, UpstreamProtocol
from chat_sse.events import Done, Start, Terminal
from chat_sse.limits.admission import Permit
from chat_sse.messages import Question
from chat_sse.relay.readers import Readers
from chat_sse.stores.base import Log
from chat_sse.upstreams.base import UpstreamEvent

log = logging.getLogger(__name__)

# A log is memory. The longest answers of today's models are about 500 KB of events.
MAX_LOG_BYTES = 17 * 1_048_576


class Phase(Enum):
    """How far a question has got. It only moves forward."""

    ASKED = auto()
    """Nothing was sent to readers: an error can still be the HTTP response."""
    ANNOUNCED = auto()
    """The start event is in the log: an error is an event. Upstream may still refuse, unpaid."""
    ACCEPTED = auto()
    """Upstream has accepted the question and will be paid. Announced as well."""


class RunningAnswer:
    """An answer while its pump runs. It is the upstream's listener."""

    __slots__ = (
        "_at_gate",
        "active_at",
        "done",
        "first_event_at",
        "gate_timer",
        "is_abandoned",
        "is_gate_open",
        "last_event_at",
        "log",
        "loop",
        "model",
        "permit",
        "phase",
        "pump",
        "question",
        "readers",
        "refusal",
        "request_id",
        "started_at",
        "unpaid",
    )

    # Set by the relay, which starts them.
    pump: asyncio.Task[None]
    gate_timer: asyncio.TimerHandle
    readers: Readers

    def __init__(self, stream: Log, question: Question, request_id: str, permit: Permit) -> None:
        self.log = stream
        self.question = question
        self.model: str | None = question.model  # that answers; None while upstream has not decided
        self.request_id = request_id
        self.permit = permit
        self.loop = asyncio.get_running_loop()
        self.started_at = self.loop.time()
        self.active_at = self.started_at  # when upstream last sent anything that was no event
        self.first_event_at: float | None = None  # on the loop's clock, as the next
        self.last_event_at: float | None = None  # when upstream last sent something
        self.phase = Phase.ASKED
        self.is_gate_open = False  # true once upstream has accepted or refused, or the accept wait is over
        self._at_gate: list[asyncio.Future[None]] = []
        self.refusal: ChatError | None = None
        self.unpaid = False  # upstream has refused it
        self.done: Done | None = None  # upstream's own
        self.is_abandoned = False

    @property
    def seconds(self) -> float:
        """How long it has lasted."""
        return self.loop.time() - self.started_at

    def announce(self) -> None:
        """Append the start event, once. Any error from here on is an event too."""
        if self.phase is Phase.ASKED:
            self.phase = Phase.ANNOUNCED
            self.log.append([Start(id=self.log.id, model=self.model or self.question.model)])

    def open_gate(self, refusal: ChatError | None = None) -> None:
        """Release the first readers to the stream or to upstream's refusal. The first call counts."""
        if not self.is_gate_open:
            self.gate_timer.cancel()
            self.refusal = refusal
            if refusal is None and self.model is not None:
                self.announce()
            self.is_gate_open = True
            for waiting in self._at_gate:
                if not waiting.done():  # cancelled
                    waiting.set_result(None)
            self._at_gate.clear()

    async def pass_gate(self) -> None:
        """Wait until the gate is open. Raises upstream's refusal."""
        try:
            if not self.is_gate_open:
                waiting: asyncio.Future[None] = self.loop.create_future()
                self._at_gate.append(waiting)
                await waiting
        finally:
            self.readers.expect_first()
        if self.refusal is not None:
            raise self.refusal

    def on_model(self, model: str | None) -> None:
        """Name the model that answers. The start event waits for it, even beyond the accept wait."""
        self.model = model

    def on_accepted(self) -> None:
        """Open the gate."""
        self.open_gate()
        self.announce()  # the gate may have opened before the model was known
        self.phase = Phase.ACCEPTED

    def on_events(self, events: Sequence[UpstreamEvent]) -> None:
        """Append. A sealed log refuses them; what has sealed it has cancelled the pump as well."""
        self.last_event_at = self.loop.time()
        if self.first_event_at is None:
            self.first_event_at = self.last_event_at
        self.log.append(events)
        if self.log.size > MAX_LOG_BYTES:
            raise _too_long()
        last = events[-1]
        if isinstance(last, Done):
            self.done = last

    def on_activity(self) -> None:
        """Remember that upstream is alive."""
        self.active_at = self.loop.time()

    def on_entry(self, entry: bytes) -> None:
        """Append what is encoded already."""
        self.last_event_at = self.loop.time()
        log = self.log
        log.append_entry(entry)
        if log.size > MAX_LOG_BYTES:
            raise _too_long()

    def end(self, event: Terminal) -> None:
        """Seal the log and cancel the call."""
        self.announce()
        self.log.append([event])
        self.pump.cancel()

    def abandon(self) -> None:
        """End it because nobody reads it."""
        self.is_abandoned = True
        self.end(Done(finish_reason="cancelled"))
        log.info("answer.abandoned", extra={"fields": {"id": self.log.id}})


def _too_long() -> UpstreamProtocol:
    return UpstreamProtocol(f"the answer outgrew {MAX_LOG_BYTES} bytes", retryable=False)


def forget_frames(error: BaseException | None) -> None:
    """Drop the tracebacks of an error and its causes.

    An upstream may keep its error, and the frames refer to the upstream's parts: circles that only a full
    garbage collection would free.
    """
    while error is not None:
        error.__traceback__ = None
        error = error.__cause__ or error.__context__
