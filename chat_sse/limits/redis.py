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
import secrets
import time
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import msgspec

from chat_sse.errors import PayloadTooLarge, StoreUnavailable
from chat_sse.limits.budget import SECONDS_PER_HOUR, Budget, budget_spent, check_fits
from chat_sse.limits.counts import Reservation, Standing, standing_of, status_of
from chat_sse.limits.full_rates import FullRates
from chat_sse.limits.headers import tightest
from chat_sse.limits.plan import (
    EVERYBODY,
    KNOWN_CLIENTS,
    NO_LIMITS_OF_ITS_OWN,
    ClientCounts,
    Count,
    OwnLimits,
    Plan,
)
from chat_sse.limits.rates import Seen
from chat_sse.limits.redis_scripts import ADMIT, COUNT, LOOK, RENEW, SETTLE
from chat_sse.limits.settlements import MARK_MS, Settlements
from chat_sse.limits.slots import no_slot
from chat_sse.redis_access import DEFAULT_PREFIX, Command, Runner, evaluate

# A process that hangs for longer than its lease counts its answers anew at the next renewal.
LEASE_MS = 6000
RENEW_SECONDS = 2.0
RENEWED_AT_ONCE = 500
# Counters of past windows, for answers that end after midnight.
KEPT_SECONDS = 86_400
# A reservation of which nobody knows whether it was made.
UNKNOWN_EPOCH = "*"


class Names(msgspec.Struct, frozen=True, kw_only=True):
    """How a client's counts are named in Redis during one hour, and what each may reach."""

    counts: ClientCounts
    slots: list[str]
    budgets: list[str]
    questions: list[str]
    requests: list[str]
    limits: list[int]
    """As ADMIT takes them."""
    ends: list[int]
    """Until when each budget's counter is kept, in seconds since 1970."""


