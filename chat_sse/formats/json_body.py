"""One JSON body when the answer is whole, for clients that do not stream.

Nothing is sent before that, so an error is an HTTP error whenever it happens. A stopped answer is a body
whose `finish_reason` is "cancelled".
"""

from collections.abc import Callable, Sequence
from contextlib import aclosing
from typing import ClassVar, Literal

import msgspec
from starlette.responses import Response

from chat_sse.errors import ChatError
from chat_sse.events import Delta, Done, Failure, Reasoning, Start, Usage, decode_event, error_of
from chat_sse.formats.base import SCHEMA_REF, Delivery, Format, Json, Reading
from chat_sse.formats.client_stream import ClientStream
from chat_sse.formats.streamed_response import StreamedResponse


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """A whole answer: the message to append to the conversation, and how it came about."""

    role: Literal["assistant"] = "assistant"
    content: str
    finish_reason: str | None
    usage: Usage | None
    id: str
    model: str
    reasoning: str | msgspec.UnsetType = msgspec.UNSET
    """Only there when the model showed some."""


def collect(entries: Sequence[bytes]) -> Answer:
    """Return the answer in a sealed log's entries. Raises the ChatError that they end with."""
    stream_id, model = "", ""
    text, reasoning = [], []
    for event in map(decode_event, entries):
        match event:
            case Start():
                stream_id, model = event.id, event.model
            case Delta():
                text.append(event.content)
            case Reasoning():
                reasoning.append(event.content)
            case Failure():
                raise error_of(event)
            case Done():
                return Answer(
                    content="".join(text),
                    finish_reason=event.finish_reason,
                    usage=event.usage,
                    id=stream_id,
                    model=model,
                    reasoning="".join(reasoning) or msgspec.UNSET,
                )
    raise ValueError("a log ends with a terminal event")


class JsonAnswer(StreamedResponse):
    """Waits for the end of the answer, and sends what `collect` makes of it."""

    def __init__(
        self,
        reading: Reading,
        delivery: Delivery,
        collect: Callable[[Sequence[bytes]], msgspec.Struct] = collect,
    ) -> None:
        super().__init__(reading, delivery, "application/json")
        self._collect = collect

    async def produce(self, client: ClientStream) -> None:
        """Send the body. Raises ChatError when the answer fails."""
        entries: list[bytes] = []
        try:
            async with aclosing(self.reading.follow(None)) as batches:
                async for batch in batches:
                    entries += batch
            body = msgspec.json.encode(self._collect(entries))
        except ChatError as exc:
            exc.may_cost = True  # by now upstream has been asked
            raise
        self.headers["Content-Length"] = str(len(body))
        await client.begin(self.head())
        await client.last(body)


class JsonFormat(Format):
    """One body for clients that do not stream."""

    name = "json"
    media_type = "application/json"
    resumable = False
    has_ids = False
    summary = "The whole answer"
    schema: ClassVar[Json] = {"$ref": SCHEMA_REF.format(name=Answer.__name__)}
    components = msgspec.json.schema_components((Answer,), ref_template=SCHEMA_REF)[1]

    def respond(self, reading: Reading) -> Response:
        """Return a response that is sent once, at the end of the answer."""
        return JsonAnswer(reading, self._delivery)

    @staticmethod
    def example(entries: Sequence[bytes]) -> Json:
        """Return the body of a whole answer."""
        body: Json = msgspec.to_builtins(collect(entries))
        return body
