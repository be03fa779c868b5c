"""The OpenAPI document: the routes, told with the message types, the events and the error tree.

Paths, methods, path parameters, operation ids and summaries are those of the routes; schemas and their
descriptions are those of the msgspec types; examples are encoded by the code that answers. What no code
says stands in OPERATIONS, one entry a route: a route without one cannot be documented (KeyError), an entry
without a route is found by a test.

Source: OpenAPI 3.2.0, https://spec.openapis.org/oas/v3.2.0.html; "4.14.5 Sequential Media Types" for the
event stream.
"""

import inspect
import re
from collections.abc import Iterable, Mapping, Sequence
from http import HTTPStatus
from typing import Any, TypeAlias

import msgspec
from starlette.routing import Route

from chat_sse import __version__
from chat_sse.errors import (
    BudgetSpent,
    ChatError,
    Draining,
    ErrorBody,
    ForbiddenOrigin,
    HeadTooLarge,
    InternalError,
    InvalidRequest,
    KeyReused,
    LimitReached,
    MethodNotAllowed,
    NotAcceptable,
    Overloaded,
    PayloadTooLarge,
    RequestTimeout,
    StoreUnavailable,
    StreamNotFound,
    TooManyRequests,
    TooManyStreams,
    Unauthenticated,
    UnsupportedMediaType,
    UpstreamAuthentication,
    UpstreamProtocol,
    UpstreamRateLimit,
    UpstreamRejected,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from chat_sse.events import EVENT_ID, Delta, Done, Event, Start, Usage
from chat_sse.formats import FORMATS
from chat_sse.formats.ai_sdk import AiSdkFormat
from chat_sse.formats.base import SCHEMA_REF, Format
from chat_sse.messages import MAX_KEY_CHARS, AskRequest

Json: TypeAlias = dict[str, Any]

# Where to read on: after an event, or, when empty, as if it were not there.
PLACE = rf"^({EVENT_ID})?$"

DESCRIPTION = """\
Ask a question with its history, read the answer as server-sent events.

**One question costs one paid call upstream, whatever the network does, and every answer ends with exactly
one terminal event: `done` or `error`.**

- A broken reader comes back with `Last-Event-ID` and reads on. That never asks upstream again.
- A question sent again with the same `Idempotency-Key` attaches to the same answer.
- An answer that nobody reads is cancelled after a while; `DELETE` stops it at once.
- Every error, as a response or as the stream's last event, has the same body: `ErrorBody`.
- Every response has an `X-Request-Id`; send your own and it is kept.
"""


class Operation(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be said of one route beside what it says itself."""

    tag: str
    summary: str = ""
    """Where the handler's docstring does not say it."""
    description: str = ""
    parameters: Sequence[str] = ()
    """Names of PARAMETERS."""
    body: Json | None = None
    responses: Mapping[str, Json]
    errors: Sequence[type[ChatError]] = ()
    security: Sequence[str] = ()
    """Names of SECURITY_SCHEMES, each of which is enough."""


# Wherever answers are: what is said to those who may not, and to those who do not stop trying.
REFUSALS = (Unauthenticated, ForbiddenOrigin, TooManyRequests)
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
    Overloaded,
    Draining,
    StoreUnavailable,
)
# What tells a client where it stands with this server's limits.
LIMITS = ("RateLimit", "RateLimit-Policy")
# Those that may say when to come back.
HAVE_RETRY_AFTER = (UpstreamRateLimit, UpstreamTimeout, UpstreamUnavailable, Overloaded, LimitReached)


def document(routes: Iterable[Route]) -> Json:
    """Describe these routes. Raises KeyError for one that has no entry in OPERATIONS."""
    paths: dict[str, Json] = {}
    for route in routes:
        if route.include_in_schema:
            for method in sorted((route.methods or set()) - {"HEAD"}):  # every GET answers HEAD as well
                paths.setdefault(route.path_format, {})[method.lower()] = _operation(route, method)
    return {
        "openapi": "3.2.0",
        "info": {
            "title": "chat_sse",
            "version": __version__,
            "summary": "A small chat backend",
            "description": DESCRIPTION,
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": "/", "description": "This service"}],
        "tags": [
            {"name": "Ask", "description": "Ask, read on, stop."},
            {"name": "Operate", "description": "For load balancers and operators."},
            {"name": "Pages", "description": "For people."},
        ],
        "paths": paths,
        "components": {
            "schemas": _schemas(),
            "parameters": PARAMETERS,
            "headers": HEADERS,
            "securitySchemes": SECURITY_SCHEMES,
        },
    }


def _operation(route: Route, method: str) -> Json:
    known = OPERATIONS[method, route.path_format]
    told: Json = {
        "operationId": route.name,
        "summary": known.summary or _summary(route),
        "tags": [known.tag],
        "parameters": [
            *(_path_parameter(name) for name in route.param_convertors),
            *({"$ref": f"#/components/parameters/{name}"} for name in (*known.parameters, "RequestId")),
        ],
        "responses": {**known.responses, **_error_responses(known.errors), "default": ANY_ERROR},
    }
    if known.description:
        told["description"] = known.description
    if known.security:
        # The empty one: a service without keys wants none.
        told["security"] = [*({name: []} for name in known.security), {}]
    if known.body:
        told["requestBody"] = known.body
    return told


def _summary(route: Route) -> str:
    """Take the first line of the handler's docstring, without the method and path that it may begin with."""
    text = (inspect.getdoc(route.endpoint) or "").partition("\n")[0]
    text = re.sub(r"^[A-Z]+ /\S*: ", "", text).removesuffix(".").replace("`", "")  # no Markdown here
    return text[:1].upper() + text[1:]


def _path_parameter(name: str) -> Json:
    return {"name": name, "in": "path", "required": True, **PATH_PARAMETERS[name]}


def _schemas() -> Json:
    """Give the schemas of all message types, under their class names."""
    (_, event, *_), components = msgspec.json.schema_components(
        (AskRequest, Event, ErrorBody), ref_template=SCHEMA_REF
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


def _header(*names: str) -> Json:
    found = {name: {"$ref": f"#/components/headers/{name.replace('-', '')}"} for name in names}
    return {**found, "X-Request-Id": {"$ref": "#/components/headers/RequestId"}}


def _error_responses(kinds: Sequence[type[ChatError]]) -> dict[str, Json]:
    """Describe errors, one response a status, one example a code."""
    by_status: dict[int, list[type[ChatError]]] = {}
    for kind in kinds:
        by_status.setdefault(kind.status, []).append(kind)
    return {str(status): _error_response(status, found) for status, found in sorted(by_status.items())}


def _error_response(status: int, kinds: Sequence[type[ChatError]]) -> Json:
    retries = ["Retry-After"] if any(issubclass(kind, HAVE_RETRY_AFTER) for kind in kinds) else []
    limited = LIMITS if any(issubclass(kind, LimitReached) for kind in kinds) else ()
    examples = {
        kind.code: {
            "summary": inspect.cleandoc(kind.content),
            "value": msgspec.to_builtins(kind(DETAILS[kind.code]).body("c0ffee0123456789")),
        }
        for kind in kinds
    }
    return {
        "description": f"{HTTPStatus(status).phrase}: {', '.join(f'`{code}`' for code in examples)}",
        "headers": _header(*retries, *limited),
        "content": {"application/json": {"schema": ERROR_BODY, "examples": examples}},
    }


def _content(kinds: Iterable[type[Format]]) -> Json:
    """Return the media type objects of formats, one a media type, with an answer encoded in each format."""
    by_media_type: dict[str, list[type[Format]]] = {}
    for kind in kinds:
        by_media_type.setdefault(kind.media_type, []).append(kind)
    return {media_type: _media_type_object(found) for media_type, found in by_media_type.items()}


def _media_type_object(kinds: Sequence[type[Format]]) -> Json:
    first, *others = kinds
    schema = {"oneOf": [kind.schema for kind in kinds]} if others else first.schema
    examples = {kind.name: {"summary": kind.summary, "value": _example(kind)} for kind in kinds}
    shown = {"examples": examples} if others else {"example": _example(first)}
    if first.is_sequential:
        # `itemSchema` is how 3.2 describes a stream. Today's readers show it only beside a `schema` of the
        # whole, and an example only where it is literal text.
        return {"itemSchema": schema, "schema": {"type": "array", "items": schema}, **shown}
    return {"schema": schema, **shown}


def _example(kind: type[Format]) -> Any:
    """Return one answer as it goes over the wire in a format."""
    usage = Usage(prompt_tokens=10, completion_tokens=8, total_tokens=18)
    answer = (
        Start(id="8f3c1d5e9a7b42608f3c1d5e9a7b4260", model="gpt-4o-mini"),
        Delta("Hello"),
        Delta(" there!"),
        Done(finish_reason="stop", usage=usage),
    )
    return kind.example([msgspec.json.encode(event) for event in answer])


ERROR_BODY: Json = {"$ref": "#/components/schemas/ErrorBody"}

# What an error's `details` may look like, by its code.
DETAILS: Mapping[str, str] = {
    "too_many_requests": "60 questions a minute from one client at the most",
    "too_many_streams": "10 answers at once for one client at the most",
    "budget_spent": (
        "1000000 tokens a day for everybody together at the most; what is left is less than this question "
        "may cost"
    ),
    "invalid_request": "Object missing required field `messages`",
    "unauthenticated": "send a valid key as `Authorization: Bearer <key>`, or open a valid link",
    "forbidden_origin": "the page's origin is not in ALLOWED_ORIGIN",
    "not_found": "GET /nothing",
    "head_too_large": "a request's head may hold 65536 bytes and 100 fields at most",
    "stream_not_found": "no answer has this id, or it has expired",
    "method_not_allowed": "PUT /ask",
    "not_acceptable": (
        "this server offers ?format=sse (Accept: text/event-stream), ?format=text (Accept: text/plain), "
        "?format=json (Accept: application/json), ?format=ai-sdk (Accept: text/event-stream)"
    ),
    "request_timeout": "the body did not arrive within 30 seconds",
    "payload_too_large": "the body may hold 1048576 bytes at most",
    "unsupported_media_type": "Content-Type must be application/json",
    "idempotency_key_reused": "this key was used with another body",
    "internal_error": "",
    "overloaded": "the question with this key has just failed",
    "server_draining": "",
    "log_unavailable": "Redis does not answer",
    "authentication_error": "upstream answered 401: Incorrect API key provided: [secret].",
    "rate_limit_error": "upstream answered 429: Rate limit reached",
    "invalid_request_error": "upstream answered 400: invalid_request_error, context_length_exceeded",
    "service_unavailable_error": "upstream cannot be reached",
    "timeout_error": "upstream was silent, or the answer took, for too long",
    "upstream_protocol_error": "upstream answered with something that is no event stream",
}

# What an answer can look like, by media type.
ANSWER = _content(FORMATS)
# Where the AI SDK's format is the default.
CHAT_ANSWER = {
    **ANSWER,
    AiSdkFormat.media_type: {
        **{key: value for key, value in ANSWER[AiSdkFormat.media_type].items() if key != "examples"},
        "example": _example(AiSdkFormat),
    },
}

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
        "description": "One of the service's keys, where it has any (`CHAT_SSE_API_KEYS`).",
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
        enum=[kind.name for kind in FORMATS],
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

ANSWERED: Json = {
    "description": "The answer, as it comes.",
    "headers": _header("Content-Location", *LIMITS),
    "content": ANSWER,
}
READ: Json = {**ANSWERED, "headers": _header("Content-Location")}
ACCEPTED: Json = {
    "description": "Asked with `Prefer: respond-async`. Read the answer at `Location`.",
    "headers": _header("Content-Location", "Location", *LIMITS),
}
RUNNING: Json = {
    "description": "The chat's running answer, from its start.",
    "headers": _header("Content-Location"),
    "content": CHAT_ANSWER,
}
NOT_RUNNING: Json = {"description": "No answer of this chat is running.", "headers": _header()}
READ_TO_THE_END: Json = {
    "description": "`Last-Event-ID` was the answer's last event. 204 ends an `EventSource` for good.",
    "headers": _header(),
}
ANY_ERROR: Json = {
    "description": (
        "Any other error has the same body, such as 405 `method_not_allowed`, and 421 `misdirected_request` "
        "for a host name that the service does not answer to."
    ),
    "headers": _header(),
    "content": {
        "application/json": {
            "schema": ERROR_BODY,
            "example": msgspec.to_builtins(MethodNotAllowed(DETAILS["method_not_allowed"]).body("c0ffee")),
        }
    },
}

QUESTIONS: Json = {
    "required": True,
    "description": "The conversation so far, the question last.",
    "content": {
        "application/json": {
            "schema": {"$ref": "#/components/schemas/AskRequest"},
            "examples": {
                "question": {
                    "summary": "A question",
                    "value": {"messages": [{"role": "user", "content": "Hello!"}]},
                },
                "conversation": {
                    "summary": "A conversation, with limits",
                    "value": {
                        "messages": [
                            {"role": "user", "content": "Name a prime number."},
                            {"role": "assistant", "content": "7"},
                            {"role": "user", "content": "And the next one?"},
                        ],
                        "temperature": 0.2,
                        "max_output_tokens": 200,
                    },
                },
                "image": {
                    "summary": "A question about an image",
                    "value": {
                        "messages": [
                            {
                                "role": "user",
                                "content": [
                                    {"type": "text", "text": "What is this?"},
                                    {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}},
                                ],
                            }
                        ]
                    },
                },
            },
        }
    },
}


def _status(state: str) -> Json:
    schema = {"type": "object", "required": ["status"], "properties": {"status": {"const": state}}}
    return {
        "description": "Yes.",
        "headers": _header(),
        "content": {"application/json": {"schema": schema, "example": {"status": state}}},
    }


def _page(media_type: str, description: str, summary: str = "") -> Operation:
    ok = {"description": description, "headers": _header(), "content": {media_type: {}}}
    return Operation(tag="Pages", summary=summary, responses={"200": ok})


OPERATIONS: Mapping[tuple[str, str], Operation] = {
    ("POST", "/ask"): Operation(
        tag="Ask",
        description=(
            "Messages may also be the AI SDK's, with `parts`.\n\n"
            "With `Last-Event-ID` it reads on instead; after the last event that event comes again."
        ),
        parameters=("Format", "IdempotencyKey", "LastEventId", "Prefer"),
        body=QUESTIONS,
        responses={"200": ANSWERED, "202": ACCEPTED},
        errors=(*ASKING, UnsupportedMediaType),
        security=("ApiKey",),
    ),
    ("GET", "/ask"): Operation(
        tag="Ask",
        description=(
            "For `EventSource` and a browser's address bar: the question is `q` or `messages`. Where the "
            "service needs a key, `EventSource` cannot send one: ask with `Prefer: respond-async` and hand "
            "it the `Location`."
        ),
        parameters=("Q", "Messages", "Id", "Format", "LastEventId", "LastEventIdInQuery", "Prefer"),
        responses={"200": ANSWERED, "202": ACCEPTED, "204": READ_TO_THE_END},
        errors=ASKING,
        security=("ApiKey",),
    ),
    ("GET", "/ask/{stream_id}"): Operation(
        tag="Ask",
        description="Works while the answer runs and for some minutes afterwards. Never asks upstream.",
        parameters=("Format", "LastEventId", "LastEventIdInQuery"),
        responses={"200": READ, "204": READ_TO_THE_END},
        errors=(InvalidRequest, *REFUSALS, StreamNotFound, NotAcceptable, InternalError, StoreUnavailable),
        security=("ApiKey", "Link"),
    ),
    ("GET", "/ask/{chat_id}/stream"): Operation(
        tag="Ask",
        description="The AI SDK's `resumeStream`, and so in its format where `format` names no other.",
        parameters=("Format",),
        responses={"200": RUNNING, "204": NOT_RUNNING},
        errors=(*REFUSALS, NotAcceptable, InternalError, StoreUnavailable),
        security=("ApiKey",),
    ),
    ("DELETE", "/ask/{stream_id}"): Operation(
        tag="Ask",
        description='Its readers get `done` with `finish_reason: "cancelled"`, and the call is closed.',
        responses={"204": {"description": "It is over.", "headers": _header()}},
        errors=(*REFUSALS, StreamNotFound, InternalError, StoreUnavailable),
        security=("ApiKey", "Link"),
    ),
    ("GET", "/healthz"): Operation(tag="Operate", responses={"200": _status("ok")}),
    ("GET", "/readyz"): Operation(
        tag="Operate", responses={"200": _status("ready")}, errors=(Draining, StoreUnavailable)
    ),
    ("GET", "/"): _page("text/html", "The chat page", summary="Chat with the service"),
    ("GET", "/docs"): _page("text/html", "Swagger UI"),
    ("GET", "/redoc"): _page("text/html", "Redoc"),
    ("GET", "/openapi.json"): _page("application/json", "OpenAPI 3.2"),
}