class SharedCounts:
    """Counts, as `Counts` promises, for all processes that have the same Redis."""

    def __init__(
        self, redis: Runner, plan: Plan, prefix: str = DEFAULT_PREFIX, clock: Callable[[], float] = time.time
    ) -> None:
        """`clock`: gives seconds since 1970, by which budgets belong to days and months."""
        self._redis = redis
        self._plan = plan
        self._prefix = f"{prefix}:{{limits}}"
        self._epoch = f"{self._prefix}:epoch"
        self._clock = clock
        self._names = lru_cache(KNOWN_CLIENTS)(self._named)
        self._full = FullRates()
        self._held: dict[str, list[str]] = {}  # stream id → keys of its slots
        self._renewing: asyncio.Task[None] | None = None
        self._settlements = Settlements(redis)

    def check(self, client: str, own_limits: OwnLimits = NO_LIMITS_OF_ITS_OWN) -> None:
        """Check, as `Counts.check` promises: by what Redis has last said of this client's rates."""
        self._full.check(client, own_limits)

    async def count(self, client: str, own_limits: OwnLimits = NO_LIMITS_OF_ITS_OWN) -> None:
        """Count, as `Counts.count` promises."""
        names = self._names(client, own_limits, _hour(self._clock()))
        rates = names.counts.requests
        if not rates:
            return
        arguments = [number for rate in rates for number in (rate.limit.amount, rate.limit.seconds)]
        [[full, *told]] = await self._redis.run([evaluate(COUNT, names.requests, *arguments)])
        seen = _all_seen(told)
        self._full.note(client, own_limits, rates, seen, counted=not full)
        if full:
            raise seen[full - 1].refusal(rates[full - 1].limit, rates[full - 1].whose)

    async def standing(self, client: str, own_limits: OwnLimits = NO_LIMITS_OF_ITS_OWN) -> Standing:
        """Look, as `Counts.standing` promises."""
        now = self._clock()
        names = self._names(client, own_limits, _hour(now))
        counts, rates = names.counts, names.counts.requests + names.counts.questions
        keys = [*names.slots, *names.budgets, *names.requests, *names.questions]
        sizes = len(names.slots), len(names.budgets)
        seconds = [rate.limit.seconds for rate in rates]
        [told] = await self._redis.run([evaluate(LOOK, keys, *sizes, *seconds)])
        running, spent, told = told[: sizes[0]], told[sizes[0] : sum(sizes)], told[sum(sizes) :]
        return standing_of(counts, _all_seen(told), running, spent, now)

    async def admit(
        self, client: str, stream_id: str, tokens: int, own_limits: OwnLimits = NO_LIMITS_OF_ITS_OWN
    ) -> Reservation:
        """Admit, as `Counts.admit` promises."""
        now = self._clock()
        names = self._names(client, own_limits, _hour(now))
        counts = names.counts
        try:
            for budget in counts.budgets:
                check_fits(budget.limit, tokens)
        except PayloadTooLarge:
            await self.count(client, own_limits)
            raise
        reservation = Reservation(client, stream_id, tokens, now, epoch=UNKNOWN_EPOCH, own_limits=own_limits)
        try:
            [[full, epoch, *told]] = await self._redis.run([self._admit(names, reservation)])
        except BaseException:
            self.settle(reservation, 0, refused=True)
            raise
        spent, seen = told[: len(counts.budgets)], _all_seen(told[len(counts.budgets) :])
        is_counted = full <= len(names.slots) + len(names.budgets)
        own = seen[: len(counts.requests)]
        self._full.note(client, own_limits, counts.requests, own, counted=is_counted)
        if full:
            raise _refusal(counts, full - 1, spent, seen, now)
        self._held[stream_id] = names.slots
        if self._renewing is None:
            self._renewing = asyncio.create_task(self._renew(), name="leases of slots")
        return msgspec.structs.replace(
            reservation,
            requests=status_of(counts, seen),
            status=tightest(
                [budget.limit.status(sum_, now) for budget, sum_ in zip(counts.budgets, spent, strict=True)]
            ),
            epoch=epoch.decode(),
        )

    def settle(self, reservation: Reservation, tokens: int, *, refused: bool) -> None:
        """Settle, as `Counts.settle` promises; waits for a Redis that is away, within bounds."""
        self._held.pop(reservation.stream_id, None)
        self._settlements.add(reservation.stream_id, self._settle(reservation, tokens, refused=refused))

    async def aclose(self) -> None:
        """Write what is still to be written."""
        await self._settlements.aclose()
        if self._renewing is not None:
            self._renewing.cancel()
            await asyncio.wait([self._renewing])

    def _admit(self, names: Names, asked: Reservation) -> Command:
        return evaluate(
            ADMIT,
            (self._epoch, *names.slots, *names.budgets, *names.requests, *names.questions),
            *(len(names.slots), len(names.budgets), len(names.requests)),
            *(asked.stream_id, LEASE_MS, asked.tokens, secrets.token_hex(8)),
            *names.limits,
        )

    def _settle(self, reservation: Reservation, tokens: int, *, refused: bool) -> Command:
        names = self._names(reservation.client, reservation.own_limits, _hour(reservation.asked_at))
        mark = f"{self._prefix}:settled:{reservation.stream_id}"
        return evaluate(
            SETTLE,
            (self._epoch, mark, *names.slots, *names.budgets, *names.questions),
            *(len(names.slots), len(names.budgets), reservation.stream_id, reservation.epoch),
            *(reservation.tokens, tokens, MARK_MS, int(refused)),
            *names.ends,
            *(rate.limit.seconds for rate in names.counts.questions),
        )

    def _named(self, client: str, own_limits: OwnLimits, hour: int) -> Names:
        counts, now = self._plan.of(client, own_limits), hour * SECONDS_PER_HOUR
        limits = [slot.limit for slot in counts.slots]
        ends = [_end(budget.limit, now) for budget in counts.budgets]
        for budget, end in zip(counts.budgets, ends, strict=True):
            limits += budget.limit.tokens, end
        for rate in counts.requests + counts.questions:
            limits += rate.limit.amount, rate.limit.seconds
        return Names(
            counts=counts,
            slots=[self._key("slots", slot) for slot in counts.slots],
            budgets=[
                self._key(f"budget:{budget.limit.window(now).name}", budget) for budget in counts.budgets
            ],
            questions=[self._key(f"rate:{rate.limit.seconds}", rate) for rate in counts.questions],
            requests=[self._key(f"rate:{rate.limit.seconds}", rate) for rate in counts.requests],
            limits=limits,
            ends=ends,
        )

    def _key(self, kind: str, count: Count[Any]) -> str:
        return f"{self._prefix}:{kind}:{_digest(count.name)}"

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
            await self._redis.run([evaluate(RENEW, keys, LEASE_MS, *ids)])


def _refusal(
    counts: ClientCounts, full: int, spent: Sequence[int], seen: Sequence[Seen], now: float
) -> Exception:
    """Return why a question was not admitted: what is full is told by its place among all counts."""
    if full < len(counts.slots):
        return no_slot(counts.slots[full])
    full -= len(counts.slots)
    if full < len(counts.budgets):
        budget = counts.budgets[full]
        return budget_spent(budget.limit, spent[full], budget.whose, now)
    full -= len(counts.budgets)
    rate = (counts.requests + counts.questions)[full]
    return seen[full].refusal(rate.limit, rate.whose)


def _all_seen(told: Sequence[int]) -> list[Seen]:
    """Read what a script tells of rates: three numbers of each."""
    return [Seen(told[start], told[start + 1], told[start + 2] / 1000) for start in range(0, len(told), 3)]


def _hour(now: float) -> int:
    return int(now // SECONDS_PER_HOUR)


def _end(budget: Budget, now: float) -> int:
    """Return until when a window's counter is kept, in seconds since 1970."""
    return round(budget.window(now).end) + KEPT_SECONDS


def _digest(name: str) -> str:
    """Return a name for a key. Names of clients may hold anything, and addresses are nobody's business."""
    return name if name == EVERYBODY else hashlib.sha256(name.encode()).hexdigest()[:32]
