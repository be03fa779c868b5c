"""What a client asks: the JSON of `POST /ask`, its constraints, and the checks a type cannot express."""

from typing import Annotated, Literal, TypeAlias

import msgspec

from chat_sse.errors import InvalidRequest, PayloadTooLarge

Text: TypeAlias = Annotated[str, msgspec.Meta(min_length=1)]


class TextPart(msgspec.Struct, frozen=True, kw_only=True, tag="text"):
    """OpenAI's text content part."""

    text: Text


class ImageUrl(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An https URL, or the image itself as a base64 `data:` URL."""

    url: Annotated[str, msgspec.Meta(pattern=r"^(https://|data:image/)")]
    detail: Literal["auto", "low", "high"] | None = None


class ImagePart(msgspec.Struct, frozen=True, kw_only=True, tag="image_url"):
    """OpenAI's image content part."""

    image_url: ImageUrl


Content: TypeAlias = Text | Annotated[list[TextPart | ImagePart], msgspec.Meta(min_length=1)]


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """One turn of the conversation. The system prompt is the server's, so `system` is no role here."""

    role: Literal["user", "assistant"]
    content: Content


class AskRequest(msgspec.Struct, frozen=True, kw_only=True):
    """The body of `POST /ask`. Fields not named here are ignored: frontends send many of their own."""

    messages: Annotated[list[Message], msgspec.Meta(min_length=1)]
    model: Annotated[str, msgspec.Meta(min_length=1, max_length=200)] | None = None
    temperature: Annotated[float, msgspec.Meta(ge=0, le=2)] | None = None
    max_output_tokens: Annotated[int, msgspec.Meta(ge=1)] | None = None


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """An admitted request: every default filled in, every limit applied. What an upstream is given."""

    messages: list[Message]
    model: str
    max_output_tokens: int
    temperature: float | None = None


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """What this server admits."""

    models: tuple[str, ...]
    """The allow-list; the first is the default."""
    max_messages: int
    max_output_tokens: int


_decoder = msgspec.json.Decoder(AskRequest)


def decode_ask(body: bytes) -> AskRequest:
    """Decode a request body. Raises InvalidRequest with the path of the field at fault."""
    try:
        return _decoder.decode(body)
    except UnicodeDecodeError as exc:
        raise InvalidRequest("the body is not UTF-8") from exc
    except msgspec.DecodeError as exc:
        raise InvalidRequest(str(exc)) from exc


def admit(ask: AskRequest, policy: Policy) -> Question:
    """Apply the server's limits and defaults. Raises InvalidRequest or PayloadTooLarge."""
    if len(ask.messages) > policy.max_messages:
        raise InvalidRequest(f"Expected at most {policy.max_messages} messages - at `$.messages`")
    for index, message in enumerate(ask.messages):
        if isinstance(message.content, str) and message.content.isspace():
            raise InvalidRequest(
                f"Expected some text, got only white space - at `$.messages[{index}].content`"
            )
    model = ask.model or policy.models[0]
    if model not in policy.models:
        allowed = ", ".join(policy.models)
        raise InvalidRequest(f"This server offers {allowed} - at `$.model`")
    wanted = ask.max_output_tokens or policy.max_output_tokens
    return Question(
        messages=ask.messages,
        model=model,
        temperature=ask.temperature,
        max_output_tokens=min(wanted, policy.max_output_tokens),
    )


def check_size(size: int, max_body_bytes: int) -> None:
    """Refuse a body that is too large, as soon as its size is known. Sizes are in bytes."""
    if size > max_body_bytes:
        raise PayloadTooLarge(f"the body may hold {max_body_bytes} bytes at most")
