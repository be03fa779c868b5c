"""What Redis does for one log's producer and readers, in memory and on the event loop's clock.

Only as much as outbox, inbox and lease need; the scripts themselves are tested with a real Redis.
"""

import asyncio
import hashlib
from collections.abc import Callable, Sequence
from typing import Any

from chat_sse.errors import StoreUnavailable
from chat_sse.redis_access import Command
from chat_sse.stores.redis import scripts
from chat_sse.stores.redis.commands import Commands
from chat_sse.stores.redis.scripts import Keys

Entries = list[bytes]


def commands_of(producer: str) -> Commands:
    """Return what a process of this name says."""
    return Commands(keys=Keys("p"), producer=producer, ttl_ms=60_000, running_ms=600_000)


class FakeRedis:
    """Logs by their key, leases by theirs, and what was announced."""

    def __init__(self) -> None:
        self.pieces: dict[str, list[tuple[int, Entries]]] = {}
        self.sealed: dict[str, int] = {}
        self.stops: dict[str, bytes] = {}
        self.leases: dict[str, float] = {}  # until when, on the loop's clock
        self.epoch = b"one"
        self.published: list[tuple[str, bytes]] = []
        self.said: list[str] = []  # the names of all commands and scripts, in order
        self.is_away = False
        self._loop = asyncio.get_running_loop()
        self._scripts: dict[str, tuple[str, Callable[..., Any]]] = {
            hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest(): (name, do)
            for name, text, do in (
                ("append", scripts.APPEND, self._append),
                ("seal", scripts.SEAL, self._seal),
                ("epoch", scripts.EPOCH, lambda *_: (self.epoch, 0)),
                ("register", scripts.REGISTER, lambda _log, *_: self.sealed.setdefault(_log[:-5], 0)),
                ("claim", scripts.CLAIM, lambda *_: b""),
                ("keep", scripts.KEEP, lambda *_: 0),
                ("mark_read", scripts.MARK_READ, lambda *_: 1),
            )
        }

    def make(self, stream_id: str) -> str:
        """Make a log known, as its creation does. Returns its name here."""
        log = f"p:{{{stream_id}}}"
        self.sealed[log] = 0
        return log

    def entries(self, stream_id: str) -> Entries:
        """Return all entries of a log."""
        return [entry for _, piece in self.pieces.get(f"p:{{{stream_id}}}", []) for entry in piece]

    def run(self, commands: Sequence[Command]) -> list[Any]:
        """Do what is said, in order. Raises StoreUnavailable while it is away."""
        if self.is_away:
            raise StoreUnavailable("away")
        return [self._do(*command) for command in commands]

    def _do(self, name: Any, *arguments: Any) -> Any:
        if name == "EVALSHA":
            script, do = self._scripts[arguments[0]]
            self.said.append(script)
            return do(*arguments[2:])
        self.said.append(name)
        match name, arguments:
            case "SET", (key, _, "PX", milliseconds):
                self.leases[key] = self._loop.time() + milliseconds / 1000
            case "EXISTS", (key,):
                return int(self.leases.get(key, 0) > self._loop.time())
            case "DEL", (key,):
                self.leases.pop(key, None)
            case "PUBLISH", (channel, message):
                self.published.append((channel, message))
            case "XRANGE", (key, start, "+", "COUNT", count):
                first = int(start.partition("-")[0])
                found = [(last, piece) for last, piece in self.pieces.get(key[:-4], []) if last >= first]
                return [(b"%d-0" % last, [b"e", b"\n".join(piece)]) for last, piece in found[:count]]
        return None

    def _append(self, log: str, _meta: str, first: int, count: int, *more: Any) -> list[Any]:
        _running, _ttl, sealed, channel, text = more
        log = log[:-4]
        there = self.entries(log[3:-1])
        if log not in self.sealed:
            return [b"lost", 0]
        if first > len(there):
            return [b"lost", len(there)]
        rest, known, is_foreign = text, b"\n".join(there[first:]), False
        if known:
            if known == rest or known.startswith(rest + b"\n"):
                rest = b""
            elif rest.startswith(known + b"\n"):
                rest = rest[len(known) + 1 :]
            else:
                is_foreign = True
        if is_foreign or (rest and self.sealed[log]):
            return [b"refused", there[-1]]
        if rest:
            self.pieces.setdefault(log, []).append((first + count, rest.split(b"\n")))
            self.published.append((channel, b""))
        self.sealed[log] = self.sealed[log] or sealed
        return [b"ok", self.stops.get(log, b"")]

    def _seal(self, log: str, _meta: str, entry: bytes, _ttl: int, channel: str) -> int:
        log = log[:-4]
        if log not in self.sealed:
            return -1
        if self.sealed[log]:
            return 0
        self.sealed[log] = 3
        self.pieces.setdefault(log, []).append((len(self.entries(log[3:-1])) + 1, [entry]))
        self.published.append((channel, b""))
        return 1
