"""What one process says to Redis: which command, on which keys, living how long."""

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import msgspec

from chat_sse.stores.base import LogSpec
from chat_sse.stores.redis.scripts import (
    APPEND,
    CLAIM,
    KEEP,
    SEAL,
    STOP,
    Command,
    chat_key,
    claim_key,
    control_channel,
    evaluate,
    log_key,
    meta_key,
    news_channel,
    read_key,
)

Job: TypeAlias = tuple[Command, Callable[[Any], None] | None]
"""A command of the next round trip, and what to do with its result."""

# A refused question's readers in other processes still learn why.
DISCARDED_MS = 10_000
# How far back it is known when a log was last read elsewhere; a longer grace ends after this.
READ_MS = 3_600_000


class Commands(msgspec.Struct, frozen=True, kw_only=True):
    """Writes commands for the process `producer`. Times to live are in milliseconds."""

    producer: str
    ttl_ms: int
    """Of a sealed log and its names."""
    running_ms: int
    """Of a running one: longer than any answer takes, since it goes after this if its producer dies."""

    def register(self, spec: LogSpec) -> list[Command]:
        """Make a log known."""
        meta = meta_key(spec.stream_id)
        fields = ("owner", spec.owner, "producer", self.producer, "sealed", "0")
        return [("HSET", meta, *fields), ("PEXPIRE", meta, self.running_ms)]

    def claim(self, spec: LogSpec, instead_of: bytes = b"") -> Command:
        """Claim the spec's key, also where `instead_of` stands. Gives the value that stands then."""
        return evaluate(
            CLAIM, (claim_key(spec.idempotency_key or ""),), claim_of(spec), self.running_ms, instead_of
        )

    def label(self, spec: LogSpec) -> Command:
        """Move the spec's label to its log."""
        return ("SET", chat_key(spec.chat_id or ""), spec.stream_id, "PX", self.running_ms)

    def append(
        self, spec: LogSpec, first: int, entries: Sequence[bytes], *, sealed: int, discarded: bool
    ) -> Command:
        """Append entries from number `first` on. `sealed`: see APPEND."""
        keys, channel = (
            (log_key(spec.stream_id), meta_key(spec.stream_id)),
            news_channel(spec.stream_id),
        )
        kept_ms = DISCARDED_MS if discarded else self.ttl_ms
        return evaluate(APPEND, keys, first, self.running_ms, kept_ms, sealed, channel, *entries)

    def expire_names(self, spec: LogSpec, *, discarded: bool) -> list[Command]:
        """Let a sealed log's names live as long as the log, or, of a discarded one, end."""
        ttl_ms, commands = 0 if discarded else self.ttl_ms, list[Command]()
        if discarded:
            meta = meta_key(spec.stream_id)
            commands += [("HSET", meta, "discarded", "1"), ("PEXPIRE", meta, DISCARDED_MS)]
        if spec.idempotency_key is not None:
            commands.append(evaluate(KEEP, (claim_key(spec.idempotency_key),), claim_of(spec), ttl_ms))
        if spec.chat_id is not None:
            commands.append(evaluate(KEEP, (chat_key(spec.chat_id),), spec.stream_id, ttl_ms))
        return commands

    def seal(self, stream_id: str, entry: bytes) -> Command:
        """Seal in a producer's stead. Gives 1 when this did it: see SEAL."""
        keys = (log_key(stream_id), meta_key(stream_id))
        return evaluate(SEAL, keys, entry, self.ttl_ms, news_channel(stream_id))

    def stop(self, stream_id: str, producer: str, entry: bytes) -> Command:
        """Ask a producer to seal. Gives 1 for the first who asks: see STOP."""
        message = stream_id.encode() + b" " + entry
        return evaluate(STOP, (meta_key(stream_id),), entry, control_channel(producer), message)

    def mark_read(self, stream_id: str) -> Command:
        """Say that a log is read here now."""
        return ("SET", read_key(stream_id), "", "PX", READ_MS)


def claim_of(spec: LogSpec) -> bytes:
    """Write a claim: whose log, for which question."""
    return f"{spec.stream_id}:{spec.fingerprint.hex()}".encode()
