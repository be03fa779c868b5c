"""The counts that limits need, wherever they are kept."""

from typing import Protocol

import msgspec

from chat_sse.limits.headers import LimitStatus


class Reservation(msgspec.Struct, frozen=True):
    """What one question holds until it is settled: a slot, and the most tokens it can cost."""

    client: str
    stream_id: str
    tokens: int
    asked_at: float
    """In seconds since 1970. It belongs to the windows of this time."""
    status: LimitStatus | None
    """What is left of the tokens; None where they are not limited."""
    epoch: str = ""
    """Of the counts that hold it: counts that were lost begin another."""


class Counts(Protocol):
    """Counts requests, running answers and tokens. Each method is one step for all who count."""

    async def arrive(self, client: str) -> LimitStatus | None:
        """Count a request that asks, for its client alone; returns what is left of the client's rate.

        Raises TooManyRequests, also when everybody's rate has no room, and StoreUnavailable when the counts
        are out of reach. A refused request does not count, so it takes nothing from the others.
        """
        ...

    async def misuse(self, client: str) -> None:
        """Count a request that was not let in, for its client alone. Raises as `arrive` does."""
        ...

    async def admit(self, client: str, stream_id: str, tokens: int) -> Reservation:
        """Hold a slot, reserve tokens, and count the question for everybody: all of it or nothing.

        What costs nothing (a malformed body, a refusal) never gets here, so a few strangers cannot use up
        everybody's rate with it. Raises TooManyStreams, Overloaded when all slots are taken, BudgetSpent when
        too few tokens are left, PayloadTooLarge when there never will be enough, TooManyRequests and
        StoreUnavailable.
        """
        ...

    def settle(self, reservation: Reservation, tokens: int, *, refused: bool) -> None:
        """Release the slot and replace the reserved tokens by those spent, once. Never waits or raises.

        `refused`: upstream refused the question, unpaid; it does not count for everybody.
        """
        ...
