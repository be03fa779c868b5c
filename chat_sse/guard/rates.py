"""How often may be asked: by one client, and by everybody together.

A sliding window counter: the window before counts with the part of it that still lies within one window's
length from now. It needs two numbers a client, and lets no burst through where two windows meet.

Not the package `limits`: its storage in memory starts a thread or a task at a hit (90 to 180 µs of CPU), and
sweeps all clients each time, which held the event loop for 0.1 s at 200,000 addresses. Here those of one
window are one dictionary, which is dropped as a whole when its time is over.
"""

import math
import time
from collections.abc import Callable
from typing import Protocol, Self

import msgspec

from chat_sse.errors import TooManyRequests
from chat_sse.guard.standing import Standing, limit_headers, tighter

PERIODS = {"second": 1, "minute": 60, "hour": 3600, "day": 86_400}

# Clients counted apart within one window; all that come later share one count. 100,000 take some 20 MB, and
# only come about where the rate for everybody is off or above it.
MAX_CLIENTS = 100_000
LATECOMERS = "latecomers"


class Rate(msgspec.Struct, frozen=True):
    """So many requests in so many seconds."""

    amount: int
    seconds: int

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """Read `60/minute`; None for `off`."""
        if text == "off":
            return None
        amount, _, period = text.partition("/")
        return cls(int(amount), PERIODS[period])

    def wait_seconds(self, previous: float, current: float, elapsed: float) -> float:
        """Tell when one more fits: 0 is now. `elapsed`: seconds since the current window began."""
        window = self.seconds
        if previous * (1 - elapsed / window) + current + 1 <= self.amount:
            return 0.0
        if current + 1 <= self.amount:
            return window * (1 - (self.amount - 1 - current) / previous) - elapsed
        return window - elapsed + window * max(0.0, 1 - (self.amount - 1) / current)

    def standing(self, previous: float, current: float, elapsed: float) -> Standing:
        """Tell how many more fit now."""
        left = math.floor(self.amount - previous * (1 - elapsed / self.seconds) - current)
        return Standing(self.amount, self.seconds, max(0, left), self.seconds - elapsed)


class Rates(Protocol):
    """Counts the requests that ask."""

    async def hit(self, client: str) -> Standing | None:
        """Count a request; gives where the client stands now, None where nothing is limited.

        Raises TooManyRequests, and Overloaded when the counts cannot be reached. A refused request does not
        count, so a client that is refused takes nothing from the others.
        """
        ...


def too_many(rate: Rate, wait_seconds: float, *, client: bool) -> TooManyRequests:
    """Write the refusal."""
    whose = "one client" if client else "everybody together"
    window = next(name for name, seconds in PERIODS.items() if seconds == rate.seconds)
    return TooManyRequests(
        f"{rate.amount} questions a {window} from {whose} at the most",
        retry_after=max(wait_seconds, 1),
        headers=limit_headers(Standing(rate.amount, rate.seconds, 0, wait_seconds), None),
    )


class _Windows:
    """The counts of the current window and of the one before, by client."""

    def __init__(self, rate: Rate) -> None:
        self.rate = rate
        self._index = -1
        self._current: dict[str, int] = {}
        self._previous: dict[str, int] = {}

    def turn(self, now: float) -> float:
        """Let the time go on; gives the seconds since the current window began."""
        index, elapsed = divmod(now, self.rate.seconds)
        if index != self._index:
            self._previous = self._current if index == self._index + 1 else {}
            self._current = {}
            self._index = int(index)
        return elapsed

    def counted_as(self, client: str) -> str:
        if len(self._current) < MAX_CLIENTS or client in self._current:
            return client
        return LATECOMERS

    def counts(self, client: str) -> tuple[int, int]:
        return self._previous.get(client, 0), self._current.get(client, 0)

    def add(self, client: str) -> None:
        self._current[client] = self._current.get(client, 0) + 1


class MemoryRates:
    """Rates of one process."""

    def __init__(
        self, per_client: Rate | None, total: Rate | None, clock: Callable[[], float] = time.time
    ) -> None:
        self._clock = clock
        self._total = _Windows(total) if total else None
        self._clients = _Windows(per_client) if per_client else None

    async def hit(self, client: str) -> Standing | None:
        """Count, as `Rates.hit` promises."""
        now, standing = self._clock(), None
        counted = []
        for windows, name in ((self._clients, client), (self._total, "")):
            if windows is None:
                continue
            elapsed, rate = windows.turn(now), windows.rate
            name = windows.counted_as(name)  # noqa: PLW2901
            previous, current = windows.counts(name)
            if wait := rate.wait_seconds(previous, current, elapsed):
                raise too_many(rate, wait, client=windows is self._clients)
            counted.append((windows, name))
            here = rate.standing(previous, current + 1, elapsed)
            standing = here if standing is None else tighter(standing, here)
        for windows, name in counted:
            windows.add(name)
        return standing
