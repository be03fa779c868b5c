"""What the model of a log knows: what was appended, who reads it, and where that may be asked again."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

import msgspec

from chat_sse.errors import StoreUnavailable, StreamNotFound
from chat_sse.events import Delta, is_terminal
from chat_sse.stores.base import PRODUCER_GONE, Log, LogSpec
from tests.support.service import until
from tests.support.site import Process, Site

T = TypeVar("T")

encode = msgspec.json.Encoder().encode


class Answer:
    """A log as the model knows it."""

    def __init__(self, spec: LogSpec, home: Process, log: Log) -> None:
        self.spec, self.home, self.log = spec, home, log
        self.entries: list[bytes] = []
        """What the producer could append, but for the end."""
        self.end: bytes | None = None
        """The terminal entry, once it is known."""
        self.possible_ends: list[bytes] = []
        """Of a shaken one: what its producer took, and others may have overruled."""
        self.told = 0
        """How often the producer was told of a stop."""
        self.is_shaken = False
        """Whether its producer was, or may be, taken for dead: others may have ended it, with less of it."""
        self.is_crashed = False
        self.is_gone = False
        self.readers: list[Reader] = []

    def check(self, found: Sequence[bytes], after: int = -1, *, to_the_end: bool = False) -> None:
        """Hold what somebody has read after a cursor to what was appended."""
        last = found[-1] if found and is_terminal(found[-1]) else None
        body = list(found if last is None else found[:-1])
        first = after + 1
        assert body == self.entries[first : first + len(body)]
        if last is not None:
            if self.end is None:
                assert self.is_shaken
                assert PRODUCER_GONE.encode() in last or last in self.possible_ends
                self.end = last
            assert last == self.end
        if to_the_end and not self.is_shaken:
            whole = [*self.entries, self.end]
            assert list(found) == whole[first:]


class Reader:
    """Somebody who reads a log, as a task of a process, and who comes back after a break. A subscriber."""

    def __init__(self, answer: Answer, where: Process, after: int, refuses: int, lag: float) -> None:
        self.answer, self.where, self.after = answer, where, after
        self.found: list[bytes] = []
        self._refuses, self._lag, self._offered = refuses, lag, 0
        self.has_opened = self.is_over = self.was_lost = False
        self.task = where.call(
            lambda: asyncio.create_task(self._read(), name=f"reader {answer.spec.stream_id}")
        )

    async def _read(self) -> None:
        try:
            await self._follow()
        except StreamNotFound:
            self.was_lost = True
        finally:
            self.is_over = True

    async def _follow(self) -> None:
        has_ended = False
        while not has_ended:
            try:
                log = await self.where.store.open(self.answer.spec.stream_id)
                self.has_opened = True
                with log.reading():
                    while entries := await log.read(self.after + len(self.found), self):
                        self.found += entries
                        await asyncio.sleep(self._lag)
                has_ended = True
            except StoreUnavailable:
                await asyncio.sleep(0.1)

    def deliver(self, entries: Sequence[bytes]) -> bool:
        self._offered += 1
        if self._refuses and self._offered % self._refuses == 0:
            return False
        self.found += entries
        return True

    def deliver_entry(self, entry: bytes) -> bool:
        return self.deliver([entry])

    def leave(self) -> None:
        self.where.call(self.task.cancel)
        until(lambda: self.is_over)

    def wait(self) -> None:
        """Wait for the end, and check all of it."""
        until(lambda: self.is_over)
        if self.was_lost:
            assert self.answer.is_gone
            self.answer.check(self.found, self.after)
        elif not self.task.cancelled():
            self.task.result()
            self.answer.check(self.found, self.after, to_the_end=True)


def in_ascii(delta: Delta) -> bytes:
    return json.dumps({"type": "delta", "content": delta.content}, separators=(",", ":")).encode()


def patiently(attempt: Callable[[], T], seconds: float = 15.0) -> T:
    """Return the result of what is tried until the log can be reached."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return attempt()
        except StoreUnavailable:
            assert time.monotonic() < deadline
            time.sleep(0.02)


class Sites:
    """One site for all examples, until one has failed and left it in whatever state."""

    def __init__(self, start: Callable[[], Site]) -> None:
        self._start = start
        self._site: Site | None = None
        self._is_whole = True

    def take(self) -> Site:
        if self._site is None or not self._is_whole:
            self._site = self._start()
        self._is_whole = False
        return self._site

    def give_back(self) -> None:
        self._is_whole = True

    def close(self) -> None:
        if self._site is not None and self._is_whole:
            self._site.close()
