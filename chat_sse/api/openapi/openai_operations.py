"""What is said of the routes at OpenAI's addresses."""

from collections.abc import Mapping

import msgspec

from chat_sse.api.openapi.components import header
from chat_sse.api.openapi.examples import COMPLETION
from chat_sse.api.openapi.operation import ANSWERED, ASKING, READ_TO_THE_END, READING, REFUSALS, Operation
from chat_sse.completions import Model, Models
from chat_sse.errors import InvalidRequest, StoreUnavailable, UnsupportedMediaType
from chat_sse.formats.base import Json
from chat_sse.formats.openai import OpenAiFormat

COMPLETED: Json = {**ANSWERED, "content": COMPLETION}
ALLOWED_MODELS: Json = {
    "description": "The models that the caller may name; the first is the default.",
    "headers": header(),
    "content": {
        "application/json": {
            "schema": {"$ref": "#/components/schemas/Models"},
            "example": msgspec.to_builtins(Models(data=[Model(id="gpt-4o-mini")])),
        }
    },
}
COMPLETION_QUESTION: Json = {
    "required": True,
    "content": {
        "application/json": {
            "schema": {"$ref": "#/components/schemas/CompletionRequest"},
            "example": {
                "model": "gpt-4o-mini",
                "messages": [{"role": "user", "content": "Hello!"}],
                "stream": True,
            },
        }
    },
}

OPENAI_OPERATIONS: Mapping[tuple[str, str], Operation] = {
    ("POST", "/v1/chat/completions"): Operation(
        tag="OpenAI",
        summary="Complete a chat",
        description=(
            "OpenAI's own request, answers and errors, for its SDKs and what is built on them. A stream that "
            "is not whole ends with an error, without `[DONE]`, and its connection is broken off."
        ),
        parameters=("IdempotencyKey", "LastEventId"),
        body=COMPLETION_QUESTION,
        responses={"200": COMPLETED},
        errors=(*ASKING, UnsupportedMediaType),
        wire=OpenAiFormat,
        security=("ApiKey", "Token"),
    ),
    ("GET", "/v1/chat/completions/{stream_id}"): Operation(
        tag="OpenAI",
        summary="Read a completion",
        description="As `GET /ask/{stream_id}`: a stream, or the whole answer to who accepts JSON alone.",
        parameters=("LastEventId", "LastEventIdInQuery"),
        responses={"200": {**COMPLETED, "headers": header("Content-Location")}, "204": READ_TO_THE_END},
        errors=READING,
        wire=OpenAiFormat,
        security=("ApiKey", "Token", "Link"),
    ),
    ("GET", "/v1/models"): Operation(
        tag="OpenAI",
        summary="List models",
        description="Those that the caller may name; the first is the default.",
        responses={"200": ALLOWED_MODELS},
        errors=(InvalidRequest, *REFUSALS, StoreUnavailable),
        wire=OpenAiFormat,
        security=("ApiKey", "Token"),
    ),
}
