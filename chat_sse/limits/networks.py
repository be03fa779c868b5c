"""The site that an IPv6 client lies in.

A client by address is one IPv4 address or one IPv6 /64. Providers give a customer up to a /48 (RFC 6177),
which is 65,536 clients. The memory of arriving bodies is counted by site as well; rates, slots and budgets
are not.
"""

from functools import lru_cache
from ipaddress import IPv6Network

SITE_PREFIX_BITS = 48


@lru_cache(4096)
def site_of(client: str) -> str | None:
    """Return the /48 that a client lies in; None for one that is no IPv6 network."""
    if not client.endswith("/64"):
        return None
    return str(IPv6Network(client).supernet(new_prefix=SITE_PREFIX_BITS))
