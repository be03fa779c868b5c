"""The counts that limits need, wherever they are kept."""

from collections.abc import Sequence
from typing import Protocol

import msgspec

from chat_sse.limits.headers import LimitStatus, tightest
from chat_sse.limits.plan import NO_LIMITS_OF_ITS_OWN, ClientCounts, OwnLimits
from chat_sse.limits.rates import Seen


class Reservation(msgspec.Struct, frozen=True):
    """What one question holds until it is settled: a slot, and the most tokens it can cost."""

    client: str
    stream_id: str
    tokens: int
    asked_at: float
    """In seconds since 1970. It belongs to the windows of this time."""
    requests: LimitStatus | None = None
    """What is left of the client's rate; None where nothing is limited, as in the next."""
    status: LimitStatus | None = None
    """What is left of the tokens."""
    epoch: str = ""
    """Of the counts that hold it: counts that were lost begin another."""
    own_limits: OwnLimits = NO_LIMITS_OF_ITS_OWN


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """What is left to a client; None where nothing is limited."""

    requests: LimitStatus | None
    streams: int
    """Answers that may run at once, of which there are left:"""
    streams_left: int
    tokens: LimitStatus | None


class Counts(Protocol):
    """Counts requests, running answers and tokens. Each method is one step for all who count.

    `own_limits`: those of the client's token, which are counted under the client's name as the others are.
    """

    def check(self, client: str, own_limits: OwnLimits = NO_LIMITS_OF_ITS_OWN) -> None:
        """Raise TooManyRequests for a request that asks, where it is known already that there is no room.

        Counts nothing, and never waits.
        """
        ...

    async def count(self, client: str, own_limits: OwnLimits = NO_LIMITS_OF_ITS_OWN) -> None:
        """Count a request that does not become a question, for its client alone.

        Raises TooManyRequests, and StoreUnavailable when the counts are out of reach. A refused request does
        not count.
        """
        ...

    async def standing(self, client: str, own_limits: OwnLimits = NO_LIMITS_OF_ITS_OWN) -> Standing:
        """Return what is left to a client, and count nothing. Raises StoreUnavailable."""
        ...

    async def admit(
        self, client: str, stream_id: str, tokens: int, own_limits: OwnLimits = NO_LIMITS_OF_ITS_OWN
    ) -> Reservation:
        """Count a request, unless a rate is full; then hold a slot, reserve tokens, and count the question
        for everybody: all of that or nothing.

        What costs nothing (a malformed body, a refusal) never gets here, so a few strangers cannot use up
        everybody's rate with it. Raises TooManyRequests, TooManyStreams, Overloaded when all slots are taken,
        BudgetSpent when too few tokens are left, PayloadTooLarge when there never will be enough, and
        StoreUnavailable.
        """
        ...

    def settle(self, reservation: Reservation, tokens: int, *, refused: bool) -> None:
        """Release the slot and replace the reserved tokens by those spent, once. Never waits or raises.

        `refused`: upstream refused the question, unpaid; it does not count for everybody.
        """
        ...


def status_of(counts: ClientCounts, seen: Sequence[Seen]) -> LimitStatus | None:
    """Return what a question leaves of its client's rate, by what there was of requests and questions."""
    rates = counts.requests + counts.questions
    return tightest([state.status(rate.limit) for state, rate in zip(seen, rates, strict=True)])


def standing_of(
    counts: ClientCounts, seen: Sequence[Seen], running: Sequence[int], spent: Sequence[int], now: float
) -> Standing:
    """Return what is left in a client's counts: of its rates, slots and budgets, in this order."""
    rates = counts.requests + counts.questions
    left = [max(0, slot.limit - count) for slot, count in zip(counts.slots, running, strict=True)]
    return Standing(
        requests=tightest(
            [state.status(rate.limit, asking=0) for state, rate in zip(seen, rates, strict=True)]
        ),
        streams=counts.slots[0].limit,
        streams_left=min(left),
        tokens=tightest(
            [budget.limit.status(count, now) for budget, count in zip(counts.budgets, spent, strict=True)]
        ),
    )
