"""Which counts a client's requests and questions add to, and what each count may reach.

A client is a key, a person who has logged in, or else an IPv4 address or an IPv6 /64. Providers give a
customer up to a /48 (RFC 6177), which is 65,536 clients. So the /48 is counted as well, with larger limits.
And no person, address or site may have more than a set share of what everybody has together; keys are the
operator's to limit.
"""

from collections.abc import Iterator
from functools import lru_cache
from ipaddress import IPv6Network
from typing import Generic, TypeVar

import msgspec

from chat_sse.limits.budget import Budget
from chat_sse.limits.rates import Rate

SITE_PREFIX_BITS = 48
# A site's limits, in those of one client: an office or a campus may be behind it.
SITE_FACTOR = 4
KEY_PREFIX = "key:"
EVERYBODY = "everybody"
KNOWN_CLIENTS = 4096

Limit = TypeVar("Limit")
AnyLimit = TypeVar("AnyLimit", Rate, Budget)


class Count(msgspec.Struct, Generic[Limit], frozen=True):
    """One count of a client's, or everybody's."""

    limit: Limit
    name: str
    """Of the count; among those of its kind and period, nobody else's."""
    whose: str
    """How a refusal names it."""


class OwnLimits(msgspec.Struct, frozen=True, kw_only=True):
    """What a client's token limits it to. It lowers this server's limits, and never raises them."""

    rate: Rate | None = None
    budget: Budget | None = None


NO_LIMITS_OF_ITS_OWN = OwnLimits()


class ClientCounts(msgspec.Struct, frozen=True, kw_only=True):
    """What one client's requests and questions are counted in; everybody's are the last of each kind."""

    requests: tuple[Count[Rate], ...]
    """Rates of all that ask, malformed or not."""
    questions: tuple[Count[Rate], ...]
    """Rates of what may cost something."""
    slots: tuple[Count[int], ...]
    budgets: tuple[Count[Budget], ...]


class Plan:
    """The limits of this server. None limits nothing."""

    def __init__(
        self,
        *,
        rate: Rate | None = None,
        rate_total: Rate | None = None,
        streams_per_client: int = 1_000_000,
        streams: int = 1_000_000,
        budget: Budget | None = None,
        budget_total: Budget | None = None,
        share_percent: int = 100,
        least_share_tokens: int = 0,
    ) -> None:
        """`share_percent`: what an address or a site may have of each total, of tokens at least so many."""
        self._rate, self._rate_total = rate, rate_total
        self._rate_share = rate_total.share(share_percent) if rate_total else None
        self._streams_per_client, self._streams = streams_per_client, streams
        share = max(1, streams * share_percent // 100)
        self._streams_share = share if share < streams else None
        self._budget, self._budget_total = budget, budget_total
        self._budget_share = budget_total.share(share_percent, least_share_tokens) if budget_total else None
        self.of = lru_cache(KNOWN_CLIENTS)(self._of)

    def _of(self, client: str, own_limits: OwnLimits = NO_LIMITS_OF_ITS_OWN) -> ClientCounts:
        """Return a client's counts."""
        requests, questions, slots, budgets = [], [], [], []
        for name, whose, factor, has_share in _counted_as(client):
            rates = _least(own_limits.rate, self._rate and self._rate.times(factor))
            requests += [Count(rate, name, f"per {whose}") for rate in rates]
            share = self._rate_share if has_share else None
            if share and not any(
                rate.seconds == share.seconds and rate.amount <= share.amount for rate in rates
            ):
                questions.append(Count(share, f"share of {name}", f"per {whose}"))
            own_streams = factor * self._streams_per_client
            if has_share and self._streams_share:
                own_streams = min(own_streams, self._streams_share)
            slots.append(Count(own_streams, name, f"per {whose}"))
            least = _least(
                own_limits.budget,
                self._budget and self._budget.times(factor),
                self._budget_share if has_share else None,
            )
            budgets += [Count(budget, name, f"per {whose}") for budget in least]
        everybody = EVERYBODY, "for everybody together"
        if self._rate_total:
            questions.append(Count(self._rate_total, *everybody))
        slots.append(Count(self._streams, *everybody))
        if self._budget_total:
            budgets.append(Count(self._budget_total, *everybody))
        return ClientCounts(
            requests=tuple(requests), questions=tuple(questions), slots=tuple(slots), budgets=tuple(budgets)
        )


def _least(*limits: AnyLimit | None) -> list[AnyLimit]:
    """Return those that are set, of several with the same window the smallest."""
    found: dict[str | int, tuple[int, AnyLimit]] = {}
    for limit in limits:
        if limit is not None:
            size, window = msgspec.structs.astuple(limit)
            if window not in found or size < found[window][0]:
                found[window] = size, limit
    return [limit for _, limit in found.values()]


def _counted_as(client: str) -> Iterator[tuple[str, str, int, bool]]:
    """Yield each name a client is counted under, whose it is, times how many limits, and if in shares."""
    is_key = client.startswith(KEY_PREFIX)
    yield client, "client", 1, not is_key
    if site := site_of(client):
        yield site, "IPv6 /48 network", SITE_FACTOR, True


@lru_cache(KNOWN_CLIENTS)
def site_of(client: str) -> str | None:
    """Return the /48 that a client lies in; None for one that is no IPv6 network."""
    if not client.endswith("/64"):
        return None
    try:
        return str(IPv6Network(client).supernet(new_prefix=SITE_PREFIX_BITS))
    except ValueError:  # a name that an application gave
        return None
