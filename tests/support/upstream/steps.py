"""The steps of an answer: what a test tells the upstream to do."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from tests.support.upstream.bodies import error_body
from tests.support.upstream.constants import DEFAULT_USAGE, EVENT_STREAM

if TYPE_CHECKING:
    from tests.support.upstream.answer import Answer


class Step(msgspec.Struct, frozen=True):
    """One thing that an answer does; a test may add its own."""

    async def play(self, answer: Answer) -> None:
        raise NotImplementedError

    @property
    def refuses(self) -> bool:
        """Whether this makes the call an HTTP error, which OpenAI does not charge for."""
        return False


class Ending(Step, frozen=True):
    """A step after which the body says no more; each script has one."""


class Accept(Step, frozen=True):
    """Send the response head now; without it the first step that sends a body does.

    Also how to lie in the head: `Accept(content_type="text/html")`.
    """

    status: int = 200
    content_type: str = EVENT_STREAM
    headers: Mapping[str, str] = msgspec.field(default_factory=dict)

    async def play(self, answer: Answer) -> None:
        await answer.head(self.status, self.content_type, self.headers)

    @property
    def refuses(self) -> bool:
        return self.status >= 400


class Say(Step, frozen=True):
    """One chunk with this much of the answer. The first is preceded by the chunk that tells the role."""

    text: str

    async def play(self, answer: Answer) -> None:
        await answer.delta({"content": self.text})


class Reason(Step, frozen=True):
    """One chunk of the model's thinking, as vLLM, DeepSeek and llama.cpp send it."""

    text: str
    field: str = "reasoning_content"

    async def play(self, answer: Answer) -> None:
        await answer.delta({self.field: self.text})


class Chunk(Step, frozen=True):
    """One event with this JSON as it is: a tool call, a filter result, `{"error": {…}}`, nonsense."""

    data: Any

    async def play(self, answer: Answer) -> None:
        await answer.event(self.data)


class Raw(Step, frozen=True):
    """These bytes of the body: a comment, half an event, no UTF-8."""

    data: bytes

    async def play(self, answer: Answer) -> None:
        await answer.body(self.data)


class Wire(Step, frozen=True):
    """These bytes on the connection itself: a head of one's own, chunks that are none.

    Before a head and a body of this kind no other step can send one; after them `Cut` or `Silence` ends.
    """

    data: bytes

    async def play(self, answer: Answer) -> None:
        await answer.connection.write(self.data)


class Finish(Ending, frozen=True):
    """End well: the finish reason, the usage, `[DONE]`, the end of the body; the connection stays open.

    As with OpenAI, usage is a chunk of its own with no choices, and comes only to a request that set
    `stream_options.include_usage`.
    """

    reason: str | None = "stop"
    usage: Mapping[str, Any] | None = msgspec.field(default_factory=lambda: DEFAULT_USAGE)
    done: bool = True

    async def play(self, answer: Answer) -> None:
        await answer.delta({}, finish_reason=self.reason)
        if self.usage is not None and answer.call.wants_usage:
            await answer.usage(self.usage)
        if self.done:
            await answer.body(b"data: [DONE]\n\n")
        await answer.end()


class Eof(Ending, frozen=True):
    """End the body as HTTP wants it, with nothing more said; the connection stays open."""

    async def play(self, answer: Answer) -> None:
        await answer.end()


class Refuse(Ending, frozen=True):
    """Send an HTTP error instead of an answer, with OpenAI's error JSON unless a body is given.

    The default 401 quotes the whole key, where OpenAI masks its middle, so that whoever passes the text on
    is found out.
    """

    status: int
    body: Any = None
    headers: Mapping[str, str] = msgspec.field(default_factory=dict)

    async def play(self, answer: Answer) -> None:
        body = error_body(self.status, answer.call) if self.body is None else self.body
        await answer.whole(self.status, body, self.headers)

    @property
    def refuses(self) -> bool:
        return self.status >= 400


class Cut(Ending, frozen=True):
    """Close the connection with a FIN and without the end of the body.

    First in a script: before the head. After `Finish`: the connection that the client has just pooled.
    """

    async def play(self, answer: Answer) -> None:
        await answer.connection.cut()


class Reset(Ending, frozen=True):
    """Close the connection with a RST, once the client has read what was sent."""

    async def play(self, answer: Answer) -> None:
        await answer.connection.reset()


class Silence(Ending, frozen=True):
    """Say nothing more until the client leaves, or until the upstream loses patience and hangs up."""

    async def play(self, answer: Answer) -> None:
        await asyncio.sleep(answer.patience_seconds)
        await answer.connection.cut()


class Pause(Step, frozen=True):
    """Wait this long."""

    seconds: float

    async def play(self, answer: Answer) -> None:  # noqa: ARG002
        await asyncio.sleep(self.seconds)


class Gate(Protocol):
    """Where a script waits for its test: an Event of threading, asyncio or multiprocessing is one."""

    def is_set(self) -> bool: ...


class Hold(Step, frozen=True):
    """Wait until the test sets the gate. Never set, it fails the test when the upstream stops."""

    gate: Gate

    async def play(self, answer: Answer) -> None:
        try:
            async with asyncio.timeout(answer.patience_seconds):
                await answer.connection.gates.opened(self.gate)
        except TimeoutError:
            raise TimeoutError(f"nobody set the gate of Hold in {answer.patience_seconds} s") from None


class Split(Step, frozen=True):
    """Write all that follows in pieces of so many bytes, each a TCP segment and a chunk of the body.

    A client that reads late may still find several in one read; its HTTP library sees the chunks apart. With
    a gap, an idle client reads each alone.
    """

    size: int
    gap_seconds: float = 0.0

    async def play(self, answer: Answer) -> None:
        answer.split = self


DEFAULT_ANSWER: tuple[Step, ...] = (Say("Hello"), Say(" there"), Say("!"), Finish())


# What a test reads.
