"""Counting an IPv6 client once more with its whole site.

A client by address is one IPv4 address or one IPv6 /64. Providers give a customer up to a /48 (RFC 6177),
which is 65,536 clients. So limits also count the /48, as a client of its own with larger limits.
"""

from functools import lru_cache
from ipaddress import IPv6Network

SITE_PREFIX_BITS = 48
# A site's limits, in those of one client: an office or a campus may be behind it.
SITE_FACTOR = 4


@lru_cache(4096)
def site_of(client: str) -> str | None:
    """Return the /48 that a client lies in; None for one that is no IPv6 network."""
    if not client.endswith("/64"):
        return None
    return str(IPv6Network(client).supernet(new_prefix=SITE_PREFIX_BITS))
