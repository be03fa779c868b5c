"""For whom a request is counted: for its client, and an IPv6 client once more with its whole site.

A client is a key, or without one an IPv4 address or an IPv6 /64. Providers give a customer up to a /48 (RFC
6177), which is 65,536 clients. So the /48 is counted as well, with larger limits. And neither an address nor
a site may have more than a set share of what everybody has together; keys are the operator's to limit.
"""

from enum import Enum, auto
from functools import lru_cache
from ipaddress import IPv6Network
from typing import TypeAlias, TypeVar

SITE_PREFIX_BITS = 48
# A site's limits, in those of one client: an office or a campus may be behind it.
SITE_FACTOR = 4
KEY_PREFIX = "key:"

Period = TypeVar("Period")


class Scope(Enum):
    """Whose requests one count adds up."""

    KEY = auto()
    ADDRESS = auto()
    SITE = auto()

    @property
    def whose(self) -> str:
        """How a refusal names it."""
        return "per IPv6 /48 network" if self is Scope.SITE else "per client"


Amounts: TypeAlias = dict[Scope, list[tuple[int, Period]]]


@lru_cache(4096)
def scopes_of(client: str) -> tuple[tuple[Scope, str], ...]:
    """Return what a client's requests are counted for, with the names of the counts."""
    if client.startswith(KEY_PREFIX):
        return ((Scope.KEY, client),)
    site = site_of(client)
    own = (Scope.ADDRESS, client)
    return (own,) if site is None else (own, (Scope.SITE, site))


@lru_cache(4096)
def site_of(client: str) -> str | None:
    """Return the /48 that a client lies in; None for one that is no IPv6 network."""
    if not client.endswith("/64"):
        return None
    return str(IPv6Network(client).supernet(new_prefix=SITE_PREFIX_BITS))


def amounts(own: tuple[int, Period] | None, most: tuple[int, Period] | None) -> Amounts[Period]:
    """Return the limits of each scope, as an amount in a period.

    `own`: a client's. `most`: what an address or a site may have of everybody's. None limits nothing.
    """
    site = None if own is None else (SITE_FACTOR * own[0], own[1])
    return {
        Scope.KEY: [] if own is None else [own],
        Scope.ADDRESS: _both(own, most),
        Scope.SITE: _both(site, most),
    }


def _both(own: tuple[int, Period] | None, most: tuple[int, Period] | None) -> list[tuple[int, Period]]:
    """Return what has to be counted for both limits to hold: of the same period, the smaller one."""
    if own is not None and most is not None and own[1] == most[1]:
        return [min(own, most, key=lambda limit: limit[0])]
    return [limit for limit in (own, most) if limit is not None]
