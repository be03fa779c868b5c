"""OpenAI's chat completions: what a client asks, and what it is answered.

Source: OpenAI reference, "Create chat completion" and the objects that it returns. What would change the
answer and is not offered here is refused by its name, unless its value asks for nothing. Labels, which change
no answer, are passed over.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, TypeAlias

import msgspec
from msgspec import UNSET, UnsetType

from chat_sse.errors import InvalidRequest
from chat_sse.events import Usage
from chat_sse.messages import AskRequest, Body, Message, Options, Tokens, Turn, ask_of, decode

Values: TypeAlias = Sequence[Any] | None
LABEL = None

# Which values are taken beside null, which asks for nothing; any of a label.
PARAMETERS: Mapping[str, Values] = {
    "audio": (),
    "frequency_penalty": (0,),
    "function_call": ("none", "auto"),
    "functions": ([],),
    "logit_bias": ({},),
    "logprobs": (False,),
    "metadata": LABEL,
    "modalities": (["text"],),
    "moderation": (),
    "n": (1,),
    "parallel_tool_calls": (True, False),
    "prediction": (),
    "presence_penalty": (0,),
    "prompt_cache_key": LABEL,
    "prompt_cache_options": LABEL,
    "prompt_cache_retention": LABEL,
    "reasoning_effort": (),
    "response_format": ({"type": "text"},),
    "safety_identifier": LABEL,
    "seed": (),
    "service_tier": ("auto", "default"),
    "stop": ([],),
    "store": (False,),
    "tool_choice": ("none", "auto"),
    "tools": ([],),
    "top_logprobs": (0,),
    "top_p": (1,),
    "user": LABEL,
    "verbosity": (),
    "web_search_options": (),
}
# Of a message, which may be an answer that its client sends back with all that it had.
MESSAGE_FIELDS: Mapping[str, Values] = {
    "role": LABEL,
    "content": LABEL,
    "annotations": ([],),
    "audio": (),
    "function_call": (),
    "name": (),
    "reasoning_content": LABEL,  # no part of what was said
    "refusal": (),
    "tool_calls": ([],),
}
NOT_SUPPORTED = "This service does not support this parameter"
# Of a name that is not in the table, so much is repeated in the error.
MAX_NAME_CHARS = 64


class StreamOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a stream tells beside its deltas."""

    include_usage: bool | None = None
    include_obfuscation: Annotated[bool, msgspec.Meta(extra_json_schema={"const": False})] | None = None
    """Padding against those who watch the sizes of packets. It can be declined alone: none is made here."""


class CompletionMessage(Message, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One turn of the conversation."""


class CompletionOptions(Options, frozen=True, kw_only=True):
    """What may be asked for beside the question."""

    max_tokens: Tokens | None = None
    max_completion_tokens: Tokens | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None


class CompletionRequest(CompletionOptions, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of `POST /v1/chat/completions`, as far as it is offered here.

    OpenAI's other parameters are refused, except with a value that asks for nothing, such as `n: 1`.
    """

    messages: Annotated[list[CompletionMessage], msgspec.Meta(min_length=1)]


class _Sent(CompletionOptions, frozen=True, kw_only=True):
    messages: Annotated[list[Turn], msgspec.Meta(min_length=1)]


_decoder = msgspec.json.Decoder(_Sent)
_fields_decoder = msgspec.json.Decoder(dict[str, Any])
_TAKEN: Mapping[str, Values] = {**PARAMETERS, **dict.fromkeys(_Sent.__struct_fields__, LABEL)}


def decode_completion(
    body: bytes | bytearray, *, allows_system: bool = False
) -> tuple[AskRequest, CompletionOptions]:
    """Decode a request body. Raises InvalidRequest with the path of the field at fault.

    `allows_system`: see `decode_ask`.
    """
    sent = decode(_decoder, body)
    fields = decode(_fields_decoder, body)
    _refuse_others(fields, _TAKEN, "$")
    for index, message in enumerate(fields["messages"]):
        _refuse_others(message, MESSAGE_FIELDS, f"$.messages[{index}]")
    if sent.stream_options is not None and sent.stream_options.include_obfuscation:
        raise InvalidRequest(f"{NOT_SUPPORTED} - at `$.stream_options.include_obfuscation`")
    question = Body(
        messages=sent.messages,
        model=sent.model,
        temperature=sent.temperature,
        max_output_tokens=sent.max_completion_tokens or sent.max_tokens,
    )
    return ask_of(question, allows_system=allows_system), sent


def _refuse_others(fields: Mapping[str, Any], taken: Mapping[str, Values], path: str) -> None:
    for name, value in fields.items():
        values = taken.get(name, ())
        if name not in taken:
            raise InvalidRequest(f"Unrecognized parameter - at `{path}.{name[:MAX_NAME_CHARS]}`")
        if value is not None and values is not LABEL and value not in values:
            raise InvalidRequest(f"{NOT_SUPPORTED} - at `{path}.{name}`")


class ErrorObject(msgspec.Struct, frozen=True, kw_only=True):
    """What went wrong. `param` is the path of the field at fault, `code` one of this service's errors."""

    message: str
    type: str
    param: str | None
    code: str


class OpenAiError(msgspec.Struct, frozen=True, kw_only=True):
    """The body of every error under `/v1/`, and the last event of a stream that is not whole."""

    error: ErrorObject


class ChunkDelta(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is new."""

    role: Literal["assistant"] | UnsetType = UNSET
    content: str | UnsetType = UNSET
    reasoning_content: str | UnsetType = UNSET


class ChunkChoice(msgspec.Struct, frozen=True, kw_only=True):
    """The one answer."""

    index: int = 0
    delta: ChunkDelta
    logprobs: None = None
    finish_reason: str | None = None


class CompletionChunk(msgspec.Struct, frozen=True, kw_only=True):
    """A piece of a streamed answer. With `include_usage` the last one has no choices but the usage."""

    id: str
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    created: int
    model: str
    choices: list[ChunkChoice]
    usage: Usage | UnsetType | None = UNSET


class CompletionAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """The answer as a message."""

    role: Literal["assistant"] = "assistant"
    content: str
    refusal: None = None
    reasoning_content: str | UnsetType = UNSET


class CompletionChoice(msgspec.Struct, frozen=True, kw_only=True):
    """The one answer."""

    index: int = 0
    message: CompletionAnswer
    logprobs: None = None
    finish_reason: str


class Completion(msgspec.Struct, frozen=True, kw_only=True):
    """A whole answer in one body."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[CompletionChoice]
    usage: Usage | UnsetType = UNSET


class Model(msgspec.Struct, frozen=True, kw_only=True):
    """A model that may be named."""

    id: str
    object: Literal["model"] = "model"
    created: int = 0
    owned_by: str = "chat_sse"


class Models(msgspec.Struct, frozen=True, kw_only=True):
    """The models that the caller may name; the first is the default."""

    object: Literal["list"] = "list"
    data: list[Model]
