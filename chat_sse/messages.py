"""What a client asks: the JSON of `POST /ask`, its constraints, and the checks a type cannot express.

Two shapes of a message are understood: OpenAI's (`content`) and the Vercel AI SDK's (`parts`, "UIMessage"; in
version 4 beside a `content` that repeats their text). The second is turned into the first here, so that no
other floor knows of it.
"""

import re
from typing import Annotated, Any, Literal, TypeAlias, TypeVar

import msgspec

from chat_sse.errors import InvalidRequest, PayloadTooLarge
from chat_sse.ui_messages import UiImage, check_image, read_parts

Text: TypeAlias = Annotated[str, msgspec.Meta(min_length=1)]
Tokens: TypeAlias = Annotated[int, msgspec.Meta(ge=1)]

# Chat ids are made by clients; the AI SDK's have 16 characters. A longer one than this is no id.
MAX_CHAT_ID_CHARS = 200
# Of an idempotency key.
MAX_KEY_CHARS = 255


Role: TypeAlias = Literal["user", "assistant", "system", "developer"]
SYSTEM_ROLES = ("system", "developer")


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
    """One turn of the conversation.

    The system prompt is the server's: a client may add to it only where CHAT_SSE_SYSTEM_MESSAGES allows it.
    """

    role: Role
    content: Content


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """What may be asked for beside the question."""

    model: Annotated[str, msgspec.Meta(min_length=1, max_length=200)] | None = None
    temperature: Annotated[float, msgspec.Meta(ge=0, le=2)] | None = None


class AskOptions(Options, frozen=True, kw_only=True):
    """The options as `/ask` names them."""

    max_output_tokens: Tokens | None = None


class AskRequest(AskOptions, frozen=True, kw_only=True):
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


class SentText(msgspec.Struct, frozen=True, kw_only=True, tag="text"):
    """A text part as it is sent: an empty one says nothing, and is dropped."""

    text: str


class _Attachment(msgspec.Struct, frozen=True, kw_only=True):
    """AI SDK 4's file beside a user's message."""

    content_type: str = msgspec.field(name="contentType", default="")
    url: str

    def __post_init__(self) -> None:
        check_image(self.content_type, self.url)


class Turn(msgspec.Struct, frozen=True, kw_only=True):
    """A message in either shape. With both there, `parts` count: `content` only repeats their text."""

    role: Role
    content: str | list[SentText | ImagePart] | None = None
    parts: list[msgspec.Raw] | None = None
    attachments: list[_Attachment] = msgspec.field(name="experimental_attachments", default_factory=list)


class Body(AskOptions, frozen=True, kw_only=True):
    """A body as it is sent."""

    messages: Annotated[list[Turn], msgspec.Meta(min_length=1)]
    id: Any = None


Sent = TypeVar("Sent")
_decoder = msgspec.json.Decoder(Body)
# Escapes in JSON: whole pairs and all others first, so that what is left in group 1 is half of a pair.
_ESCAPES = re.compile(
    rb"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(\\u[dD][89a-fA-F][0-9a-fA-F]{2})|\\."
)
_VALUE = re.compile(r"value '.*'", re.DOTALL)


def decode_ask(body: bytes | bytearray, *, allows_system: bool = False) -> AskRequest:
    """Decode a request body. Raises InvalidRequest with the path of the field at fault.

    `allows_system`: whether there may be messages of the roles `system` and `developer`.
    """
    return ask_of(decode(_decoder, body), allows_system=allows_system)


def ask_of(sent: Body, *, allows_system: bool) -> AskRequest:
    """Check a decoded body, as `decode_ask` does."""
    if not allows_system:
        _refuse_system_messages(sent)
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


def _refuse_system_messages(sent: Body) -> None:
    for index, turn in enumerate(sent.messages):
        if turn.role in SYSTEM_ROLES:
            raise InvalidRequest(
                "The system prompt is the server's own (CHAT_SSE_SYSTEM_PROMPT): leave it out - at "
                f"`$.messages[{index}].role`"
            )


def decode(decoder: msgspec.json.Decoder[Sent], body: bytes | bytearray) -> Sent:
    """Decode a body of any type. Raises InvalidRequest with the path of the field at fault."""
    try:
        return decoder.decode(body)
    except UnicodeDecodeError as exc:
        raise InvalidRequest("the body is not UTF-8") from exc
    except msgspec.ValidationError as exc:
        raise InvalidRequest(_without_value(str(exc))) from exc
    except msgspec.DecodeError as exc:
        if (mended := _without_half_characters(body)) != body:
            return decode(decoder, mended)
        raise InvalidRequest(str(exc)) from exc
    except RecursionError as exc:
        raise InvalidRequest("the body is nested too deeply") from exc


def _without_half_characters(body: bytes | bytearray) -> bytes:
    """Replace halves of UTF-16 pairs: a frontend that cuts a text may cut a character in two."""
    return _ESCAPES.sub(lambda escape: escape[0] if escape[1] is None else b"\\ufffd", body)


def _without_value(fault: str) -> str:
    """Remove what stood where a word of a list should: `Invalid enum value 'bot' - at `$…``."""
    return _VALUE.sub("value", fault)


def _message(turn: Turn, path: str) -> Message | None:
    """Turn either shape into OpenAI's. None for an assistant's turn of which no word arrived."""
    role = turn.role
    if not turn.parts and not turn.attachments:
        content = turn.content if isinstance(turn.content, str) else _parts_of(turn.content or [])
        if role == "assistant" and (not content or (isinstance(content, str) and not content.strip())):
            return None
        return Message(role=role, content=_checked(content, path))
    spoken = _spoken(turn, path)
    if role != "user":  # OpenAI takes their text in one piece, and no pictures
        if not all(isinstance(part, TextPart) for part in spoken):
            raise InvalidRequest(f"Expected no file in what the {role} said - at `{path}.parts`")
        text = "".join(part.text for part in spoken if isinstance(part, TextPart))
        if role == "assistant" and not text.strip():
            return None
        return Message(role=role, content=_checked(text, path))
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


def _spoken(turn: Turn, path: str) -> list[ContentPart]:
    """Return what a turn of the AI SDK says, in its order."""
    spoken: list[ContentPart] = [
        _image(part.url) if isinstance(part, UiImage) else TextPart(text=part.text)
        for part in read_parts(turn.parts or [], path)
    ]
    if not turn.parts and turn.content:
        spoken += [TextPart(text=turn.content)] if isinstance(turn.content, str) else _parts_of(turn.content)
    return [*spoken, *(_image(attachment.url) for attachment in turn.attachments)]


def _parts_of(sent: list[SentText | ImagePart]) -> list[ContentPart]:
    return [
        TextPart(text=part.text) if isinstance(part, SentText) else part
        for part in sent
        if not isinstance(part, SentText) or part.text
    ]


def _image(url: str) -> ImagePart:
    return ImagePart(image_url=ImageUrl(url=url))


def check_size(size: int, max_body_bytes: int) -> None:
    """Refuse a body that is too large, as soon as its size is known. Sizes are in bytes."""
    if size > max_body_bytes:
        raise PayloadTooLarge(f"the body may hold {max_body_bytes} bytes at most")
