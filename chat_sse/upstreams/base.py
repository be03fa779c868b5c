"""What an upstream promises to the relay."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from typing import Protocol, TypeAlias

from chat_sse.events import Delta, Done, Reasoning
from chat_sse.messages import Question

UpstreamEvent: TypeAlias = Delta | Reasoning | Done


class Upstream(Protocol):
    """A language model that can be asked.

    `open` makes at most one paid call. Entering it returns once upstream has accepted the question.
    Its iterator yields lists of events, in upstream's order; a list holds what arrived together. It ends
    after exactly one Done, the last event; everything else is an UpstreamError, raised after all events
    that came before it. Leaving the context, by cancellation too, ends the call and frees its connection.
    No deadline but the one on connecting is kept here: the relay owns the others.
    """

    name: str
    """What an operator is told: where answers come from, with no secret in it."""

    models: tuple[str, ...]
    """Names this upstream offers by itself; empty where the operator must name them."""

    def open(self, question: Question) -> AbstractAsyncContextManager[AsyncIterator[list[UpstreamEvent]]]:
        """Ask. Raises UpstreamError while entering (nothing accepted) or while iterating."""
        ...

    async def aclose(self) -> None:
        """Close all connections."""
        ...
