"""Which clients have used up their rates, as far as it is known without asking Redis.

Others at the same Redis can only make it later that a client may ask again. So what was once told is refused
here, before a body is received, until its time is over.
"""

import asyncio
from collections.abc import Sequence

import msgspec

from chat_sse.limits.plan import Count, OwnLimits
from chat_sse.limits.rates import Rate, Seen, too_many

# An operator who frees a client in Redis does not want to restart every process.
KNOWN_SECONDS = 60.0
MAX_KNOWN = 8192


class _Full(msgspec.Struct, frozen=True):
    rate: Count[Rate]
    known_until: float  # on the loop's clock, as the next
    full_until: float


class FullRates:
    """Remembers them, the newest ones, for a minute at most."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, OwnLimits], _Full] = {}

    def check(self, client: str, own_limits: OwnLimits) -> None:
        """Raise TooManyRequests for a client whose rate is used up."""
        known = self._known.get((client, own_limits))
        if known is None:
            return
        now = asyncio.get_running_loop().time()
        if now < known.known_until:
            raise too_many(known.rate.limit, known.rate.whose, known.full_until - now)
        del self._known[client, own_limits]

    def note(
        self,
        client: str,
        own_limits: OwnLimits,
        rates: Sequence[Count[Rate]],
        seen: Sequence[Seen],
        *,
        counted: bool,
    ) -> None:
        """Note what was told of a client's rates. `counted`: one more request was counted after that."""
        for rate, state in zip(rates, seen, strict=True):
            now_seen = Seen(state.before, state.here + 1, state.into) if counted else state
            if now_seen.is_full(rate.limit):
                wait = now_seen.wait_seconds(rate.limit)
                now = asyncio.get_running_loop().time()
                if len(self._known) >= MAX_KNOWN:
                    del self._known[next(iter(self._known))]
                self._known[client, own_limits] = _Full(rate, now + min(wait, KNOWN_SECONDS), now + wait)
