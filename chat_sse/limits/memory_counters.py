"""Where the package `limits` keeps the counters of one process: its own storage, without its housekeeping.

`limits` does the arithmetic of the windows. Its storage in memory, though, starts a task at most hits that
walks all counters, and knows no bound. Here they lie in two dictionaries, of which the older is dropped as a
whole, so that nothing is ever swept.
"""

import time

from limits.aio.storage import MemoryStorage

# A client has two, that of the window before and the current one. All of them take some 20 MB. More come
# about only from as many addresses: who has those has their rates too, and is held by the one for everybody.
MAX_COUNTERS = 100_000


class MemoryCounters(MemoryStorage):
    """The counters of one rate, for the sliding window counter alone.

    Their names tell their window, so that none is asked for after its time, and all live equally long. No
    method waits for anything: a hit is one step for all tasks.
    """

    STORAGE_SCHEME = None  # type: ignore[assignment]  # not to be found by a URL

    def __init__(self) -> None:
        super().__init__()
        self._young: dict[str, int] = {}
        self._old: dict[str, int] = {}
        self._ages_at = 0.0

    def __len__(self) -> int:
        """How many there are."""
        return len(self._young) + len(self._old)

    async def get(self, key: str) -> int:
        """Read a counter; 0 when there is none."""
        return self._young.get(key) or self._old.get(key, 0)

    async def incr(self, key: str, expiry: float, amount: int = 1) -> int:
        """Add to a counter; it is kept for `expiry` seconds at least, unless there are too many."""
        count = self._young.get(key)
        if count is None:
            count = self._old.get(key, 0)
            now = time.monotonic()
            if now >= self._ages_at or len(self._young) >= MAX_COUNTERS // 2:
                self._old, self._young = self._young, {}
                self._ages_at = now + expiry
        self._young[key] = count = count + amount
        return count
