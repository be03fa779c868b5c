"""What a format promises: events of a log go in, bytes that some client understands come out."""

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from typing import Any, ClassVar, TypeAlias

import msgspec
from starlette.responses import Response

from chat_sse.errors import ChatError
from chat_sse.events import Subscriber
from chat_sse.messages import AskRequest, decode_ask

Batches: TypeAlias = AsyncGenerator[Sequence[bytes], None]
Json: TypeAlias = dict[str, Any]

EVENT_STREAM = "text/event-stream"

# Of every response whose format depends on `Accept`.
NEGOTIATED = {"Vary": "Accept"}

# Where the OpenAPI document keeps the schemas that others refer to.
SCHEMA_REF = "#/components/schemas/{name}"


class Reading(msgspec.Struct, frozen=True, kw_only=True):
    """One reader's view of a log."""

    stream_id: str
    after: int
    """The cursor: the last sequence number that the client has seen, -1 for none."""
    follow: Callable[[Subscriber | None], Batches]
    """Start reading. Yields consecutive entries, the first numbered `after + 1`, and ends after the terminal
    one. What the subscriber accepts (see `Log.read`) is not among them. Raises ChatError when no more can be
    read from here. A format sends that as the last event, without a number: the log goes on without it, and
    the client may resume."""
    headers: Mapping[str, str]
    """Response headers, the same in every format."""
    request_id: str = ""
    """For an error that ends this reading."""


async def _nothing(_: Subscriber | None) -> Batches:
    none: Sequence[Sequence[bytes]] = ()
    for entries in none:
        yield entries


class Delivery(msgspec.Struct, frozen=True, kw_only=True):
    """How responses are sent, whatever their format. Times are in seconds."""

    heartbeat_seconds: float
    send_timeout_seconds: float
    """How long a client may accept no bytes before it is cut off."""
    max_age_seconds: float | None = None
    """How long a reader that can resume is served before it is cut off between two events. None: always."""


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """What a body asks."""

    ask: AskRequest
    format: "Format"
    """What answers it."""
    key: str | None = None
    """The idempotency key that it holds; one in the request's head wins."""


class Refusal(msgspec.Struct, frozen=True, kw_only=True):
    """An error as an HTTP response."""

    status: int
    body: msgspec.Struct
    headers: Mapping[str, str] = {}


class Format(ABC):
    """A wire format: its encoding, the response that sends it, and its part of the OpenAPI document."""

    name: ClassVar[str]
    """Its name in `?format=`."""
    media_type: ClassVar[str]
    """Its name in `Accept`."""
    resumable: ClassVar[bool]
    """Whether its clients can come back after a break. If not, the call to upstream ends when they leave."""
    has_ids: ClassVar[bool]
    """Whether its events carry ids, so that a reader can start after one. Others are read from the start."""

    root: ClassVar[str] = "/"
    """The path that its addresses lie under, where errors have its shape too. Those of `/` share `/ask`."""
    reads_body: ClassVar[bool] = False
    """Whether it needs a question's body to answer: `read` does more than decode it."""
    replays: ClassVar[bool] = False
    """Whether it needs an answer's beginning to go on after a cursor. It is read from the start then."""

    summary: ClassVar[str]
    """The title of its example where formats share a media type."""
    schema: ClassVar[Json]
    """The JSON Schema of its body; of one item where it `is_sequential`."""
    is_sequential: ClassVar[bool] = False
    """Whether the body is a sequence of items (OpenAPI 3.2, "4.14.5 Sequential Media Types")."""
    components: ClassVar[Mapping[str, Json]] = {}
    """The schemas that `schema` refers to, by name, besides those of the events."""

    def __init__(self, delivery: Delivery) -> None:
        self._delivery = delivery

    @abstractmethod
    def respond(self, reading: Reading) -> Response:
        """Return the response that sends what is read."""

    def read(self, body: bytes | bytearray, *, allows_system: bool) -> Asked:
        """Return what a body asks. Raises InvalidRequest. `allows_system`: see `decode_ask`."""
        return Asked(ask=decode_ask(body, allows_system=allows_system), format=self)

    @staticmethod
    def refusal(error: ChatError, request_id: str) -> Refusal:
        """Return an error in the shape that its clients read."""
        return Refusal(status=error.status, body=error.body(request_id))

    def respond_to_head(self) -> Response:
        """Return the response to a HEAD that stands for a question: `respond`'s head, of no answer."""
        return self.respond(Reading(stream_id="", after=-1, follow=_nothing, headers=NEGOTIATED))

    @staticmethod
    @abstractmethod
    def example(entries: Sequence[bytes]) -> Any:
        """Return the body made of a whole log, as text or as JSON values."""
