"""The parts that operations refer to: schemas, headers, parameters, security schemes, and error responses."""

import inspect
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

import msgspec

from chat_sse.api.service import LoginBody
from chat_sse.errors import (
    ChatError,
    ErrorBody,
    InternalError,
    LimitReached,
    NotAcceptable,
    Overloaded,
    Unauthenticated,
    UpstreamRateLimit,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from chat_sse.events import EVENT_ID, Event
from chat_sse.formats import FORMATS, formats_at
from chat_sse.formats.base import SCHEMA_REF, Format, Json
from chat_sse.formats.negotiation import offer
from chat_sse.messages import MAX_KEY_CHARS, AskRequest
from chat_sse.standing import Me

# Where to read on: after an event, or, when empty, as if it were not there.
PLACE = rf"^({EVENT_ID})?$"

# What tells a client where it stands with this server's limits.
LIMITS = ("RateLimit", "RateLimit-Policy")
# Those that may say when to come back.
HAVE_RETRY_AFTER = (UpstreamRateLimit, UpstreamTimeout, UpstreamUnavailable, Overloaded, LimitReached)

LOGIN_BODY: Json = {"$ref": "#/components/schemas/LoginBody"}
# What a 401 says beside the error.
LOGIN: Json = {"accepts": ["keys"], "login_url": None}

HEADERS: Json = {
    "ContentLocation": {
        "description": "Where the answer is: `GET` it to read on, `DELETE` it to stop it.",
        "schema": {"type": "string", "format": "uri-reference"},
    },
    "Location": {
        "description": "The address to read the answer at, with a token in the place of a key.",
        "schema": {"type": "string", "format": "uri-reference"},
    },
    "RateLimit": {
        "description": "What is left of this client's requests (`requests`) and tokens (`tokens`), and the "
        "seconds until the window is over. Source: draft-ietf-httpapi-ratelimit-headers.",
        "schema": {"type": "string"},
        "example": '"requests";r=59;t=42, "tokens";r=195000;t=32400',
    },
    "RateLimitPolicy": {
        "description": "The limits themselves, and the length of their windows in seconds.",
        "schema": {"type": "string"},
        "example": '"requests";q=60;w=60, "tokens";q=200000;qu="tokens";w=86400',
    },
    "RequestId": {
        "description": "The id under which the operator finds this request.",
        "schema": {"type": "string"},
    },
    "RetryAfter": {
        "description": "Seconds to wait before asking again, where that is known.",
        "schema": {"type": "integer"},
    },
}

SECURITY_SCHEMES: Json = {
    "ApiKey": {
        "type": "http",
        "scheme": "bearer",
        "description": "One of the service's keys (`CHAT_SSE_API_KEYS`), or a person's token.",
    },
    "Token": {
        "type": "apiKey",
        "in": "cookie",
        "name": "session",
        "description": "A person's token in the cookie that `CHAT_SSE_JWT_COOKIE` names.",
    },
    "Link": {
        "type": "apiKey",
        "in": "query",
        "name": "token",
        "description": (
            "From the `Location` of `Prefer: respond-async`, for clients that cannot send headers. "
            "It reads and stops the answer it was made for, until it expires, and starts none."
        ),
    },
}

PATH_PARAMETERS: Mapping[str, Json] = {
    "stream_id": {
        "description": "The answer's id, from `Content-Location` or the `start` event.",
        "schema": {"type": "string"},
    },
    "chat_id": {
        "description": "The chat's id: the `id` in the body of the question.",
        "schema": {"type": "string"},
    },
}


def _parameter(name: str, place: str, description: str, **schema: Any) -> Json:
    return {
        "name": name,
        "in": place,
        "description": description,
        "schema": {"type": "string", **schema},
    }


PARAMETERS: Json = {
    "Format": _parameter(
        "format",
        "query",
        "The answer's format. It wins over `Accept`; without both it is the server's default.",
        enum=[kind.name for kind in formats_at()],
    ),
    "IdempotencyKey": _parameter(
        "Idempotency-Key",
        "header",
        "The same key with the same body attaches to the same answer, so that sending again is never paid "
        "for twice. Any text that is new for each question, such as a UUID.",
        minLength=1,
        maxLength=MAX_KEY_CHARS,
    ),
    "LastEventId": _parameter(
        "Last-Event-ID",
        "header",
        "Read on after this event. Everything else in the request is ignored then, and nothing is asked.",
        pattern=PLACE,
    ),
    "LastEventIdInQuery": _parameter(
        "last_event_id",
        "query",
        "`Last-Event-ID` for clients that cannot send headers.",
        pattern=PLACE,
    ),
    "Prefer": _parameter(
        "Prefer",
        "header",
        "`respond-async` answers 202 with the address of the answer, to hand to `new EventSource()`.",
    ),
    "RequestId": _parameter(
        "X-Request-Id",
        "header",
        "An id of yours for this request: 1 to 128 letters, digits, dots, underscores and hyphens. Any other "
        "text is replaced by an id of ours.",
    ),
    "Q": _parameter(
        "q", "query", "The question, alone: in the place of `messages`, which is then not read.", minLength=1
    ),
    "Messages": {
        "name": "messages",
        "in": "query",
        "description": "The whole conversation as JSON, as in the body of `POST /ask`.",
        "content": {
            "application/json": {
                "schema": {"type": "array", "items": {"$ref": "#/components/schemas/Message"}, "minItems": 1}
            }
        },
    },
    "Id": _parameter(
        "id",
        "query",
        "An `Idempotency-Key` for clients that cannot send headers: new for each question.",
        minLength=1,
        maxLength=MAX_KEY_CHARS,
    ),
}


def schemas() -> Json:
    """Return the schemas of all message types, under their class names."""
    (_, event, *_), components = msgspec.json.schema_components(
        (AskRequest, Event, ErrorBody, LoginBody, Me), ref_template=SCHEMA_REF
    )
    for kind in FORMATS:
        components |= kind.components
    for schema in components.values():
        if "description" in schema:
            # With its indentation a docstring would be a block of code in Markdown.
            schema["description"] = inspect.cleandoc(schema["description"])
    return {
        **components,
        "Event": {"title": "Event", "description": "The `data` of one server-sent event.", **event},
    }


def header(*names: str) -> Json:
    found = {name: {"$ref": f"#/components/headers/{name.replace('-', '')}"} for name in names}
    return {**found, "X-Request-Id": {"$ref": "#/components/headers/RequestId"}}


def error_responses(kinds: Sequence[type[ChatError]], wire: type[Format]) -> dict[str, Json]:
    """Describe errors in the shape of a wire, one response a status, one example a code."""
    by_status: dict[int, list[type[ChatError]]] = {}
    for kind in kinds:
        by_status.setdefault(wire.refusal(kind(), "").status, []).append(kind)
    return {str(status): _error_response(status, found, wire) for status, found in sorted(by_status.items())}


def error_example(kind: type[ChatError], wire: type[Format]) -> Json:
    """Return the body that an error has on a wire."""
    details = offer(formats_at(wire.root)) if kind is NotAcceptable else kind.example
    body: Json = msgspec.to_builtins(wire.refusal(kind(details), "c0ffee0123456789").body)
    return body


def error_schema(wire: type[Format]) -> Json:
    """Return the schema of the bodies that errors have on a wire."""
    return {"$ref": SCHEMA_REF.format(name=type(wire.refusal(InternalError(), "").body).__name__)}


def _error_response(status: int, kinds: Sequence[type[ChatError]], wire: type[Format]) -> Json:
    retries = ["Retry-After"] if any(issubclass(kind, HAVE_RETRY_AFTER) for kind in kinds) else []
    limited = LIMITS if any(issubclass(kind, LimitReached) for kind in kinds) else ()
    more = LOGIN if Unauthenticated in kinds else {}
    examples = {
        kind.code: {
            "summary": inspect.cleandoc(kind.content),
            "value": error_example(kind, wire) | more,
        }
        for kind in kinds
    }
    schema = LOGIN_BODY if more and wire.root == "/" else error_schema(wire)
    return {
        "description": f"{HTTPStatus(status).phrase}: {', '.join(f'`{code}`' for code in examples)}",
        "headers": header(*retries, *limited),
        "content": {"application/json": {"schema": schema, "examples": examples}},
    }
