"""What is said of each route beside what the route says itself: one entry a route."""

from collections.abc import Mapping

from chat_sse.api.openapi.components import LIMITS, header
from chat_sse.api.openapi.examples import CHAT_ANSWER
from chat_sse.api.openapi.openai_operations import OPENAI_OPERATIONS
from chat_sse.api.openapi.operation import ANSWERED, ASKING, READ_TO_THE_END, READING, REFUSALS, Operation
from chat_sse.errors import (
    Draining,
    InternalError,
    InvalidRequest,
    NotAcceptable,
    StoreUnavailable,
    StreamNotFound,
    UnsupportedMediaType,
)
from chat_sse.formats.base import Json

READ: Json = {**ANSWERED, "headers": header("Content-Location")}
ACCEPTED: Json = {
    "description": "Asked with `Prefer: respond-async`. Read the answer at `Location`.",
    "headers": header("Content-Location", "Location", *LIMITS),
}
RUNNING: Json = {
    "description": "The chat's running answer, from its start.",
    "headers": header("Content-Location"),
    "content": CHAT_ANSWER,
}
NOT_RUNNING: Json = {"description": "No answer of this chat is running.", "headers": header()}
STANDING: Json = {
    "description": "Who the caller is, and what is left to it.",
    "headers": header(),
    "content": {
        "application/json": {
            "schema": {"$ref": "#/components/schemas/Me"},
            "example": {
                "name": "Ada",
                "models": ["gpt-4o-mini"],
                "requests": {"limit": 60, "left": 59, "window_seconds": 60, "reset_seconds": 42},
                "streams": {"limit": 10, "left": 10},
                "tokens": {"limit": 200000, "left": 195000, "window_seconds": 86400, "reset_seconds": 32400},
            },
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
        "headers": header(),
        "content": {"application/json": {"schema": schema, "example": {"status": state}}},
    }


def _page(media_type: str, summary: str) -> Operation:
    ok = {"description": summary, "headers": header(), "content": {media_type: {}}}
    return Operation(tag="Pages", summary=summary, responses={"200": ok})


OPERATIONS: Mapping[tuple[str, str], Operation] = {
    ("POST", "/ask"): Operation(
        tag="Ask",
        summary="Ask",
        description=(
            "Or attach by `Idempotency-Key` to an answer that was asked for before. Messages may also be "
            "the AI SDK's, with `parts`, and with `format=ag-ui` the body AG-UI's `RunAgentInput`.\n\n"
            "With `Last-Event-ID` it reads on instead; after the last event that event comes again."
        ),
        parameters=("Format", "IdempotencyKey", "LastEventId", "Prefer"),
        body=QUESTIONS,
        responses={"200": ANSWERED, "202": ACCEPTED},
        errors=(*ASKING, UnsupportedMediaType),
        security=("ApiKey", "Token"),
    ),
    ("GET", "/ask"): Operation(
        tag="Ask",
        summary="Ask by URL",
        description=(
            "For `EventSource` and a browser's address bar: the question is `q` or `messages`. Where the "
            "service needs a key, `EventSource` cannot send one: ask with `Prefer: respond-async` and hand "
            "it the `Location`."
        ),
        parameters=("Q", "Messages", "Id", "Format", "LastEventId", "LastEventIdInQuery", "Prefer"),
        responses={"200": ANSWERED, "202": ACCEPTED, "204": READ_TO_THE_END},
        errors=ASKING,
        security=("ApiKey", "Token"),
    ),
    ("GET", "/ask/{stream_id}"): Operation(
        tag="Ask",
        summary="Read an answer",
        description=(
            "From its start, or after `Last-Event-ID`: while the answer runs, and for some minutes "
            "afterwards. Never asks upstream."
        ),
        parameters=("Format", "LastEventId", "LastEventIdInQuery"),
        responses={"200": READ, "204": READ_TO_THE_END},
        errors=READING,
        security=("ApiKey", "Token", "Link"),
    ),
    ("GET", "/ask/{chat_id}/stream"): Operation(
        tag="Ask",
        summary="Resume a chat",
        description=(
            "The chat's running answer from its start: the AI SDK's `resumeStream`, and so in its format "
            "where `format` names no other."
        ),
        parameters=("Format",),
        responses={"200": RUNNING, "204": NOT_RUNNING},
        errors=(*REFUSALS, NotAcceptable, InternalError, StoreUnavailable),
        security=("ApiKey", "Token"),
    ),
    ("DELETE", "/ask/{stream_id}"): Operation(
        tag="Ask",
        summary="Stop an answer",
        description=(
            'Every reader gets `done` with `finish_reason: "cancelled"`, and the call is closed. Idempotent.'
        ),
        responses={"204": {"description": "It is over.", "headers": header()}},
        errors=(*REFUSALS, StreamNotFound, InternalError, StoreUnavailable),
        security=("ApiKey", "Token", "Link"),
    ),
    **OPENAI_OPERATIONS,
    ("GET", "/me"): Operation(
        tag="Ask",
        summary="Your limits",
        description="Who you are here, which models you may name, and what is left. Counts nothing.",
        responses={"200": STANDING},
        errors=(InvalidRequest, *REFUSALS, StoreUnavailable),
        security=("ApiKey", "Token"),
    ),
    ("GET", "/healthz"): Operation(tag="Operate", summary="Liveness", responses={"200": _status("ok")}),
    ("GET", "/readyz"): Operation(
        tag="Operate",
        summary="Readiness",
        responses={"200": _status("ready")},
        errors=(Draining, StoreUnavailable),
    ),
    ("GET", "/"): _page("text/html", "Chat page"),
    ("GET", "/docs"): _page("text/html", "Swagger UI"),
    ("GET", "/redoc"): _page("text/html", "ReDoc"),
    ("GET", "/openapi.json"): _page("application/json", "This document"),
}
