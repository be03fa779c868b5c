"""What is to be said of a route, and what several of them share."""

from collections.abc import Mapping, Sequence

import msgspec

from chat_sse.api.openapi.components import LIMITS, header
from chat_sse.api.openapi.examples import ANSWER
from chat_sse.errors import (
    BudgetSpent,
    ChatError,
    Draining,
    Forbidden,
    ForbiddenOrigin,
    HeadTooLarge,
    InternalError,
    InvalidRequest,
    KeyReused,
    NotAcceptable,
    Overloaded,
    PayloadTooLarge,
    RequestTimeout,
    StoreUnavailable,
    StreamNotFound,
    TooManyRequests,
    TooManyStreams,
    Unauthenticated,
    UpstreamAuthentication,
    UpstreamProtocol,
    UpstreamRateLimit,
    UpstreamRejected,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from chat_sse.formats.base import Format, Json
from chat_sse.formats.sse import SseFormat


class Operation(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be said of one route beside what it says itself."""

    tag: str
    summary: str
    """A title."""
    description: str = ""
    parameters: Sequence[str] = ()
    """Names of PARAMETERS."""
    body: Json | None = None
    responses: Mapping[str, Json]
    errors: Sequence[type[ChatError]] = ()
    wire: type[Format] = SseFormat
    """In whose shape its errors are."""
    security: Sequence[str] = ()
    """Names of SECURITY_SCHEMES, each of which is enough."""


# Wherever answers are: what is said to those who may not, and to those who do not stop trying.
REFUSALS = (Unauthenticated, Forbidden, ForbiddenOrigin, TooManyRequests, Overloaded)
# Before an answer has begun, these can come from any operation that asks.
ASKING = (
    InvalidRequest,
    *REFUSALS,
    StreamNotFound,
    NotAcceptable,
    PayloadTooLarge,
    RequestTimeout,
    KeyReused,
    TooManyStreams,
    BudgetSpent,
    HeadTooLarge,
    InternalError,
    UpstreamAuthentication,
    UpstreamRateLimit,
    UpstreamRejected,
    UpstreamUnavailable,
    UpstreamTimeout,
    UpstreamProtocol,
    Draining,
    StoreUnavailable,
)
READING = (InvalidRequest, *REFUSALS, StreamNotFound, NotAcceptable, InternalError, StoreUnavailable)

ANSWERED: Json = {
    "description": "The answer, as it comes.",
    "headers": header("Content-Location", *LIMITS),
    "content": ANSWER,
}
READ_TO_THE_END: Json = {
    "description": "`Last-Event-ID` was the answer's last event. 204 ends an `EventSource` for good.",
    "headers": header(),
}
