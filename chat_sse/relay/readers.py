"""The readers in this process, and the grace that begins when the last one of an answer leaves."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext

from chat_sse.stores.base import Log, Store

# An answer's first reader may need a moment: a 202 has to travel to the caller, and its request back.
FIRST_READER_SECONDS = 10.0
# How often an answer that is read only in other processes is checked, at most.
RECHECK_SECONDS = 1.0


class Readers:
    """Counts readers. Calls `on_orphaned` when nobody has read the log in any process for the grace."""

    __slots__ = (
        "_check",
        "_count",
        "_grace",
        "_kept_until",
        "_log",
        "_loop",
        "_on_orphaned",
        "_store",
        "_timer",
        "resumes",
        "total",
    )

    def __init__(
        self, log: Log, store: Store, grace_seconds: float, on_orphaned: Callable[[], object]
    ) -> None:
        self._log, self._store, self._grace = log, store, grace_seconds
        self._on_orphaned: Callable[[], object] | None = on_orphaned  # until `close`
        self._loop = asyncio.get_running_loop()
        self._count = self.total = self.resumes = 0
        self._kept_until = 0.0  # on the loop's clock: the grace of the last reader that could come back
        self._timer: asyncio.TimerHandle | None = None
        self._check: asyncio.Task[None] | None = None

    @contextmanager
    def reading(self, *, resumes: bool, resumable: bool) -> Iterator[None]:
        """Count a reader. `resumable`: whether it could come back; if not, it leaves without a grace."""
        self._count += 1
        self.total += 1
        self.resumes += resumes
        if self._timer:
            self._timer.cancel()
            self._timer = None
        try:
            yield
        finally:
            self._count -= 1
            if resumable:
                self._kept_until = self._loop.time() + self._grace
            self._start_grace(self._kept_until - self._loop.time())

    def expect_first(self) -> None:
        """Start the grace for the first reader, after the question was accepted."""
        self._start_grace(max(self._grace, FIRST_READER_SECONDS))

    def close(self) -> None:
        """Stop watching: the answer has ended."""
        self._on_orphaned = None  # it refers to the answer, which refers to this
        if self._timer:
            self._timer.cancel()
        if self._check:
            self._check.cancel()
            self._check = None  # its traceback refers to this

    def _start_grace(self, seconds: float) -> None:
        if self._count == 0 and self._on_orphaned is not None and not self._log.sealed:
            if self._timer:
                self._timer.cancel()
            self._timer = self._loop.call_later(seconds, self._begin_check)

    def _begin_check(self) -> None:
        self._check = asyncio.create_task(self._check_elsewhere(), name=f"orphan {self._log.id}")

    async def _check_elsewhere(self) -> None:
        """Report an orphan, unless the log was read in another process during the grace; then wait again."""
        idle = await self._store.idle_elsewhere(self._log)
        if idle <= self._grace:
            self._start_grace(max(self._grace - idle, RECHECK_SECONDS))
        elif self._count == 0 and self._on_orphaned is not None:
            self._on_orphaned()


class AllReaders:
    """Counts the readers in this process, of all answers."""

    def __init__(self, on_left: Callable[[], object]) -> None:
        """`on_left`: called when one has left."""
        self.count = 0
        self.remote = 0  # those of answers that no pump of this process produces
        self.resumes = 0
        self._on_left = on_left

    @contextmanager
    def reading(self, own: Readers | None, *, resumes: bool, resumable: bool) -> Iterator[None]:
        """Count a reader, here and among those of the answer if it is produced in this process."""
        self.count += 1
        self.remote += own is None
        self.resumes += resumes
        try:
            with nullcontext() if own is None else own.reading(resumes=resumes, resumable=resumable):
                yield
        finally:
            self.count -= 1
            self.remote -= own is None
            self._on_left()
