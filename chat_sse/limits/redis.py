"""The counts of several processes that serve as one: they are in Redis.

Each step is one script, so that no two processes can both take what is left for one. When Redis does not
answer, nobody can tell what is left, and nothing is asked: a limit that counts locally during an outage would
allow as many times more as there are processes, and the log lies in the same Redis anyway.

    <prefix>:{limits}:rate:<seconds>:<name>    requests of a window and of the one before
    <prefix>:{limits}:slots:<name>             sorted set: stream id, scored by the end of its lease
    <prefix>:{limits}:budget:<window>:<name>   tokens that are spent or reserved
    <prefix>:{limits}:settled:<stream id>      what must not be settled twice, for a while
    <prefix>:{limits}:epoch                    changes when Redis has lost its data

A process that dies stops renewing its leases, so its slots are free again within LEASE_MS. What it had
reserved stays spent until the window is over: nobody knows what its calls have cost.
"""

import asyncio
import hashlib
import logging
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from itertools import islice
from typing import Any

import msgspec

from chat_sse.errors import StoreUnavailable
from chat_sse.figures import Figure
from chat_sse.limits.budget import Budget, budget_spent, check_fits
from chat_sse.limits.counts import Reservation, Standing, standing_of
from chat_sse.limits.headers import LimitStatus, tightest
from chat_sse.limits.plan import EVERYBODY, NO_LIMITS_OF_ITS_OWN, ClientCounts, Count, OwnLimits, Plan
from chat_sse.limits.rates import Rate, Seen
from chat_sse.limits.redis_scripts import ADMIT, ARRIVE, LOOK, RENEW, SCRIPTS, SETTLE
from chat_sse.limits.slots import no_slot
from chat_sse.redis_access import (
    DEFAULT_PREFIX,
    SOCKET_SECONDS,
    Command,
    RoundTrips,
    connector,
    evaluate,
)

log = logging.getLogger(__name__)

# A process that hangs for longer than its lease counts its answers anew at the next renewal.
LEASE_MS = 6000
RENEW_SECONDS = 2.0
RENEWED_AT_ONCE = 500
# Counters of past windows, for answers that end after midnight.
KEPT_SECONDS = 86_400
# A settlement without a reply is made again, and recognised for so long.
MARK_MS = 120_000
# While Redis is away. What is settled beyond that stays reserved until its window ends.
MAX_UNSETTLED = 20_000
SETTLED_AT_ONCE = 200
RETRY_SECONDS = 0.5
# What is still to be written when the process ends.
CLOSING_SECONDS = 2.0
# A reservation of which nobody knows whether it was made.
UNKNOWN_EPOCH = "*"


