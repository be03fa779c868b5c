"""How long an answer may take: until its first event, between events, and altogether."""

import asyncio
from types import TracebackType

import msgspec

from chat_sse.relay.answer import RunningAnswer


class Timeouts(msgspec.Struct, frozen=True, kw_only=True):
    """The relay's deadlines, in seconds."""

    accept_wait: float
    """How long a request waits for upstream's status; after it the stream starts anyway."""
    first_token_timeout: float
    idle_timeout: float
    total_timeout: float
    disconnect_grace: float


class Deadlines:
    """Cancels the code inside when upstream is silent, or its answer takes, for too long.

    An async context manager, which raises TimeoutError then. Moving a timer at each event would cost a
    microsecond a delta. So an event only records its time; the one timer compares it with the deadline when
    it fires, and is set again for the rest.
    """

    def __init__(self, timeouts: Timeouts, answer: RunningAnswer) -> None:
        self._timeouts, self._answer, self._loop = timeouts, answer, answer.loop
        self._scope = asyncio.timeout(None)

    async def __aenter__(self) -> "Deadlines":
        await self._scope.__aenter__()
        self._check()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Raises TimeoutError in place of the cancellation when a deadline has passed."""
        self._timer.cancel()
        await self._scope.__aexit__(kind, exc, traceback)

    def _check(self) -> None:
        answer, timeouts = self._answer, self._timeouts
        if answer.last_event_at is None:
            silent_until = answer.active_at + timeouts.first_token_timeout
        else:
            silent_until = max(answer.active_at, answer.last_event_at) + timeouts.idle_timeout
        due = min(silent_until, answer.started_at + timeouts.total_timeout)
        now = self._loop.time()
        if now >= due:
            self._scope.reschedule(now)
        else:  # an event that comes before the first one's deadline may bring an earlier one
            self._timer = self._loop.call_at(min(due, now + timeouts.idle_timeout), self._check)
