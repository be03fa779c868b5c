"""Which clients' rates are known to be full: refused without asking, and only while that is certain."""

import asyncio

import pytest

from chat_sse.errors import TooManyRequests
from chat_sse.limits.full_rates import MAX_KNOWN, FullRates
from chat_sse.limits.plan import NO_LIMITS_OF_ITS_OWN, Count, OwnLimits
from chat_sse.limits.rates import Rate, Seen

MINUTE = (Count(Rate(3, 60), "a", "per client"),)
DAY = (Count(Rate(3, 86_400), "a", "per client"),)
OTHER = OwnLimits(rate=Rate(2, 60))


def noted(rates: tuple[Count[Rate], ...], *seen: Seen, counted: bool = False, client: str = "a") -> FullRates:
    full = FullRates()
    full.note(client, NO_LIMITS_OF_ITS_OWN, rates, seen, counted=counted)
    return full


def wait_of(full: FullRates, client: str = "a", own: OwnLimits = NO_LIMITS_OF_ITS_OWN) -> float | None:
    """Return how long a client is told to wait; None where it is let in."""
    try:
        full.check(client, own)
    except TooManyRequests as refusal:
        return refusal.retry_after
    return None


async def test_a_rate_is_full_until_one_more_is_let_in_and_for_no_other_client() -> None:
    full = noted(MINUTE, Seen(0, 3, 20))
    # At the next window's begin all three still count; one is too old when it has just begun.
    assert wait_of(full) == pytest.approx(40, abs=0.01)
    assert (wait_of(full, "b"), wait_of(full, own=OTHER)) == (None, None)
    await asyncio.sleep(39)
    assert wait_of(full) == pytest.approx(1, abs=0.01)
    await asyncio.sleep(1.01)
    assert wait_of(full) is None
    assert vars(full)["_known"] == {}


async def test_the_request_that_was_just_counted_is_one_of_them() -> None:
    assert wait_of(noted(MINUTE, Seen(0, 2, 20), counted=True)) is not None
    assert wait_of(noted(MINUTE, Seen(0, 2, 20))) is None
    assert wait_of(noted(MINUTE, Seen(0, 1, 20), counted=True)) is None


async def test_the_refusal_is_the_one_that_redis_would_lead_to() -> None:
    state = Seen(4, 2, 20)
    with pytest.raises(TooManyRequests) as raised:
        noted(MINUTE, state).check("a", NO_LIMITS_OF_ITS_OWN)
    told = state.refusal(MINUTE[0].limit, "per client")
    assert (raised.value.details, raised.value.headers) == (told.details, told.headers)
    assert raised.value.retry_after == pytest.approx(told.retry_after or 0)


async def test_it_is_known_for_a_minute_at_most_and_told_in_full() -> None:
    full = noted(DAY, Seen(0, 3, 400))
    assert wait_of(full) == pytest.approx(86_000, abs=0.01)
    await asyncio.sleep(59.9)
    assert wait_of(full) == pytest.approx(86_000 - 59.9, abs=0.01)
    await asyncio.sleep(0.2)
    assert wait_of(full) is None


async def test_any_of_a_clients_rates_can_be_full() -> None:
    assert wait_of(noted((*DAY, *MINUTE), Seen(0, 1, 400), Seen(0, 3, 20))) == pytest.approx(40, abs=0.01)
    assert wait_of(noted((*DAY, *MINUTE), Seen(0, 1, 400), Seen(0, 2, 20))) is None


async def test_of_more_clients_than_there_is_room_for_the_first_one_is_forgotten() -> None:
    full = FullRates()
    for number in range(MAX_KNOWN + 1):
        full.note(str(number), NO_LIMITS_OF_ITS_OWN, MINUTE, [Seen(0, 3, 20)], counted=False)
    known = [client for client in ("0", "1", str(MAX_KNOWN)) if wait_of(full, client) is not None]
    assert known == ["1", str(MAX_KNOWN)]
    assert len(vars(full)["_known"]) == MAX_KNOWN
