"""How much memory the bodies that are arriving may take: of one client, and in all.

A client can send slowly and has many connections, so sizes and rates alone bound too little.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from chat_sse.errors import Overloaded, TooManyRequests
from chat_sse.limits.scopes import site_of

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

    @contextmanager
    def body(self, client: str) -> Iterator["Body"]:
        """Yield an empty body. Its bytes are held and counted until the block ends, so decode it inside."""
        body = Body(self, client)
        try:
            yield body
        finally:
            body.content.clear()
            for name, _ in body.shares:
                self._held[name] -= body.counted
                if not self._held[name]:
                    del self._held[name]

    def count(self, body: "Body", more: int) -> None:
        """Count more bytes of a body. Raises TooManyRequests for its client's share, Overloaded for all."""
        for name, share in body.shares:
            if self._held[name] + more > self._total // share:
                if not name:
                    raise Overloaded("too many large requests are arriving", retry_after=RETRY_SECONDS)
                raise TooManyRequests(
                    f"limit: {self._total // share} bytes of requests at once per client",
                    retry_after=RETRY_SECONDS,
                )
        for name, _ in body.shares:
            self._held[name] += more
        body.counted += more


class Body:
    """A body while it arrives."""

    def __init__(self, memory: BodyMemory, client: str) -> None:
        self._memory = memory
        site = site_of(client)
        sites = () if site is None else ((site, SITE_SHARE),)
        self.shares = ((client, CLIENT_SHARE), *sites, ("", 1))
        self.counted = 0
        self.content = bytearray()

    def add(self, part: bytes) -> None:
        """Append what has arrived. Raises what `BodyMemory.count` raises."""
        more = len(self.content) + len(part) - FREE_BYTES - self.counted
        if more > 0:
            self._memory.count(self, more)
        self.content += part
