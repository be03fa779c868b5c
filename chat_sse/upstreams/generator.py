"""Any async generator as an upstream: an agent, a local model, a pipeline of an application's own."""

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import TypeAlias

from chat_sse.events import Delta, Done, Reasoning
from chat_sse.messages import Question
from chat_sse.upstreams.base import Listener, UpstreamEvent

Generate: TypeAlias = Callable[[Question], AsyncGenerator[str | UpstreamEvent, None]]
"""Yields an answer: its text in pieces, or events.

An empty text is no piece, but a sign of life, for as long as a tool runs. An answer whose generator ends
without a Done has ended with "stop". A ChatError that it raises is what readers are told; any other exception
is an InternalError to them, and a traceback without its message in the log. A stop closes it.
"""


class GeneratorUpstream:
    """An upstream that asks a generator."""

    def __init__(self, generate: Generate, *, name: str = "the application", models: tuple[str, ...]) -> None:
        """`models`: the names by which it can be asked, the default first."""
        self._generate = generate
        self.name = name
        self.models = models

    async def answer(self, question: Question, listener: Listener) -> None:
        """Ask, as `Upstream.answer` promises. The question counts as accepted with the first piece."""
        is_accepted = False
        async with aclosing(self._generate(question)) as pieces:
            async for piece in pieces:
                if not is_accepted:
                    listener.on_accepted()
                    is_accepted = True
                event = Delta(piece) if isinstance(piece, str) else piece
                if isinstance(event, (Delta, Reasoning)) and not event.content:
                    listener.on_activity()
                    continue
                listener.on_events([event])
                if isinstance(event, Done):
                    return
        if not is_accepted:
            listener.on_accepted()
        listener.on_events([Done(finish_reason="stop")])

    async def aclose(self) -> None:
        """Nothing is held: what the generator needs is its application's."""
