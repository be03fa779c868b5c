"""From upstream to the log. The only place that starts an answer's task, and therefore ends it.

An answer is one task, the pump. It belongs to the relay, not to the request that asked: a reader that leaves
does not affect it. It ends in one of these ways, and each seals its log with exactly one terminal event:

- upstream is done, or fails                          Done / Failure
- upstream is silent, or the answer takes too long    Failure(timeout_error)
- it is stopped, from any process                     Done("cancelled")
- nobody has read it for the disconnect grace         Done("cancelled")
- the server shuts down and its grace is over         Failure(server_draining)
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import suppress

from chat_sse.errors import (
    ChatError,
    Draining,
    InternalError,
    Overloaded,
    StreamNotFound,
    UpstreamTimeout,
)
from chat_sse.events import Done, Subscriber, failure, is_terminal
from chat_sse.figures import Figure
from chat_sse.limits.admission import Outcome, Permit
from chat_sse.messages import Question
from chat_sse.relay.admission import UNASKED, create_admitted, withdraw
from chat_sse.relay.answer import Phase, RunningAnswer, forget_frames
from chat_sse.relay.deadlines import Deadlines, Timeouts
from chat_sse.relay.readers import AllReaders, Readers
from chat_sse.relay.reports import Reports
from chat_sse.stores.base import PRODUCER_GONE, UNKNOWN, Log, LogSpec, Store
from chat_sse.upstreams.base import Upstream

log = logging.getLogger(__name__)

# Ending a cancelled call is closing a socket.
CLEANUP_SECONDS = 5.0
# How long a client should wait before it asks the server that replaces this one.
RETRY_SECONDS = 2.0

TOO_LONG = "upstream was silent, or the answer took, for too long"


class Relay:
    """Asks the upstream, runs the answers, and lets any number of readers follow them."""

    def __init__(
        self, upstream: Upstream, store: Store, timeouts: Timeouts, reports: Reports | None = None
    ) -> None:
        self._upstream = upstream
        self._store = store
        self._timeouts = timeouts
        self._reports = reports or Reports()
        self._running: dict[str, RunningAnswer] = {}
        self._starting = 0  # questions that were taken and do not run yet
        self._readers = AllReaders(self._note_idle)
        self._idle = asyncio.Event()  # set once a drain has nothing to wait for
        self._leaving = False  # `check` says so, and questions are still taken
        self.draining = False
        self._closed = False

    @property
    def running(self) -> int:
        """How many answers are under way in this process, with those that are about to be."""
        return len(self._running) + self._starting

    def figures(self) -> Iterator[Figure]:
        """Return what is under way."""
        yield Figure("running_answers", self.running)
        yield Figure("readers", self._readers.count)
        yield Figure("resumes", self._readers.resumes)
        yield Figure("draining", self._leaving)

    async def check(self) -> None:
        """Return if questions should come here. Raises Draining or StoreUnavailable."""
        if self._leaving:
            raise Draining(retry_after=RETRY_SECONDS)
        await self._store.check()

    async def start(self, question: Question, spec: LogSpec, request_id: str, permit: Permit) -> Log:
        """Ask upstream, or attach to the answer that was already asked for with the spec's key.

        Returns the answer's log once upstream has accepted, or after the accept wait. Raises ChatError when
        upstream refuses before that, LimitReached or Overloaded when this server's limits do, KeyReused for a
        key with another body, StoreUnavailable when the log or the shared limits cannot be reached, and
        Draining during shutdown.
        """
        if self.draining:
            raise Draining(retry_after=RETRY_SECONDS)
        self._starting += 1
        try:
            stream = await create_admitted(self._store, spec, question, permit, request_id)
            if stream is not None:
                await self._withdraw_if_closed(stream, request_id, permit)
                answer = self._launch(stream, question, request_id, permit)
        finally:
            self._starting -= 1
            self._note_idle()
        if stream is None:
            return await self.attach(spec.idempotency_key or "", spec.fingerprint)
        await answer.pass_gate()
        return stream

    async def attach(self, key: str, fingerprint: bytes) -> Log:
        """Return the log of the answer that was asked for with a key, as `start` does.

        `fingerprint`: of the body. Raises KeyReused when the answer was asked for with another one,
        Overloaded when there is no such answer any more, and what `start` raises.
        """
        if self.draining:
            raise Draining(retry_after=RETRY_SECONDS)
        try:
            stream = await self._store.find_key(key, fingerprint)
        except StreamNotFound:  # upstream refused it a moment ago: unpaid, so the key may ask again
            raise Overloaded("the question with this key has just failed", retry_after=1) from None
        if answer := self._running.get(stream.id):
            await answer.pass_gate()
        return stream

    async def knows(self, key: str | None) -> bool:
        """Return whether a question with this key would attach to an answer."""
        try:
            return key is not None and bool(await self._store.find_key(key))
        except StreamNotFound:
            return False

    async def open(self, stream_id: str, owner: str) -> Log:
        """Return an answer's log, running or finished. Raises StreamNotFound, also for another owner's.

        Raises Draining once the relay is closed: a reader that comes in a process's last moment is better
        sent to the next one than given an answer that is about to be interrupted.
        """
        if self._closed:
            raise Draining(retry_after=RETRY_SECONDS)
        stream = await self._store.open(stream_id)
        if stream.owner != owner:
            raise StreamNotFound(UNKNOWN)
        return stream

    async def running_in_chat(self, chat_id: str) -> Log | None:
        """Return a chat's newest log while it is running, else None."""
        try:
            stream = await self._store.find_chat(chat_id)
        except StreamNotFound:
            return None
        return None if (await stream.extent()).sealed else stream

    async def follow(
        self,
        stream: Log,
        after: int,
        subscriber: Subscriber | None = None,
        *,
        resumable: bool = True,
        resumes: bool = False,
    ) -> AsyncGenerator[Sequence[bytes], None]:
        """Read a log after a cursor (exclusive; -1 for all) as the entries come, until the terminal one.

        `subscriber`: see `Log.read`. What it accepts is not yielded. An iteration counts as a reader: when
        the last one ends, the disconnect grace begins. `resumable`: whether this reader could come back;
        there is no grace for one that cannot. `resumes`: it has. After the terminal entry there is nothing.

        Raises ChatError when the log cannot be read any further from here; InternalError when it has ended
        before the cursor: it was sealed for a producer that is gone, and had shown more than it could tell.
        """
        own, has_ended = self._readers_of(stream), False
        with self._readers.reading(own, resumes=resumes, resumable=resumable), stream.reading():
            while entries := await stream.read(after, subscriber):
                after = stream.length - 1
                has_ended = is_terminal(entries[-1])
                yield entries
        if not has_ended and not (await stream.extent()).ends_at(after):
            raise InternalError(PRODUCER_GONE, may_cost=True)

    async def stop(self, stream_id: str, owner: str) -> None:
        """End an answer for all its readers and close its call; idempotent. Raises StreamNotFound."""
        await self.open(stream_id, owner)
        if await self._store.seal(stream_id, Done(finish_reason="cancelled")):
            log.info("answer.stopped", extra={"fields": {"id": stream_id}})

    async def drain(self, grace_seconds: float, delay_seconds: float = 0) -> None:
        """Refuse new questions, let the running answers finish, and end the rest after the grace.

        `delay_seconds`: before that, `check` raises already, so that a load balancer sends no more. Readers
        here of other processes' answers have the same grace.
        """
        self._leaving = True
        if delay_seconds:
            log.info("relay.leaving", extra={"fields": {"running": self.running, "seconds": delay_seconds}})
            await asyncio.sleep(delay_seconds)
        self.draining = True
        if self._is_busy:
            running = {"running": self.running, "remote_readers": self._readers.remote}
            log.info("relay.draining", extra={"fields": running})
            with suppress(TimeoutError):
                async with asyncio.timeout(grace_seconds):
                    while self._is_busy:  # a reader may come in the moment when the last one leaves
                        self._idle.clear()
                        await self._idle.wait()
        await self.aclose()

    async def aclose(self) -> None:
        """End every answer now with an error that says why, and wait for the pumps."""
        self._leaving = self.draining = self._closed = True
        self._store.interrupt(Draining(retry_after=RETRY_SECONDS))
        answers = list(self._running.values())
        for answer in answers:
            answer.end(failure(Draining(retry_after=RETRY_SECONDS), answer.request_id))
        if answers:
            await asyncio.wait([answer.pump for answer in answers], timeout=CLEANUP_SECONDS)
        await self._reports.aclose()

    async def _withdraw_if_closed(self, stream: Log, request_id: str, permit: Permit) -> None:
        """Raise Draining for a question that the end of the grace has found on its way to upstream."""
        if self._closed:
            permit.settle(UNASKED)
            await withdraw(self._store, stream, Draining(retry_after=RETRY_SECONDS), request_id)
            raise Draining(retry_after=RETRY_SECONDS)

    def _launch(self, stream: Log, question: Question, request_id: str, permit: Permit) -> RunningAnswer:
        answer = RunningAnswer(stream, question, request_id, permit)
        answer.readers = Readers(stream, self._store, self._timeouts.disconnect_grace, answer.abandon)
        self._running[stream.id] = answer
        answer.gate_timer = answer.loop.call_later(self._timeouts.accept_wait, answer.open_gate)
        answer.pump = asyncio.create_task(self._pump(answer), name=f"pump {stream.id}")
        answer.pump.add_done_callback(lambda _: self._ended(answer))
        stream.on_stop = answer.pump.cancel
        return answer

    def _ended(self, answer: RunningAnswer) -> None:
        """Clean up after a pump, however it ended. A task's callback, so it cannot be cancelled."""
        del self._running[answer.log.id]
        self._note_idle()
        outcome = Outcome(
            refused=answer.unpaid, done=answer.done, seconds=answer.seconds, size=answer.log.size
        )
        charged = answer.permit.settle(outcome)
        answer.readers.close()
        answer.open_gate()
        if not answer.log.sealed:  # the pump was cancelled from outside, such as by the loop's end
            answer.log.append([failure(InternalError("the answer was interrupted"), answer.request_id)])
        self._reports.ended(answer, charged)

    async def _pump(self, answer: RunningAnswer) -> None:
        """Carry one answer from upstream into its log."""
        try:
            async with Deadlines(self._timeouts, answer):
                await self._upstream.answer(answer.question, answer)
        except asyncio.CancelledError:
            # What has cancelled it has sealed the log, or `_ended` does. Raised on, it would stay in the task
            # with its traceback, whose frames refer to the answer, which refers to the task.
            return
        except ChatError as exc:
            await self._fail(answer, exc)
            forget_frames(exc)
        except TimeoutError:
            await self._fail(answer, UpstreamTimeout(TOO_LONG, may_cost=True))
        except Exception as exc:
            log.exception("answer.crashed", extra={"fields": {"id": answer.log.id}})
            await self._fail(answer, InternalError("the answer was interrupted", may_cost=True))
            forget_frames(exc)

    async def _fail(self, answer: RunningAnswer, error: ChatError) -> None:
        """End an answer with an error: the HTTP response while nothing was sent, else its last event."""
        at_the_gate = answer.phase is Phase.ASKED and not answer.is_gate_open
        answer.unpaid = not error.may_cost and answer.phase is not Phase.ACCEPTED
        if error.may_cost or not at_the_gate:
            answer.announce()  # for the next request with its key, which gets this error and no second call
        answer.log.append([failure(error, answer.request_id)])
        if not at_the_gate:
            return
        answer.gate_timer.cancel()  # nobody is to be let in before the refusal is told
        if answer.unpaid:
            await self._store.discard(answer.log)  # its key may be used again
        answer.open_gate(error)

    def _readers_of(self, stream: Log) -> Readers | None:
        answer = self._running.get(stream.id)
        return None if answer is None else answer.readers

    @property
    def _is_busy(self) -> bool:
        return bool(self._running or self._starting or self._readers.remote)

    def _note_idle(self) -> None:
        if self.draining and not self._is_busy:
            self._idle.set()
