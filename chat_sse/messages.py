"""What a client asks: the JSON of `POST /ask`, its constraints, and the checks a type cannot express.

Two shapes of a message are understood: OpenAI's (`content`) and the Vercel AI SDK's (`parts`, "UIMessage"; in
version 4 beside a `content` that repeats their text). The second is turned into the first here, so that no
other floor knows of it.
"""

import re
from typing import Annotated, Any, Literal, TypeAlias

import msgspec

from chat_sse.errors import InvalidRequest, PayloadTooLarge
from chat_sse.ui_messages import UiImage, check_image, read_parts

Text: TypeAlias = Annotated[str, msgspec.Meta(min_length=1)]

# Chat ids are made by clients; the AI SDK's have 16 characters. A longer one than this is no id.
MAX_CHAT_ID_CHARS = 200
# Of an idempotency key.
MAX_KEY_CHARS = 255

CONVERSATION_TOO_LONG = (
    "This conversation has grown too long for me. Please start a new one with what matters of it."
)


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


ContentPart: TypeAlias = TextPart | ImagePart
Content: TypeAlias = Text | Annotated[list[ContentPart], msgspec.Meta(min_length=1)]


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """One turn of the conversation. The system prompt is the server's, so `system` is no role here."""

    role: Literal["user", "assistant"]
    content: Content


class _Options(msgspec.Struct, frozen=True, kw_only=True):
    model: Annotated[str, msgspec.Meta(min_length=1, max_length=200)] | None = None
    temperature: Annotated[float, msgspec.Meta(ge=0, le=2)] | None = None
    max_output_tokens: Annotated[int, msgspec.Meta(ge=1)] | None = None


class AskRequest(_Options, frozen=True, kw_only=True):
    """The body of `POST /ask`. Fields not named here are ignored: frontends send many of their own.

    `id` names the chat, the same at every turn: by it the AI SDK finds the chat's running answer again.
    """

    messages: Annotated[list[Message], msgspec.Meta(min_length=1)]
    id: str | None = None


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """An admitted request: every default filled in, every limit applied. What an upstream is given."""

    messages: list[Message]
    model: str
    max_output_tokens: int
    temperature: float | None = None
    client: str = ""
    """Who asks, as the limits count it. No upstream is told this, at most a keyed hash of it."""
    chat_id: str | None = None
    """The chat's id as the client sent it, if it did."""


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """What this server admits."""

    models: tuple[str, ...]
    """The allow-list; the first is the default."""
    max_messages: int
    max_chars: int
    """Of all text together."""
    max_output_tokens: int
    data_images_only: bool = False
    """Whether an image must come in its message: a server that fetches URLs would fetch private ones too."""
    keeps_newest: bool = False
    """Whether of a conversation that is too long the newest turns are taken, instead of none."""


class _SentText(msgspec.Struct, frozen=True, kw_only=True, tag="text"):
    """A text part as it is sent: an empty one says nothing, and is dropped."""

    text: str


class _Attachment(msgspec.Struct, frozen=True, kw_only=True):
    """AI SDK 4's file beside a user's message."""

    content_type: str = msgspec.field(name="contentType", default="")
    url: str

    def __post_init__(self) -> None:
        check_image(self.content_type, self.url)


class _Turn(msgspec.Struct, frozen=True, kw_only=True):
    """A message in either shape. With both there, `parts` count: `content` only repeats their text."""

    role: Literal["user", "assistant", "system", "developer"]
    content: str | list[_SentText | ImagePart] | None = None
    parts: list[msgspec.Raw] | None = None
    attachments: list[_Attachment] = msgspec.field(name="experimental_attachments", default_factory=list)


class _Body(_Options, frozen=True, kw_only=True):
    messages: Annotated[list[_Turn], msgspec.Meta(min_length=1)]
    id: Any = None


_decoder = msgspec.json.Decoder(_Body)
# Escapes in JSON: whole pairs and all others first, so that what is left in group 1 is half of a pair.
_ESCAPES = re.compile(
    rb"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(\\u[dD][89a-fA-F][0-9a-fA-F]{2})|\\."
)
_VALUE = re.compile(r"value '.*'", re.DOTALL)


def decode_ask(body: bytes | bytearray) -> AskRequest:
    """Decode a request body. Raises InvalidRequest with the path of the field at fault."""
    sent = _decoded(body)
    turns = enumerate(sent.messages)
    messages = [message for index, turn in turns if (message := _message(turn, f"$.messages[{index}]"))]
    if not messages:
        raise InvalidRequest("Expected a message with text - at `$.messages`")
    is_id = isinstance(sent.id, str) and 0 < len(sent.id) <= MAX_CHAT_ID_CHARS
    return AskRequest(
        messages=messages,
        model=sent.model,
        temperature=sent.temperature,
        max_output_tokens=sent.max_output_tokens,
        id=sent.id if is_id else None,
    )


def _decoded(body: bytes | bytearray) -> _Body:
    try:
        return _decoder.decode(body)
    except UnicodeDecodeError as exc:
        raise InvalidRequest("the body is not UTF-8") from exc
    except msgspec.ValidationError as exc:
        raise InvalidRequest(_without_value(str(exc))) from exc
    except msgspec.DecodeError as exc:
        if (mended := _without_half_characters(body)) != body:
            return _decoded(mended)
        raise InvalidRequest(str(exc)) from exc
    except RecursionError as exc:
        raise InvalidRequest("the body is nested too deeply") from exc


