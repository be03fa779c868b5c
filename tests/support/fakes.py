"""Stand-ins for what a relay stands between, for tests in one process."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import aclosing
from typing import cast

import msgspec

from chat_sse.errors import ChatError, UpstreamUnavailable
from chat_sse.events import Delta, Done, Event, Start, decode_event
from chat_sse.limits.admission import Outcome, Permit
from chat_sse.messages import Message, Question
from chat_sse.records import AnsweredQuestion, AnswerRecord
from chat_sse.relay.deadlines import Timeouts
from chat_sse.relay.relay import Relay
from chat_sse.relay.reports import Reports
from chat_sse.stores.base import Log, LogSpec, Store
from chat_sse.stores.memory import MemoryStore
from chat_sse.upstreams.base import Listener

QUESTION = Question(messages=[Message(role="user", content="Hello!")], model="m", max_output_tokens=100)

# Each much longer than the one before, so that a test can tell which one has struck.
TIMEOUTS = Timeouts(
    accept_wait=2, first_token_timeout=30, idle_timeout=60, total_timeout=600, disconnect_grace=15
)

STOPPED = Done(finish_reason="cancelled")
UNPAID = UpstreamUnavailable("down", may_cost=False)
PAID = UpstreamUnavailable("down", may_cost=True)

Script = Callable[[Listener], Awaitable[None]]


class FakeUpstream:
    """An Upstream that does what a script says. Counts its calls, and those that were cancelled."""

    name = "fake"
    models: tuple[str, ...] = ()

    def __init__(self, script: Script) -> None:
        self.script = script
        self.calls = self.cancelled = 0

    async def answer(self, _: Question, listener: Listener) -> None:
        """Follow the script."""
        self.calls += 1
        try:
            await self.script(listener)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise

    async def aclose(self) -> None:
        """Close nothing."""


async def answer_at_once(listener: Listener) -> None:
    """Say "Hi" and end."""
    listener.on_accepted()
    listener.on_events([Delta("Hi"), Done(finish_reason="stop")])


async def begin_and_hang(listener: Listener) -> None:
    """Say "Hi", and then nothing for ever."""
    listener.on_accepted()
    listener.on_events([Delta("Hi")])
    await asyncio.Event().wait()


async def hang(_: Listener) -> None:
    """Accept nothing and say nothing, for ever."""
    await asyncio.Event().wait()


def answer_in(seconds: float) -> Script:
    """Return a script that accepts at once and ends after so many seconds of steady talking."""

    async def script(listener: Listener) -> None:
        listener.on_accepted()
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        listener.on_events([Delta("first")])
        while loop.time() < end:
            await asyncio.sleep(min(1, end - loop.time()))
            listener.on_entry(msgspec.json.encode(Delta("more")))
        listener.on_events([Done(finish_reason="stop")])

    return script


def fail_with(error: BaseException, *, after_delta: bool = False) -> Script:
    """Return a script that fails, before it accepts or after its first delta."""

    async def script(listener: Listener) -> None:
        if after_delta:
            listener.on_accepted()
            listener.on_events([Delta("Hi")])
            await asyncio.sleep(0)
        raise error

    return script


class FreePermit:
    """Admits everything, or raises; remembers what it is told at the end."""

    def __init__(self, refusal: ChatError | None = None, admit_seconds: float = 0) -> None:
        self.refusal, self.admit_seconds = refusal, admit_seconds
        self.outcomes: list[Outcome] = []

    async def admit(self, _id: str, _question: Question) -> None:
        """Admit, or raise the refusal."""
        if self.admit_seconds:
            await asyncio.sleep(self.admit_seconds)
        if self.refusal is not None:
            raise self.refusal

    def settle(self, outcome: Outcome) -> int:
        """Remember."""
        self.outcomes.append(outcome)
        return 7


class House:
    """A relay with its store, its upstream and what was reported."""

    def __init__(self, script: Script, store: Store | None = None, **timeouts: float) -> None:
        """`timeouts`: those that are not as in TIMEOUTS."""
        self.loop = asyncio.get_running_loop()
        self.upstream = FakeUpstream(script)
        self.store = store or MemoryStore(ttl_seconds=60, max_kept=10, max_kept_bytes=1_000_000)
        self.records: list[AnswerRecord] = []
        self.told: list[AnsweredQuestion] = []
        self.relay = Relay(
            self.upstream,
            self.store,
            msgspec.structs.replace(TIMEOUTS, **timeouts),
            Reports([self.records.append], self._after_answer),
        )
        self._ids: Iterator[int] = iter(range(1_000_000))

    async def _after_answer(self, answered: AnsweredQuestion) -> None:
        self.told.append(answered)

    async def ask(
        self,
        *,
        key: str | None = None,
        owner: str = "",
        permit: FreePermit | None = None,
        chat: str | None = None,
    ) -> Log:
        """Ask, as a handler does."""
        spec = LogSpec(
            stream_id=f"s{next(self._ids)}", owner=owner, idempotency_key=key, fingerprint=b"f", chat_id=chat
        )
        return await self.relay.start(QUESTION, spec, "r", cast("Permit", permit or FreePermit()))

    async def read(self, log: Log, after: int = -1) -> list[Event]:
        """Read to the end, as a reader that could come back."""
        found: list[Event] = []
        async with aclosing(self.relay.follow(log, after, resumes=after >= 0)) as batches:
            async for entries in batches:
                found += map(decode_event, entries)
        await turns()
        return found

    async def read_and_leave(self, log: Log, *, seconds: float = 0, resumable: bool = True) -> None:
        """Read what there is, stay for so long, and leave."""
        async with aclosing(self.relay.follow(log, -1, resumable=resumable)) as batches:
            await anext(batches)
            await asyncio.sleep(seconds)


async def turns(count: int = 5) -> None:
    """Let what is ready run, without moving the clock: a task's end is told some turns of the loop later."""
    for _ in range(count):
        await asyncio.sleep(0)


async def end_of(log: Log) -> Event:
    """Wait for a log's end past the relay, so that nobody counts as a reader."""
    after = -1
    while entries := await log.read(after):
        after += len(entries)
    await turns()
    terminal = log.terminal
    assert terminal is not None
    return terminal


def kinds(events: list[Event]) -> list[str]:
    """Name events by their types."""
    return [str(type(event).__struct_config__.tag) for event in events]


def texts(events: list[Event]) -> str:
    """Join what deltas say."""
    return "".join(event.content for event in events if isinstance(event, Delta))


def is_started(events: list[Event]) -> bool:
    """Whether the first event says who answers."""
    return isinstance(events[0], Start)
