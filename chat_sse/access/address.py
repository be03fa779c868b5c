"""Whom a request without a key comes from: the network address that limits count.

`X-Forwarded-For` is written from left to right, each proxy appending the address that it was called from. So
it is read from the right, and only as long as the addresses that wrote it are trusted: what stands further
left is the sender's own invention. Behind a Unix socket the proxy itself has no address; it is trusted by the
name `unix`. A provider hands out whole IPv6 networks, so those count per /64.
"""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import TypeAlias

from starlette.types import Scope

Address: TypeAlias = IPv4Address | IPv6Address
Network: TypeAlias = IPv4Network | IPv6Network

UNKNOWN = "unknown"
# Among the trusted proxies: whoever may open the Unix socket that the service listens on.
UNIX = "unix"
IPV6_PREFIX_BITS = 64
# The same few thousand visitors come again and again; parsing an address takes some microseconds.
REMEMBERED = 4096
# Proxies in a row; and an IPv6 address with a zone. What is longer is no address, and is not remembered.
MAX_HOPS = 32
MAX_ADDRESS_CHARS = 64


class ClientAddresses:
    """Finds the client's address behind the proxies that are trusted."""

    def __init__(self, trusted: Iterable[str] = ()) -> None:
        """`trusted`: addresses, networks in CIDR notation, `UNIX`. Raises ValueError for anything else."""
        names = set(trusted)
        self._trusts_unix = UNIX in names
        self._trusted: Sequence[Network] = [ip_network(text, strict=False) for text in names - {UNIX}]
        self._is_trusted = lru_cache(REMEMBERED)(self._look_up)

    def client_of(self, scope: Scope) -> str:
        """Name the client of a connection: an IPv4 address, or an IPv6 network. Never raises."""
        peer = scope.get("client")
        nearest = peer[0] if peer else UNKNOWN
        if (self._trusted or self._trusts_unix) and self.trusts_peer(scope):
            nearest = self._behind(nearest, scope)
        return counted_as(nearest)

    def trusts_peer(self, scope: Scope) -> bool:
        """Return whether a connection comes straight from a proxy that is trusted."""
        peer = scope.get("client")
        if peer is not None and self._is_trusted(peer[0]):
            return True
        return self._trusts_unix and is_unix_socket(scope)

    def _behind(self, nearest: str, scope: Scope) -> str:
        """Walk from the right to the first address that is not trusted, or that is none."""
        written = [value for name, value in scope["headers"] if name == b"x-forwarded-for"]
        # From the right, so that what a stranger wrote on the left is never even cut up.
        for entry in reversed(b",".join(written).decode("latin-1").rsplit(",", MAX_HOPS)[-MAX_HOPS:]):
            hop = _without_port(entry.strip())
            if len(hop) > MAX_ADDRESS_CHARS or _parse(hop) is None:
                break
            nearest = hop
            if not self._is_trusted(hop):
                break
        return nearest

    def _look_up(self, text: str) -> bool:
        address = _parse(text)
        return address is not None and any(address in network for network in self._trusted)


def is_unix_socket(scope: Scope) -> bool:
    """Return whether a connection came over a Unix socket. A peer without an address may have left instead.

    Source: ASGI, "HTTP Connection Scope": the port of `server` is None for a Unix socket.
    """
    server = scope.get("server")
    return server is not None and server[1] is None


@lru_cache(REMEMBERED)
def counted_as(text: str) -> str:
    """Name what an address counts as; text that is no address counts as one unknown client."""
    address = _parse(text)
    if address is None:
        return UNKNOWN
    if isinstance(address, IPv4Address):
        return str(address)
    network = int(address) >> (128 - IPV6_PREFIX_BITS) << (128 - IPV6_PREFIX_BITS)
    return f"{IPv6Address(network)}/{IPV6_PREFIX_BITS}"


@lru_cache(REMEMBERED)
def _parse(text: str) -> Address | None:
    """Read an address; one that IPv6 only wraps around IPv4 is the IPv4 address. None for other text."""
    try:
        address = ip_address(text)
    except ValueError:
        return None
    return (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address


def _without_port(text: str) -> str:
    """Remove the port that some proxies append: `192.0.2.1:5678`, `[2001:db8::1]:5678`."""
    if text.startswith("["):
        return text[1:].partition("]")[0]
    return text.partition(":")[0] if text.count(":") == 1 else text