class SharedCounts:
    """Counts, as `Counts` promises, for all processes that have the same Redis."""

    def __init__(
        self, url: str, plan: Plan, prefix: str = DEFAULT_PREFIX, clock: Callable[[], float] = time.time
    ) -> None:
        """Prepare; nothing connects. Raises ValueError for a URL that redis-py cannot read."""
        self._trips = RoundTrips(connector(url), SCRIPTS, seconds=SOCKET_SECONDS, on_outcome=_report)
        self._plan = plan
        self._prefix = f"{prefix}:{{limits}}"
        self._clock = clock
        self._held: dict[str, list[str]] = {}  # stream id → keys of its slots
        self._unsettled: dict[str, Command] = {}  # by stream id
        self._doubtful: dict[str, float] = {}  # those that may be settled: stream id → when they were sent
        self._renewing: asyncio.Task[None] | None = None
        self._settling: asyncio.Task[None] | None = None

    async def arrive(self, client: str, own_limits: OwnLimits = NO_LIMITS_OF_ITS_OWN) -> LimitStatus | None:
        """Count, as `Counts.arrive` promises."""
        counts = self._plan.of(client, own_limits)
        return await self._count(counts.requests, counts.questions)

    async def misuse(self, client: str) -> None:
        """Count, as `Counts.misuse` promises."""
        await self._count(self._plan.of(client).requests, ())

    async def standing(self, client: str, own_limits: OwnLimits = NO_LIMITS_OF_ITS_OWN) -> Standing:
        """Look, as `Counts.standing` promises."""
        counts, now = self._plan.of(client, own_limits), self._clock()
        rates = counts.requests + counts.questions
        keys = self._keys(msgspec.structs.replace(counts, questions=rates), now)
        sizes = len(counts.slots), len(counts.budgets)
        seconds = [rate.limit.seconds for rate in rates]
        [told] = await self._trips.run([evaluate(LOOK, keys, *sizes, *seconds)])
        running, spent, told = told[: sizes[0]], told[sizes[0] : sum(sizes)], told[sum(sizes) :]
        seen = [_seen(told[start : start + 3]) for start in range(0, len(told), 3)]
        return standing_of(counts, seen, running, spent, now)

    async def admit(
        self, client: str, stream_id: str, tokens: int, own_limits: OwnLimits = NO_LIMITS_OF_ITS_OWN
    ) -> Reservation:
        """Admit, as `Counts.admit` promises."""
        counts, now = self._plan.of(client, own_limits), self._clock()
        for budget in counts.budgets:
            check_fits(budget.limit, tokens)
        reservation = Reservation(client, stream_id, tokens, now, None, UNKNOWN_EPOCH, own_limits)
        try:
            [[full, epoch, *told]] = await self._trips.run([self._admit(counts, reservation)])
        except BaseException:
            self.settle(reservation, 0, refused=True)
            raise
        spent, rate = told[: len(counts.budgets)], told[len(counts.budgets) :]
        if full:
            raise _refusal(counts, full - 1, spent, rate, now)
        self._held[stream_id] = [self._key("slots", slot) for slot in counts.slots]
        if self._renewing is None:
            self._renewing = asyncio.create_task(self._renew(), name="leases of slots")
        statuses = [
            budget.limit.status(sum_, now) for budget, sum_ in zip(counts.budgets, spent, strict=True)
        ]
        return msgspec.structs.replace(reservation, status=tightest(statuses), epoch=epoch.decode())

    def settle(self, reservation: Reservation, tokens: int, *, refused: bool) -> None:
        """Settle, as `Counts.settle` promises; waits for a Redis that is away, within bounds."""
        self._held.pop(reservation.stream_id, None)
        if len(self._unsettled) >= MAX_UNSETTLED:
            log.warning("limits.unsettled", extra={"fields": {"id": reservation.stream_id}})
            return
        self._unsettled[reservation.stream_id] = self._settle(reservation, tokens, refused=refused)
        if self._settling is None:
            self._settling = asyncio.create_task(self._settle_all(), name="settlements")

    def figures(self) -> Iterator[Figure]:
        """Return what the round trips were."""
        return self._trips.figures("limits")

    async def aclose(self) -> None:
        """Write what is still to be written, and close the connections."""
        if self._settling is not None:
            await asyncio.wait([self._settling], timeout=CLOSING_SECONDS)
        for task in (self._renewing, self._settling):
            if task is not None:
                task.cancel()
                await asyncio.wait([task])
        await self._trips.aclose()

    async def _count(
        self, counted: tuple[Count[Rate], ...], tested: tuple[Count[Rate], ...]
    ) -> LimitStatus | None:
        rates = counted + tested
        if not rates:
            return None
        arguments = [number for rate in rates for number in (rate.limit.amount, rate.limit.seconds)]
        keys = [self._rate_key(rate) for rate in rates]
        [[full, *told]] = await self._trips.run([evaluate(ARRIVE, keys, len(counted), *arguments)])
        seen = [_seen(told[start : start + 3]) for start in range(0, len(told), 3)]
        if full:
            raise seen[full - 1].refusal(rates[full - 1].limit, rates[full - 1].whose)
        return tightest([state.status(rate.limit) for state, rate in zip(seen, rates, strict=True)])

    def _admit(self, counts: ClientCounts, asked: Reservation) -> Command:
        limits: list[int] = [slot.limit for slot in counts.slots]
        for budget in counts.budgets:
            limits += budget.limit.tokens, _end(budget.limit, asked.asked_at)
        for rate in counts.questions:
            limits += rate.limit.amount, rate.limit.seconds
        return evaluate(
            ADMIT,
            [f"{self._prefix}:epoch", *self._keys(counts, asked.asked_at)],
            *(len(counts.slots), len(counts.budgets), asked.stream_id, LEASE_MS, asked.tokens),
            secrets.token_hex(8),
            *limits,
        )

    def _settle(self, reservation: Reservation, tokens: int, *, refused: bool) -> Command:
        counts = self._plan.of(reservation.client, reservation.own_limits)
        mark = f"{self._prefix}:settled:{reservation.stream_id}"
        return evaluate(
            SETTLE,
            [f"{self._prefix}:epoch", mark, *self._keys(counts, reservation.asked_at)],
            *(len(counts.slots), len(counts.budgets), reservation.stream_id, reservation.epoch),
            *(reservation.tokens, tokens, MARK_MS, int(refused)),
            *(_end(budget.limit, reservation.asked_at) for budget in counts.budgets),
            *(rate.limit.seconds for rate in counts.questions),
        )

    def _keys(self, counts: ClientCounts, now: float) -> list[str]:
        """Name a question's slots, budgets and rates, in this order."""
        return [
            *(self._key("slots", slot) for slot in counts.slots),
            *(self._key(f"budget:{budget.limit.window(now).name}", budget) for budget in counts.budgets),
            *map(self._rate_key, counts.questions),
        ]

    def _rate_key(self, rate: Count[Rate]) -> str:
        return self._key(f"rate:{rate.limit.seconds}", rate)

    def _key(self, kind: str, count: Count[Any]) -> str:
        return f"{self._prefix}:{kind}:{_digest(count.name)}"

    async def _settle_all(self) -> None:
        """Run what is to be settled, again and again while Redis is away."""
        was_up, loop = True, asyncio.get_running_loop()
        try:
            while self._unsettled:
                some = dict(islice(self._unsettled.items(), SETTLED_AT_ONCE))
                try:
                    await self._trips.run(list(some.values()))
                except StoreUnavailable:
                    if was_up:  # the connection broke under these; later ones find none
                        self._doubtful.update(dict.fromkeys(some, loop.time()))
                    was_up = False
                    await asyncio.sleep(RETRY_SECONDS)
                    self._give_up(loop.time() - MARK_MS / 1000)
                else:
                    was_up = True
                    for stream_id in some:
                        self._unsettled.pop(stream_id, None)
                        self._doubtful.pop(stream_id, None)
        finally:
            self._settling = None

    def _give_up(self, late: float) -> None:
        """Leave reserved what was in doubt before `late`: Redis would settle it once more."""
        for stream_id in [stream_id for stream_id, sent_at in self._doubtful.items() if sent_at < late]:
            del self._doubtful[stream_id], self._unsettled[stream_id]
            log.warning("limits.unsettled", extra={"fields": {"id": stream_id}})

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(RENEW_SECONDS)
            held = list(self._held.items())
            for start in range(0, len(held), RENEWED_AT_ONCE):
                try:
                    await self._renew_some(held[start : start + RENEWED_AT_ONCE])
                except StoreUnavailable:
                    break  # logged; they are held, and told so the next time

    async def _renew_some(self, held: Sequence[tuple[str, list[str]]]) -> None:
        some = [(stream_id, keys) for stream_id, keys in held if stream_id in self._held]
        keys = [key for _, own in some for key in own]
        ids = [stream_id for stream_id, own in some for _ in own]
        if keys:
            await self._trips.run([evaluate(RENEW, keys, LEASE_MS, *ids)])


def _refusal(
    counts: ClientCounts, full: int, spent: Sequence[int], rate: Sequence[int], now: float
) -> Exception:
    """Return why a question was not admitted: what is full is told by its place among all counts."""
    if full < len(counts.slots):
        return no_slot(counts.slots[full])
    full -= len(counts.slots)
    if full < len(counts.budgets):
        budget = counts.budgets[full]
        return budget_spent(budget.limit, spent[full], budget.whose, now)
    question = counts.questions[full - len(counts.budgets)]
    return _seen(rate).refusal(question.limit, question.whose)


def _seen(told: Sequence[int]) -> Seen:
    before, here, into_ms = told
    return Seen(before, here, into_ms / 1000)


def _end(budget: Budget, now: float) -> int:
    """Return until when a window's counter is kept, in seconds since 1970."""
    return round(budget.window(now).end) + KEPT_SECONDS


@lru_cache(8192)
def _digest(name: str) -> str:
    """Return a name for a key. Names of clients may hold anything, and addresses are nobody's business."""
    return name if name == EVERYBODY else hashlib.sha256(name.encode()).hexdigest()[:32]


def _report(error: str | None) -> None:
    if error is not None:
        log.warning("limits.unavailable", extra={"fields": {"reason": error}})
