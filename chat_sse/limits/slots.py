"""How many answers may run at once: of one client, and in all.

A slot is held from before upstream is asked until its call has ended, however it ended.
"""

from typing import Protocol

from chat_sse.errors import Overloaded, TooManyStreams

# Nobody knows when an answer ends; this is what one of a few sentences takes.
RETRY_SECONDS = 5.0


class Slots(Protocol):
    """Counts the running answers."""

    async def take(self, client: str, stream_id: str) -> None:
        """Hold a slot. Raises TooManyStreams, Overloaded when all are taken, and StoreUnavailable."""
        ...

    def free(self, client: str, stream_id: str) -> None:
        """Return a slot back. Never waits and never raises."""
        ...


def too_many_streams(limit: int) -> TooManyStreams:
    """Write one client's refusal."""
    return TooManyStreams(f"limit: {limit} answers at once per client", retry_after=RETRY_SECONDS)


def all_taken(limit: int) -> Overloaded:
    """Write everybody's refusal."""
    return Overloaded(f"all {limit} answers at once are running", retry_after=RETRY_SECONDS)


class MemorySlots:
    """Slots of one process."""

    def __init__(self, per_client: int, total: int) -> None:
        self._per_client = per_client
        self._total = total
        self._taken = 0
        self._by_client: dict[str, int] = {}

    async def take(self, client: str, stream_id: str) -> None:  # noqa: ARG002 - what is shared needs names
        """Take, as `Slots.take` promises."""
        held = self._by_client.get(client, 0)
        if held >= self._per_client:
            raise too_many_streams(self._per_client)
        if self._taken >= self._total:
            raise all_taken(self._total)
        self._taken += 1
        self._by_client[client] = held + 1

    def free(self, client: str, stream_id: str) -> None:  # noqa: ARG002
        """Free, as `Slots.free` promises."""
        self._taken -= 1
        held = self._by_client[client] - 1
        if held:
            self._by_client[client] = held
        else:
            del self._by_client[client]
