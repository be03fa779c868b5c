"""A running answer: its log, its deadlines, and the gate at which its first readers wait for a verdict."""

import asyncio
from collections.abc import Sequence
from types import TracebackType

import msgspec

from chat_sse.errors import ChatError, UpstreamProtocol
from chat_sse.events import Done, Start, Terminal
from chat_sse.limits.admission import Permit
from chat_sse.messages import Question
from chat_sse.stores.base import Log
from chat_sse.upstreams.base import UpstreamEvent

# A log is memory. The longest answers of today's models are some 500 KB of events; this is none any more.
MAX_LOG_BYTES = 16 * 1_048_576


class Timeouts(msgspec.Struct, frozen=True, kw_only=True):
    """The relay's deadlines, in seconds."""

    accept_wait: float
    """How long a request is held for upstream's status; after it the stream starts all the same."""
    first_token_timeout: float
    idle_timeout: float
    total_timeout: float
    disconnect_grace: float


class Deadlines:
    """Deadlines on a talking upstream: on its first event, between events, and on the whole answer.

    A timer moved at each event would cost a microsecond a delta. So an event only leaves its time, and the
    one timer, when it fires, looks how long the silence has lasted and goes to sleep for the rest.
    """

    def __init__(self, timeouts: Timeouts, answer: "Answer") -> None:
        self._timeouts, self._answer, self._loop = timeouts, answer, answer.loop
        self._scope = asyncio.timeout(None)

    async def __aenter__(self) -> "Deadlines":
        await self._scope.__aenter__()
        self._check()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Raise TimeoutError in place of the cancellation when a deadline has passed."""
        self._timer.cancel()
        await self._scope.__aexit__(kind, exc, traceback)

    def _check(self) -> None:
        began_at, last_event_at, timeouts = (
            self._answer.started_at,
            self._answer.last_event_at,
            self._timeouts,
        )
        said_by = (
            began_at + timeouts.first_token_timeout
            if last_event_at is None
            else last_event_at + timeouts.idle_timeout
        )
        due = min(said_by, began_at + timeouts.total_timeout)
        if self._loop.time() >= due:
            self._scope.reschedule(self._loop.time())
        else:
            self._timer = self._loop.call_at(due, self._check)


class Answer:
    """What the relay knows of one: its pump, and who reads it. It listens to upstream."""

    __slots__ = (
        "announced",
        "done",
        "gate",
        "gate_timer",
        "kept_until",
        "last_event_at",
        "log",
        "loop",
        "model",
        "orphan_check",
        "orphan_timer",
        "permit",
        "pump",
        "question",
        "readers",
        "refusal",
        "refused",
        "request_id",
        "started_at",
        "taken",
    )

    def __init__(self, stream: Log, question: Question, request_id: str, permit: Permit) -> None:
        self.log = stream
        self.question = question
        self.model: str | None = question.model  # that answers; None while upstream has not decided
        self.permit = permit
        self.done: Done | None = None  # upstream's own
        self.taken = False  # by upstream, which will be paid
        self.refused = False  # by upstream, unpaid
        self.request_id = request_id
        self.loop = asyncio.get_running_loop()
        self.started_at = self.loop.time()
        # Opens once upstream has accepted or refused, or the accept wait is over.
        self.gate = asyncio.Event()
        self.gate_timer: asyncio.TimerHandle
        self.refusal: ChatError | None = None
        self.announced = False
        self.readers = 0
        self.orphan_timer: asyncio.TimerHandle | None = None
        self.kept_until = 0.0  # on the loop's clock: the grace of the last reader who could come back
        self.orphan_check: asyncio.Task[None] | None = None
        self.pump: asyncio.Task[None]
        self.last_event_at: float | None = None  # on the loop's clock: when upstream last said something

    def announce(self) -> None:
        """Append the start event, once. Whatever goes wrong from here on is an event too."""
        if not self.announced:
            self.announced = True
            self.log.append([Start(id=self.log.id, model=self.model or self.question.model)])

    def on_model(self, model: str | None) -> None:
        """Name the model that answers. The start event waits for it, even beyond the accept wait."""
        self.model = model

    def on_accepted(self) -> None:
        """Open the gate."""
        self.taken = True
        self.open_gate()
        self.announce()  # the gate may have opened before the model was known

    def open_gate(self, refusal: ChatError | None = None) -> None:
        """Let those who asked go on: to the stream, or with upstream's refusal. The first call counts."""
        if not self.gate.is_set():
            self.gate_timer.cancel()
            self.refusal = refusal
            if refusal is None and self.model is not None:
                self.announce()
            self.gate.set()

    def on_events(self, events: Sequence[UpstreamEvent]) -> None:
        """Append. A sealed log refuses it: then whoever sealed it has cancelled the pump as well."""
        self.last_event_at = self.loop.time()
        self.log.append(events)
        if self.log.size > MAX_LOG_BYTES:
            raise _too_long()
        last = events[-1]
        if isinstance(last, Done):
            self.done = last

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


def _too_long() -> UpstreamProtocol:
    return UpstreamProtocol(f"the answer outgrew {MAX_LOG_BYTES} bytes", retryable=False)
