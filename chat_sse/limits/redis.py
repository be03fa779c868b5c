"""The limits of several processes that serve as one: their counts are in Redis.

Each count is one script, so that no two processes can both take what is left for one. When Redis does not
answer, nobody can tell what is left, and nothing is asked: a limit that counts locally during an outage would
allow as many times more as there are processes, and the log lies in the same Redis anyway.

    <prefix>:rates:{…/all/…}, {…/client/<digest>/…}   counters of the package `limits`, two for each
    <prefix>:{slots}:all, :client:<digest>            sorted set: stream id, scored by the end of its lease
    <prefix>:{budget}:all:<window>, …:<digest>        tokens that are spent or reserved

A process that dies stops renewing its leases, so its slots are free again within LEASE_MS. What it had
reserved stays spent until the window is over: nobody knows what its calls have cost.
"""

import asyncio
import hashlib
import logging
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from functools import reduce
from itertools import islice, repeat
from typing import Any, TypeVar

import msgspec
from limits import RateLimitItem
from limits.aio.storage import RedisStorage
from redis.asyncio import Redis
from redis.exceptions import RedisError

from chat_sse.errors import StoreUnavailable
from chat_sse.limits.budget import EVERYBODY, Budget, Reservation, budget_spent, budgets_by_scope, check_fits
from chat_sse.limits.headers import LimitStatus, tighter
from chat_sse.limits.rates import Rates
from chat_sse.limits.redis_scripts import FREE, RENEW, RESERVE, SETTLE, TAKE
from chat_sse.limits.scopes import scopes_of
from chat_sse.limits.slots import all_taken, slots_by_scope, too_many_streams
from chat_sse.redis_access import DEFAULT_PREFIX, SOCKET_SECONDS, evaluate, open_pool, send, unavailable

T = TypeVar("T")

log = logging.getLogger(__name__)

# A process that hangs for longer than its lease counts its answers anew at the next renewal.
LEASE_MS = 6000
RENEW_SECONDS = 2.0
RENEWED_AT_ONCE = 500
# Counters of past windows, for answers that end after midnight.
KEPT_SECONDS = 86_400
# What is still to be written when the process ends.
CLOSING_SECONDS = 2.0


class SharedCounts:
    """Scripts in Redis, each call bounded in time."""

    def __init__(self, url: str, prefix: str = DEFAULT_PREFIX) -> None:
        """Prepare; nothing connects. Raises ValueError for a URL that redis-py cannot read."""
        # No retries: a reservation whose reply was lost must not be made twice.
        self._pool = open_pool(url, retries=0)
        self._client = Redis.from_pool(self._pool)
        self._prefix = prefix
        self._later: set[asyncio.Task[None]] = set()

    async def run(self, script: str, keys: list[str], *arguments: str | int) -> Any:
        """Run a script. Raises StoreUnavailable when Redis does not answer."""
        async with self.bounded():
            [result] = await send(self._client, [evaluate(script, keys, *arguments)], (script,))
        return result

    def all(self, kind: str) -> str:
        """Name everybody's count."""
        return f"{self._prefix}:{{{kind}}}:all"

    def of_client(self, kind: str, client: str) -> str:
        """Name a client's count. Names of clients may hold anything, and addresses are nobody's business."""
        return f"{self._prefix}:{{{kind}}}:client:{_digest(client)}"

    def storage(self) -> RedisStorage:
        """Return counters for the package `limits`, over the same connections."""
        # It never learns the real URL, which may hold a password.
        return RedisStorage(
            "async+redis://",
            implementation="redispy",
            key_prefix=f"{self._prefix}:rates",
            connection_pool=self._pool,  # type: ignore[arg-type]  # documented, but not in its annotation
        )

    @asynccontextmanager
    async def bounded(self) -> AsyncIterator[None]:
        """Bound in time what is asked of Redis. Raises StoreUnavailable when it does not answer."""
        try:
            async with asyncio.timeout(SOCKET_SECONDS):
                yield
        except (RedisError, OSError, TimeoutError) as exc:
            log.warning("limits.unavailable", extra={"fields": {"reason": type(exc).__name__}})
            raise unavailable() from exc

    def run_later(self, script: str, keys: list[str], *arguments: str | int) -> None:
        """Run a script without waiting for it; an outage is logged, and that is all."""
        task = asyncio.create_task(self._run_quietly(self.run(script, keys, *arguments)))
        self._later.add(task)
        task.add_done_callback(self._later.discard)

    async def aclose(self) -> None:
        """Write what is still to be written, and close the connections."""
        if self._later:
            await asyncio.wait(self._later, timeout=CLOSING_SECONDS)
        await self._pool.disconnect()

    @staticmethod
    async def _run_quietly(running: Coroutine[Any, Any, Any]) -> None:
        try:
            await running
        except StoreUnavailable:
            return  # `run` has logged it


def batched(items: Iterable[T], size: int) -> Iterator[tuple[T, ...]]:
    """Cut into pieces, as `itertools.batched` does from Python 3.12 on."""
    rest = iter(items)
    while piece := tuple(islice(rest, size)):
        yield piece


def _digest(client: str) -> str:
    return hashlib.sha256(client.encode()).hexdigest()[:32]


