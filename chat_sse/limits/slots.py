"""How many answers may run at once: of one client, and in all.

A slot is held from before upstream is asked until its call has ended, however it ended.
"""

from collections import Counter
from typing import Protocol

from chat_sse.errors import Overloaded, TooManyStreams
from chat_sse.limits.scopes import Scope, amounts, scopes_of

# Nobody knows when an answer ends; this is what one of a few sentences takes.
RETRY_SECONDS = 5.0


class Slots(Protocol):
    """Counts the running answers."""

    async def take(self, client: str, stream_id: str) -> None:
        """Hold a slot. Raises TooManyStreams, Overloaded when all are taken, and StoreUnavailable."""
        ...

    def free(self, client: str, stream_id: str) -> None:
        """Release a slot. Never waits and never raises."""
        ...


def too_many_streams(limit: int, whose: str) -> TooManyStreams:
    """Return the refusal for a client or its site."""
    return TooManyStreams(f"limit: {limit} answers at once {whose}", retry_after=RETRY_SECONDS)


def all_taken(limit: int) -> Overloaded:
    """Return everybody's refusal."""
    return Overloaded(f"all {limit} answers at once are running", retry_after=RETRY_SECONDS)


def slots_by_scope(per_client: int, most: int | None) -> dict[Scope, int]:
    """Return how many slots each scope has. `most`: what an address or a site may have of all."""
    limits = amounts((per_client, None), None if most is None else (most, None))
    return {scope: limit for scope, [(limit, _)] in limits.items()}


def share_of_slots(total: int, percent: int) -> int | None:
    """Return a part of all slots, of one at least. None where that is no part."""
    part = max(1, total * percent // 100)
    return part if part < total else None


class MemorySlots:
    """Slots of one process."""

    def __init__(self, per_client: int, total: int, *, most: int | None = None) -> None:
        """`most`: what an address or a site may have of the total."""
        self._limits = slots_by_scope(per_client, most)
        self._total = total
        self._taken = 0
        self._by_name: Counter[str] = Counter()

    async def take(self, client: str, stream_id: str) -> None:  # noqa: ARG002 - what is shared needs names
        """Take, as `Slots.take` promises."""
        scopes = scopes_of(client)
        for scope, name in scopes:
            if self._by_name[name] >= self._limits[scope]:
                raise too_many_streams(self._limits[scope], scope.whose)
        if self._taken >= self._total:
            raise all_taken(self._total)
        self._taken += 1
        self._by_name.update(name for _, name in scopes)

    def free(self, client: str, stream_id: str) -> None:  # noqa: ARG002
        """Free, as `Slots.free` promises."""
        self._taken -= 1
        for _, name in scopes_of(client):
            self._by_name[name] -= 1
            if not self._by_name[name]:
                del self._by_name[name]
