"""How often may be asked.

Counted by a sliding window counter ("How we built rate limiting", Cloudflare, 2017): the window before counts
with the part of it that still lies within one window's length from now. It needs two numbers a client,
whatever the rate, and lets no burst through where two windows meet; the times of all requests would need
memory for each. The arithmetic is here, for the counts in memory and in Redis alike.
"""

import math
from typing import Final, Self

import msgspec

from chat_sse.errors import TooManyRequests
from chat_sse.limits.headers import LimitStatus, limit_headers

SECONDS: Final = {"second": 1, "minute": 60, "hour": 3600, "day": 86_400}
# Two clocks may differ by so much, and a timer may fire so early.
MARGIN_SECONDS = 0.002


class Rate(msgspec.Struct, frozen=True):
    """So many requests in a second, minute, hour or day."""

    amount: int
    seconds: int

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """Read `60/minute`; None for `off`."""
        if text == "off":
            return None
        amount, _, unit = text.partition("/")
        return cls(int(amount), SECONDS[unit])

    @property
    def unit(self) -> str:
        """The window's name."""
        return next(unit for unit, seconds in SECONDS.items() if seconds == self.seconds)

    def times(self, factor: int) -> Self:
        """Return a multiple of it."""
        return type(self)(factor * self.amount, self.seconds)

    def share(self, percent: int) -> Self | None:
        """Return a part of it, of one request at least. None where that is no part."""
        part = max(1, self.amount * percent // 100)
        return type(self)(part, self.seconds) if part < self.amount else None


class Seen(msgspec.Struct, frozen=True):
    """What one count holds at one time."""

    before: int
    """Requests in the window before this one."""
    here: int
    """Requests in this one."""
    into: float
    """Seconds of this window that are over."""

    def used(self, rate: Rate) -> float:
        """Return how much of the rate is used."""
        return self.before * (1 - self.into / rate.seconds) + self.here

    def is_full(self, rate: Rate) -> bool:
        """Return whether no more is let in."""
        return self.used(rate) >= rate.amount

    def status(self, rate: Rate, *, asking: int = 1) -> LimitStatus:
        """Return what is left after so many more requests."""
        left = max(0, math.ceil(rate.amount - self.used(rate)) - asking)
        return LimitStatus(rate.amount, rate.seconds, left, rate.seconds - self.into)

    def wait_seconds(self, rate: Rate) -> float:
        """Return when one more is let in, if nobody else asks."""
        if self.here >= rate.amount:  # in the next window, once enough of this one has become too old
            wait = 2 * rate.seconds - self.into - rate.amount / self.here * rate.seconds
        else:
            wait = (1 - (rate.amount - self.here) / self.before) * rate.seconds - self.into
        return max(0.0, wait) + MARGIN_SECONDS

    def refusal(self, rate: Rate, whose: str) -> TooManyRequests:
        """Return the error for a request beyond the rate."""
        return too_many(rate, whose, self.wait_seconds(rate))


def too_many(rate: Rate, whose: str, wait: float) -> TooManyRequests:
    """Return the error for a request beyond a rate, which lets one more in after so many seconds."""
    return TooManyRequests(
        f"limit: {rate.amount} requests per {rate.unit} {whose}",
        retry_after=max(wait, 1),
        headers=limit_headers(LimitStatus(rate.amount, rate.seconds, 0, wait), None),
    )
