"""How much memory the bodies that are arriving may take: of one client, and in all.

A client can send slowly and has many connections, so sizes and rates alone bound too little.
"""

from collections import Counter
from typing import Self

from chat_sse.errors import Overloaded, TooManyRequests
from chat_sse.limits.plan import site_of

TOTAL_BYTES = 64 * 1_048_576
# A client's and a site's part of it.
CLIENT_SHARE = 8
SITE_SHARE = 4
# Of each body so much is not counted: a question of some pages is taken even while large ones fill the rest.
FREE_BYTES = 16_384
RETRY_SECONDS = 2.0


class BodyMemory:
    """Counts the bytes of bodies in this process."""

    def __init__(self, max_body_bytes: int) -> None:
        """`max_body_bytes`: of one body. Each client has room for one at least."""
        self._total = max(TOTAL_BYTES, CLIENT_SHARE * max_body_bytes)
        self._held: Counter[str] = Counter()

    @property
    def held(self) -> int:
        """How many bytes are counted now."""
        return self._held[""]

    def body(self, client: str) -> "Body":
        """Return an empty body. Its bytes are held and counted until its block ends, so decode it inside."""
        return Body(self, client)

    def count(self, client: str, more: int) -> None:
        """Count more bytes of a body. Raises TooManyRequests for its client's share, Overloaded for all."""
        for name, share in _shares(client):
            if self._held[name] + more > self._total // share:
                if not name:
                    raise Overloaded("too many large requests are arriving", retry_after=RETRY_SECONDS)
                raise TooManyRequests(
                    f"limit: {self._total // share} bytes of requests at once per client",
                    retry_after=RETRY_SECONDS,
                )
        self._add(client, more)

    def release(self, client: str, counted: int) -> None:
        """Count the bytes of a body no more."""
        self._add(client, -counted)

    def _add(self, client: str, more: int) -> None:
        for name, _ in _shares(client):
            self._held[name] += more
            if not self._held[name]:
                del self._held[name]


def _shares(client: str) -> tuple[tuple[str, int], ...]:
    """Return under which names a body is counted, and what part of all each may have."""
    site = site_of(client)
    sites = () if site is None else ((site, SITE_SHARE),)
    return ((client, CLIENT_SHARE), *sites, ("", 1))


class Body:
    """A body while it arrives. A context manager, which releases it at its end."""

    __slots__ = ("_client", "_counted", "_memory", "content")

    def __init__(self, memory: BodyMemory, client: str) -> None:
        self._memory = memory
        self._client = client
        self._counted = 0
        self.content = bytearray()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.content.clear()
        if self._counted:
            self._memory.release(self._client, self._counted)

    def add(self, part: bytes) -> None:
        """Append what has arrived. Raises what `BodyMemory.count` raises."""
        more = len(self.content) + len(part) - FREE_BYTES - self._counted
        if more > 0:
            self._memory.count(self._client, more)
            self._counted += more
        self.content += part
