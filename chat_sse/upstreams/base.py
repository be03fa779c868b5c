"""What an upstream promises to the relay."""

from collections.abc import Sequence
from typing import Protocol, TypeAlias

from chat_sse.events import Delta, Done, Reasoning
from chat_sse.messages import Question

UpstreamEvent: TypeAlias = Delta | Reasoning | Done


class Listener(Protocol):
    """Receives an answer as it arrives. Its methods never wait; what they raise ends the answer."""

    def on_model(self, model: str | None) -> None:
        """The model that answers is another than the question's, or None: it is not decided yet.

        Only an upstream with several models calls it: with None first, with a name before `on_accepted`.
        """
        ...

    def on_accepted(self) -> None:
        """Upstream has accepted the question, and will be paid. Called once, before any event."""
        ...

    def on_events(self, events: Sequence[UpstreamEvent]) -> None:
        """Called with the events that arrived together, in order; never with none."""
        ...

    def on_activity(self) -> None:
        """Upstream has sent something that is no event, such as a comment: it is alive."""
        ...

    def on_entry(self, entry: bytes) -> None:
        """Called with one more delta, already encoded as a log's entry; never the first."""
        ...


class Upstream(Protocol):
    """A language model that can be asked. Nothing is asked of it before `answer` is called."""

    name: str
    """Where answers come from, for the operator; holds no secret."""

    models: tuple[str, ...]
    """Names this upstream offers by itself; empty where the operator must name them."""

    async def answer(self, question: Question, listener: Listener) -> None:
        """Ask, in at most one paid call. The listener gets the answer.

        Returns after exactly one Done, the last event. Everything else is an UpstreamError, raised after all
        events that came before it; or what the listener has raised. Cancelling it ends the call and frees its
        connection. No deadline but the one on connecting is kept here: the relay owns the others.
        """
        ...

    async def aclose(self) -> None:
        """Close all connections."""
        ...
