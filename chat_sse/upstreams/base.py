"""What an upstream promises to the relay."""

from collections.abc import Sequence
from typing import Protocol, TypeAlias

from chat_sse.events import Delta, Done, Reasoning
from chat_sse.messages import Question

UpstreamEvent: TypeAlias = Delta | Reasoning | Done


class Listener(Protocol):
    """Takes an answer as it comes. Its methods never wait; what they raise ends the answer."""

    def on_model(self, model: str | None) -> None:
        """The model that answers is another than the question's, or None: it is not decided yet.

        Only an upstream with several models calls it: with None first, with a name before `on_accepted`.
        """
        ...

    def on_accepted(self) -> None:
        """Upstream has taken the question, and will be paid. Called once, before anything is heard."""
        ...

    def on_events(self, events: Sequence[UpstreamEvent]) -> None:
        """Upstream has said something: what arrived together, in order, never nothing."""
        ...

    def on_activity(self) -> None:
        """Upstream has sent something that is no event, such as a comment: it is alive."""
        ...

    def on_entry(self, entry: bytes) -> None:
        """Upstream has gone on with one more delta, which is a log's entry already; never the first."""
        ...


class Upstream(Protocol):
    """A language model that can be asked. Nothing is asked of it before `answer` is called."""

    name: str
    """What an operator is told: where answers come from, with no secret in it."""

    models: tuple[str, ...]
    """Names this upstream offers by itself; empty where the operator must name them."""

    async def answer(self, question: Question, listener: Listener) -> None:
        """Ask, in at most one paid call, and have the listener hear the answer.

        Returns after exactly one Done, the last event. Everything else is an UpstreamError, raised after all
        events that came before it; or what the listener has raised. Cancelling it ends the call and frees its
        connection. No deadline but the one on connecting is kept here: the relay owns the others.
        """
        ...

    async def aclose(self) -> None:
        """Close all connections."""
        ...