def _without_half_characters(body: bytes | bytearray) -> bytes:
    """Replace halves of UTF-16 pairs: a frontend that cuts a text may cut a character in two."""
    return _ESCAPES.sub(lambda escape: escape[0] if escape[1] is None else b"\\ufffd", body)


def _without_value(fault: str) -> str:
    """Remove what stood where a word of a list should: `Invalid enum value 'bot' - at `$…``."""
    return _VALUE.sub("value", fault)


def _message(turn: _Turn, path: str) -> Message | None:
    """Turn either shape into OpenAI's. None for an assistant's turn of which no word arrived."""
    if turn.role in ("system", "developer"):
        raise InvalidRequest(
            f"The system prompt is the server's own (CHAT_SSE_SYSTEM_PROMPT): leave it out - at `{path}.role`"
        )
    role: Literal["user", "assistant"] = "user" if turn.role == "user" else "assistant"
    if not turn.parts and not turn.attachments:
        content = turn.content if isinstance(turn.content, str) else _parts_of(turn.content or [])
        if role == "assistant" and (not content or (isinstance(content, str) and not content.strip())):
            return None
        return Message(role=role, content=_checked(content, path))
    spoken = _spoken(turn, path)
    if role == "assistant":  # OpenAI takes its text in one piece, and no pictures
        if not all(isinstance(part, TextPart) for part in spoken):
            raise InvalidRequest(f"Expected no file in what the assistant said - at `{path}.parts`")
        text = "".join(part.text for part in spoken if isinstance(part, TextPart))
        return Message(role="assistant", content=text) if text.strip() else None
    match spoken:
        case []:
            raise InvalidRequest(f"Expected text or an image - at `{path}.parts`")
        case [TextPart(text=text)]:  # as everybody writes it; not every server takes a list
            return Message(role="user", content=_checked(text, path))
    return Message(role="user", content=spoken)


def _checked(content: str | list[ContentPart], path: str) -> Content:
    if not content or (isinstance(content, str) and not content.strip()):
        fault = "only white space" if content else "none"
        raise InvalidRequest(f"Expected some text, got {fault} - at `{path}.content`")
    return content


def _spoken(turn: _Turn, path: str) -> list[ContentPart]:
    """Return what a turn of the AI SDK says, in its order."""
    spoken: list[ContentPart] = [
        _image(part.url) if isinstance(part, UiImage) else TextPart(text=part.text)
        for part in read_parts(turn.parts or [], path)
    ]
    if not turn.parts and turn.content:
        spoken += [TextPart(text=turn.content)] if isinstance(turn.content, str) else _parts_of(turn.content)
    return [*spoken, *(_image(attachment.url) for attachment in turn.attachments)]


def _parts_of(sent: list[_SentText | ImagePart]) -> list[ContentPart]:
    return [
        TextPart(text=part.text) if isinstance(part, _SentText) else part
        for part in sent
        if not isinstance(part, _SentText) or part.text
    ]


def _image(url: str) -> ImagePart:
    return ImagePart(image_url=ImageUrl(url=url))


def admit(ask: AskRequest, policy: Policy, client: str = "") -> Question:
    """Apply the server's limits and defaults. Raises InvalidRequest or PayloadTooLarge."""
    messages = _newest(ask.messages, policy) if policy.keeps_newest else ask.messages
    if len(messages) > policy.max_messages:
        raise InvalidRequest(
            f"Expected at most {policy.max_messages} messages - at `$.messages`",
            content=CONVERSATION_TOO_LONG,
        )
    if sum(map(_chars_of, messages)) > policy.max_chars:
        raise PayloadTooLarge(
            f"Expected at most {policy.max_chars} characters of text - at `$.messages`",
            content=CONVERSATION_TOO_LONG if len(messages) > 1 else None,
        )
    if policy.data_images_only and any(map(_links_image, messages)):
        raise InvalidRequest("Expected images as `data:image/` URLs - at `$.messages`")
    model = ask.model or policy.models[0]
    if model not in policy.models:
        allowed = ", ".join(policy.models)
        raise InvalidRequest(f"This server offers {allowed} - at `$.model`")
    wanted = ask.max_output_tokens or policy.max_output_tokens
    return Question(
        messages=messages,
        model=model,
        temperature=ask.temperature,
        max_output_tokens=min(wanted, policy.max_output_tokens),
        client=client,
        chat_id=ask.id,
    )


def _chars_of(message: Message) -> int:
    if isinstance(message.content, str):
        return len(message.content)
    return sum(len(part.text) for part in message.content if isinstance(part, TextPart))


def _newest(messages: list[Message], policy: Policy) -> list[Message]:
    """Return the newest turns that fit, from one of the user's on; at least the last."""
    start, chars = len(messages), 0
    while start > max(0, len(messages) - policy.max_messages):
        chars += _chars_of(messages[start - 1])
        if chars > policy.max_chars:
            break
        start -= 1
    while 0 < start < len(messages) and messages[start].role != "user":
        start += 1
    return messages[start:] or messages[-1:]


def _links_image(message: Message) -> bool:
    return not isinstance(message.content, str) and any(
        isinstance(part, ImagePart) and not part.image_url.url.startswith("data:") for part in message.content
    )


def check_size(size: int, max_body_bytes: int) -> None:
    """Refuse a body that is too large, as soon as its size is known. Sizes are in bytes."""
    if size > max_body_bytes:
        raise PayloadTooLarge(f"the body may hold {max_body_bytes} bytes at most")