class SharedRates(Rates):
    """Rates of all processes together."""

    def __init__(
        self,
        counts: SharedCounts,
        per_client: RateLimitItem | None,
        total: RateLimitItem | None,
        *,
        most: RateLimitItem | None = None,
    ) -> None:
        super().__init__(per_client, total, counts.storage, most=most)
        self._counts = counts

    async def hit(self, client: str) -> LimitStatus | None:
        """Count, as `Rates.hit` promises."""
        async with self._counts.bounded():
            return await super().hit(client)

    async def hit_total(self, client: str) -> None:
        """Count, as `Rates.hit_total` promises."""
        async with self._counts.bounded():
            await super().hit_total(client)

    async def hit_client(self, client: str) -> None:
        """Count, as `Rates.hit_client` promises."""
        async with self._counts.bounded():
            await super().hit_client(client)

    async def aclose(self) -> None:
        """Write the refunds that are still to be written."""
        if self._refunds:
            await asyncio.wait(self._refunds, timeout=CLOSING_SECONDS)

    async def _refund(self, client: str) -> None:
        with suppress(StoreUnavailable):  # logged
            async with self._counts.bounded():
                await super()._refund(client)

    def _name(self, name: str) -> str:
        return _digest(name)


class SharedSlots:
    """Slots of all processes together, each on a lease that its process renews."""

    def __init__(self, counts: SharedCounts, per_client: int, total: int, *, most: int | None = None) -> None:
        self._counts = counts
        self._limits = slots_by_scope(per_client, most)
        self._total = total
        self._held: dict[str, list[str]] = {}  # stream id → its keys
        self._renewing: asyncio.Task[None] | None = None

    async def take(self, client: str, stream_id: str) -> None:
        """Take, as `Slots.take` promises."""
        scopes = scopes_of(client)
        keys = [*(self._counts.of_client("slots", name) for _, name in scopes), self._counts.all("slots")]
        limits = [*(self._limits[scope] for scope, _ in scopes), self._total]
        full = await self._counts.run(TAKE, keys, *limits, stream_id, LEASE_MS)
        if full == len(keys):
            raise all_taken(self._total)
        if full:
            raise too_many_streams(limits[full - 1], scopes[full - 1][0].whose)
        self._held[stream_id] = keys
        if self._renewing is None:
            self._renewing = asyncio.create_task(self._renew())

    def free(self, client: str, stream_id: str) -> None:  # noqa: ARG002 - its keys are known
        """Free, as `Slots.free` promises. Should Redis not hear of it, the lease runs out."""
        self._counts.run_later(FREE, self._held.pop(stream_id), stream_id)

    async def aclose(self) -> None:
        """Stop renewing."""
        if self._renewing is not None:
            self._renewing.cancel()
            await asyncio.wait([self._renewing])

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(RENEW_SECONDS)
            held = dict(self._held)
            for some in batched(held.items(), RENEWED_AT_ONCE):
                with suppress(StoreUnavailable):  # logged; they are held, and told so the next time
                    await self._renew_some(some)
            for stream_id in held.keys() - self._held.keys():  # freed meanwhile, and renewed after that
                self._counts.run_later(FREE, held[stream_id], stream_id)

    async def _renew_some(self, held: Sequence[tuple[str, list[str]]]) -> None:
        keys = [key for _, own in held for key in own]
        ids = [stream_id for stream_id, own in held for _ in own]
        await self._counts.run(RENEW, keys, LEASE_MS, *ids)


class SharedBudgets:
    """Budgets of all processes together."""

    def __init__(
        self,
        counts: SharedCounts,
        per_client: Budget | None,
        total: Budget | None,
        clock: Callable[[], float] = time.time,
        *,
        most: Budget | None = None,
    ) -> None:
        self._counts = counts
        self._by_scope = budgets_by_scope(per_client, most)
        self._total = total
        self._clock = clock

    async def reserve(self, client: str, tokens: int) -> Reservation:
        """Reserve, as `Budgets.reserve` promises."""
        now, counted = self._clock(), self._of(client)
        for budget, _, _ in counted:
            check_fits(budget, tokens)
        windows = [budget.window(now) for budget, _, _ in counted]
        reservation = Reservation(client, tokens, tuple(window.name for window in windows), None)
        if not counted:
            return reservation
        limits = [
            number
            for (budget, _, _), window in zip(counted, windows, strict=True)
            for number in (budget.tokens, round(window.end) + KEPT_SECONDS)
        ]
        short, *spent = await self._counts.run(RESERVE, self._keys(reservation), tokens, *limits)
        if short:
            budget, _, whose = counted[short - 1]
            raise budget_spent(budget, windows[short - 1], now, spent[short - 1], whose)
        budgets = [budget for budget, _, _ in counted]
        statuses = map(Budget.status, budgets, spent, windows, repeat(now))
        return msgspec.structs.replace(reservation, status=reduce(tighter, statuses))

    def settle(self, reservation: Reservation, tokens: int) -> None:
        """Settle, as `Budgets.settle` promises. Should Redis not hear of it, the reservation stays spent."""
        keys = self._keys(reservation)
        if keys and tokens != reservation.tokens:
            self._counts.run_later(SETTLE, keys, tokens - reservation.tokens)

    def _of(self, client: str) -> list[tuple[Budget, str, str]]:
        """Return the budgets of a client's questions, each with its counter's name and whose it is."""
        own = [
            (budget, self._counts.of_client("budget", name), scope.whose)
            for scope, name in scopes_of(client)
            for budget in self._by_scope[scope]
        ]
        return own if self._total is None else [*own, (self._total, self._counts.all("budget"), EVERYBODY)]

    def _keys(self, reservation: Reservation) -> list[str]:
        """Name the counters of a reservation, the client's first."""
        counted = self._of(reservation.client)
        return [f"{name}:{window}" for (_, name, _), window in zip(counted, reservation.windows, strict=True)]
