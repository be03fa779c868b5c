"""From upstream to the log. The only place that starts an answer's tasks, and so the one that must end them.

An answer is one task, the pump. It belongs to the relay, not to the request that asked: a reader leaving
never touches it. It ends in one of these ways, and each seals its log with exactly one terminal event:

- upstream is done, or at fault                       Done / Failure
- upstream stays silent, or the answer takes too long Failure(timeout_error)
- somebody stops it, in whichever process             Done("cancelled")
- nobody has read it for the disconnect grace         Done("cancelled")
- the server shuts down and its grace is over         Failure(server_draining)
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import contextmanager, suppress

from chat_sse.errors import (
    ChatError,
    Draining,
    InternalError,
    Overloaded,
    StreamNotFound,
    UpstreamTimeout,
)
from chat_sse.events import Done, Subscriber, failure
from chat_sse.limits.admission import Outcome, Permit
from chat_sse.messages import Question
from chat_sse.relay.answer import Answer, Deadlines, Timeouts
from chat_sse.stores.base import Log, LogSpec, Store
from chat_sse.upstreams.base import Upstream

log = logging.getLogger(__name__)

# An answer's first reader may need a moment: a 202 has to travel to the caller, and its request back.
FIRST_READER_SECONDS = 10.0
# Ending a cancelled call is closing a socket.
CLEANUP_SECONDS = 5.0
# How often an answer that is read in another process alone is looked after, at most.
RECHECK_SECONDS = 1.0
# What a client should wait before it asks the server that replaces this one.
RETRY_SECONDS = 2.0

TOO_LONG = "upstream was silent, or the answer took, for too long"


class Relay:
    """Asks upstreams, keeps the answers going, and lets any number of readers follow them."""

    def __init__(self, upstream: Upstream, store: Store, timeouts: Timeouts) -> None:
        self._upstream = upstream
        self._store = store
        self._timeouts = timeouts
        self._running: dict[str, Answer] = {}
        self._guests = 0
        self._no_guests = asyncio.Event()
        self._no_guests.set()
        self.draining = False

    @property
    def running(self) -> int:
        """How many answers are under way in this process."""
        return len(self._running)

    async def check(self) -> None:
        """Tell whether questions are taken. Raises Draining or StoreUnavailable, which say when to retry."""
        if self.draining:
            raise Draining(retry_after=RETRY_SECONDS)
        await self._store.check()

    async def start(self, question: Question, spec: LogSpec, request_id: str, permit: Permit) -> Log:
        """Ask upstream, or attach to the answer that the spec's key has already asked for.

        Returns once upstream has accepted, or after the accept wait. Raises ChatError for what upstream
        refused until then, LimitReached and Overloaded for what this server's limits refuse, KeyReused for a
        key with another body, StoreUnavailable when the log or the shared limits are out of reach, and
        Draining while shutting down.
        """
        if self.draining:
            raise Draining(retry_after=RETRY_SECONDS)
        stream = await self._store.create(spec)
        if stream is not None:
            await self._admit(stream, question, request_id, permit)
            answer: Answer | None = self._launch(stream, question, request_id, permit)
        else:
            stream = await self._claimed(spec)
            answer = self._running.get(stream.id)
        if answer is not None:
            await self._pass_gate(answer)
        return stream

    async def knows(self, key: str | None) -> bool:
        """Tell whether a question with this key would attach to an answer."""
        try:
            return key is not None and bool(await self._store.find_key(key))
        except StreamNotFound:
            return False

    async def open(self, stream_id: str, owner: str) -> Log:
        """Give an answer's log, running or finished. Raises StreamNotFound, for another's answer too."""
        stream = await self._store.open(stream_id)
        if stream.owner != owner:
            raise StreamNotFound("no answer has this id, or it has expired")
        return stream

    async def running_in_chat(self, chat_id: str) -> Log | None:
        """Give the newest log with a label while it is running, else None."""
        try:
            stream = await self._store.find_chat(chat_id)
        except StreamNotFound:
            return None
        _, sealed = await stream.extent()
        return None if sealed else stream

    async def follow(
        self, stream: Log, after: int, subscriber: Subscriber | None = None, *, resumable: bool = True
    ) -> AsyncGenerator[Sequence[bytes], None]:
        """Read a log after a cursor (exclusive; -1 for all) as the entries come, until the terminal one.

        `subscriber`: see `Log.read`. What it takes is not yielded.

        While it is iterated it counts as a reader: when the last one leaves, the disconnect grace begins.
        `resumable`: whether this reader could come back; for one that cannot, there is no grace.

        Raises ChatError when the log can be read no further from here: a last event under no number.
        """
        with self._reading(stream, resumable), stream.reading():
            while entries := await stream.read(after, subscriber):
                after = stream.length - 1
                yield entries

    async def stop(self, stream_id: str, owner: str) -> None:
        """End an answer for all its readers and close its call; idempotent. Raises StreamNotFound."""
        await self.open(stream_id, owner)
        if await self._store.seal(stream_id, Done(finish_reason="cancelled")):
            log.info("answer.stopped", extra={"fields": {"id": stream_id}})

    async def drain(self, grace_seconds: float) -> None:
        """Refuse new questions, let the running answers finish, and end the rest after the grace.

        Those who read answers of other processes here have the same grace.
        """
        self.draining = True
        if self._running or self._guests:
            running = {"running": len(self._running), "guests": self._guests}
            log.info("relay.draining", extra={"fields": running})
            with suppress(TimeoutError):
                async with asyncio.timeout(grace_seconds):
                    if self._running:
                        await asyncio.wait([answer.pump for answer in self._running.values()])
                    await self._no_guests.wait()
        await self.aclose()

    async def aclose(self) -> None:
        """End every answer now, truthfully, and wait for the pumps."""
        self.draining = True
        self._store.interrupt(Draining(retry_after=RETRY_SECONDS))
        answers = list(self._running.values())
        for answer in answers:
            answer.end(failure(Draining(retry_after=RETRY_SECONDS), answer.request_id))
        if answers:
            await asyncio.wait([answer.pump for answer in answers], timeout=CLEANUP_SECONDS)

    async def _claimed(self, spec: LogSpec) -> Log:
        try:
            return await self._store.find_key(spec.idempotency_key or "")
        except StreamNotFound:  # upstream refused it a moment ago: unpaid, so the key may ask again
            raise Overloaded("the question with this key has just failed", retry_after=1) from None

    async def _admit(self, stream: Log, question: Question, request_id: str, permit: Permit) -> None:
        """Pass the limits. Refused, the log is ended for whoever found it meanwhile, and its key is free."""
        error: ChatError = InternalError("the question was interrupted")
        try:
            await permit.admit(stream.id, question)
        except BaseException as exc:
            stream.append([failure(exc if isinstance(exc, ChatError) else error, request_id)])
            await self._store.discard(stream)
            raise

    def _launch(self, stream: Log, question: Question, request_id: str, permit: Permit) -> Answer:
        answer = Answer(stream, question, request_id, permit)
        self._running[stream.id] = answer
        answer.gate_timer = answer.loop.call_later(self._timeouts.accept_wait, answer.open_gate)
        answer.pump = asyncio.create_task(self._pump(answer), name=f"pump {stream.id}")
        answer.pump.add_done_callback(lambda _: self._ended(answer))
        stream.on_stop = answer.pump.cancel
        return answer

    def _ended(self, answer: Answer) -> None:
        """Clear up after a pump, however it ended: here nothing can be cancelled away."""
        del self._running[answer.log.id]
        answer.permit.settle(Outcome(refused=answer.refused, done=answer.done, size=answer.log.size))
        if answer.orphan_timer:
            answer.orphan_timer.cancel()
        answer.open_gate()
        if answer.orphan_check:
            answer.orphan_check.cancel()
        if not answer.log.sealed:  # cancelled by somebody who does not know us
            answer.log.append([failure(InternalError("the answer was interrupted"), answer.request_id)])

    async def _pass_gate(self, answer: Answer) -> None:
        """Wait for upstream's verdict, so that a refusal is still an HTTP error."""
        try:
            await answer.gate.wait()
        finally:
            self._orphan_after(answer, max(self._timeouts.disconnect_grace, FIRST_READER_SECONDS))
        if answer.refusal is not None:
            raise answer.refusal

    async def _pump(self, answer: Answer) -> None:
        """Carry one answer from upstream into its log."""
        try:
            async with Deadlines(self._timeouts, answer):
                await self._upstream.answer(answer.question, answer)
        except ChatError as exc:
            await self._fail(answer, exc)
        except TimeoutError:
            await self._fail(answer, UpstreamTimeout(TOO_LONG, may_cost=True))
        except Exception:
            log.exception("answer.crashed", extra={"fields": {"id": answer.log.id}})
            await self._fail(answer, InternalError("the answer was interrupted", may_cost=True))
        else:
            self._report(answer, finish_reason=answer.done.finish_reason if answer.done else None)

    async def _fail(self, answer: Answer, error: ChatError) -> None:
        """Tell a fault: to those who wait at the gate while nothing was sent, in the stream afterwards."""
        at_the_gate = not (answer.announced or answer.gate.is_set())
        answer.refused = not (error.may_cost or answer.taken)
        if error.may_cost or not at_the_gate:
            answer.announce()  # for the next request with its key, which gets this fault and no second call
        answer.log.append([failure(error, answer.request_id)])
        self._report(answer, error=error.code)
        if at_the_gate:
            if not error.may_cost:
                await self._store.discard(answer.log)  # its key may be used again: nothing was paid for
            answer.open_gate(error)

    def _report(self, answer: Answer, **outcome: str | None) -> None:
        seconds = round(answer.loop.time() - answer.started_at, 3)
        fields = {
            "id": answer.log.id,
            "request_id": answer.request_id,
            "model": answer.model or answer.question.model,
        }
        log.info(
            "answer.ended",
            extra={"fields": {**fields, **outcome, "bytes": answer.log.size, "seconds": seconds}},
        )

    @contextmanager
    def _reading(self, stream: Log, resumable: bool) -> Iterator[None]:
        answer = self._running.get(stream.id)
        if answer is None:
            with self._guest():
                yield
            return
        answer.readers += 1
        if answer.orphan_timer:
            answer.orphan_timer.cancel()
            answer.orphan_timer = None
        try:
            yield
        finally:
            answer.readers -= 1
            if resumable:
                answer.kept_until = answer.loop.time() + self._timeouts.disconnect_grace
            self._orphan_after(answer, answer.kept_until - answer.loop.time())

    @contextmanager
    def _guest(self) -> Iterator[None]:
        """Count a reader of an answer that no pump here produces."""
        self._guests += 1
        self._no_guests.clear()
        try:
            yield
        finally:
            self._guests -= 1
            if self._guests == 0:
                self._no_guests.set()

    def _orphan_after(self, answer: Answer, seconds: float) -> None:
        """Start the grace when nobody reads."""
        if answer.readers == 0 and not answer.log.sealed:
            if answer.orphan_timer:
                answer.orphan_timer.cancel()
            answer.orphan_timer = answer.loop.call_later(seconds, self._begin_check, answer)

    def _begin_check(self, answer: Answer) -> None:
        answer.orphan_check = asyncio.create_task(self._abandon(answer), name=f"orphan {answer.log.id}")

    async def _abandon(self, answer: Answer) -> None:
        """End an answer that nobody has read in any process for the grace; else ask again when it may be."""
        idle = await self._store.idle_elsewhere(answer.log)
        if idle <= self._timeouts.disconnect_grace:
            self._orphan_after(answer, max(self._timeouts.disconnect_grace - idle, RECHECK_SECONDS))
        elif answer.readers == 0:
            answer.end(Done(finish_reason="cancelled"))
            log.info("answer.abandoned", extra={"fields": {"id": answer.log.id}})
