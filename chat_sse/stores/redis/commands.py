"""What one process says to Redis: which command, on which keys, living how long."""

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import msgspec

from chat_sse.redis_access import Command, evaluate
from chat_sse.stores.base import LogSpec
from chat_sse.stores.redis.scripts import (
    APPEND,
    CLAIM,
    EPOCH,
    IDLE,
    KEEP,
    MARK_READ,
    REGISTER,
    SEAL,
    STOP,
    Keys,
    Sealed,
)

Job: TypeAlias = tuple[Command, Callable[[Any], None] | None]
"""A command of the next round trip, and what to do with its result."""

# A refused question's readers in other processes still learn why.
DISCARDED_MS = 10_000
# After Redis has lost its data: a beat, a broken connection, and a round trip.
RECOVERY_MS = 3_000


class Commands(msgspec.Struct, frozen=True, kw_only=True):
    """Writes commands for the process `producer`. Times to live are in milliseconds."""

    keys: Keys
    producer: str
    ttl_ms: int
    """Of a sealed log and its names."""
    running_ms: int
    """Of a running one: longer than any answer takes, since it goes after this if its producer dies."""

    def create(self, spec: LogSpec) -> list[Command]:
        """Make a log known, then claim its key, so that every claim leads to a log. The claim comes last.

        Without a key, the log is the newest of its chat at once.
        """
        commands = [self.register(spec)]
        if spec.idempotency_key is not None:
            commands.append(self.claim(spec))
        elif spec.chat_id is not None:
            commands.append(self.move_chat(spec))
        return commands

    def register(self, spec: LogSpec) -> Command:
        """Make a log known."""
        meta = self.keys.meta(spec.stream_id)
        return evaluate(REGISTER, (meta,), spec.owner, self.producer, self.running_ms)

    def claim(self, spec: LogSpec, instead_of: bytes = b"") -> Command:
        """Claim the spec's key, also where `instead_of` stands. Returns the value that stands then."""
        return evaluate(
            CLAIM, (self.keys.claim(spec.idempotency_key or ""),), claim_of(spec), self.running_ms, instead_of
        )

    def move_chat(self, spec: LogSpec) -> Command:
        """Make a log the newest of its chat."""
        return ("SET", self.keys.chat(spec.chat_id or ""), spec.stream_id, "PX", self.running_ms)

    def append(
        self, spec: LogSpec, first: int, entries: Sequence[bytes], *, sealed: Sealed, discarded: bool
    ) -> Command:
        """Append entries from number `first` on. `sealed`: what the log is afterwards."""
        keys = (self.keys.log(spec.stream_id), self.keys.meta(spec.stream_id))
        times = self.running_ms, DISCARDED_MS if discarded else self.ttl_ms
        channel, piece = self.keys.news(spec.stream_id), b"\n".join(entries)
        return evaluate(APPEND, keys, first, len(entries), *times, int(sealed), channel, piece)

    def expire_names(self, spec: LogSpec, *, discarded: bool) -> list[Command]:
        """Give a sealed log's names the log's time to live; remove those of a discarded one."""
        ttl_ms, commands = 0 if discarded else self.ttl_ms, list[Command]()
        if discarded:
            meta = self.keys.meta(spec.stream_id)
            commands += [("HSET", meta, "discarded", "1"), ("PEXPIRE", meta, DISCARDED_MS)]
        if spec.idempotency_key is not None:
            commands.append(evaluate(KEEP, (self.keys.claim(spec.idempotency_key),), claim_of(spec), ttl_ms))
        if spec.chat_id is not None:
            commands.append(evaluate(KEEP, (self.keys.chat(spec.chat_id),), spec.stream_id, ttl_ms))
        return commands

    def seal(self, stream_id: str, entry: bytes) -> Command:
        """Seal in a producer's stead. Returns 1 when this did it: see SEAL."""
        keys = (self.keys.log(stream_id), self.keys.meta(stream_id))
        return evaluate(SEAL, keys, entry, self.ttl_ms, self.keys.news(stream_id))

    def stop(self, stream_id: str, producer: str, entry: bytes) -> Command:
        """Ask a producer to seal. Returns 1 for the first who asks: see STOP."""
        message = stream_id.encode() + b" " + entry
        return evaluate(STOP, (self.keys.meta(stream_id),), entry, self.keys.control(producer), message)

    def mark_read(self, stream_id: str, producer: str) -> Command:
        """Say that a log is read here now."""
        return evaluate(MARK_READ, (self.keys.meta(stream_id),), self.keys.control(producer), stream_id)

    def idle(self, stream_id: str) -> Command:
        """Ask when a log was last read elsewhere: see IDLE."""
        return evaluate(IDLE, (self.keys.meta(stream_id),))

    def epoch(self, fresh: str, known: str) -> Command:
        """Ask whether Redis has lost its data, and tell the others: see EPOCH."""
        return evaluate(EPOCH, (self.keys.epoch, self.keys.recovering), fresh, known, RECOVERY_MS)


def claim_of(spec: LogSpec) -> bytes:
    """Write a claim: whose log, for which question."""
    return f"{spec.stream_id}:{spec.fingerprint.hex()}".encode()
