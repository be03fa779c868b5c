"""The parts of the Vercel AI SDK's messages: what of them was said.

Source: `UIMessagePart` in the package `ai`, versions 5 to 7, and `UIMessage` in 4.
"""

from collections.abc import Iterator, Sequence
from typing import TypeAlias, TypeVar

import msgspec

from chat_sse.errors import InvalidRequest


class UiText(msgspec.Struct, frozen=True, kw_only=True):
    """A part `text`."""

    text: str  # empty where an answer was cut before its first word


class UiImage(msgspec.Struct, frozen=True, kw_only=True):
    """A part `file`."""

    media_type: str = msgspec.field(name="mediaType")
    url: str

    def __post_init__(self) -> None:
        check_image(self.media_type, self.url)


UiPart: TypeAlias = UiText | UiImage


class _Kind(msgspec.Struct, frozen=True, kw_only=True):
    type: str


Part = TypeVar("Part")
_read_kind = msgspec.json.Decoder(_Kind)
_read_text = msgspec.json.Decoder(UiText)
_read_image = msgspec.json.Decoder(UiImage)


def read_parts(parts: Sequence[msgspec.Raw], path: str) -> Iterator[UiPart]:
    """Yield what was said in a message's parts. Raises InvalidRequest with the part's path below `path`.

    What stood beside an answer's text is no part of what was said, and is passed over: reasoning, sources,
    steps, tools, an application's own data, and whatever later versions add.
    """
    for index, raw in enumerate(parts):
        place = f"{path}.parts[{index}]"
        kind = _read(_read_kind, raw, place).type
        if kind == "text":
            if (text := _read(_read_text, raw, place)).text:
                yield text
        elif kind == "file":
            yield _read(_read_image, raw, place)


def check_image(media_type: str, url: str) -> None:
    """Raise ValueError for a file that is no image. `image/png`, `image/*` and `image` are allowed types."""
    if media_type.partition("/")[0].lower() != "image":
        raise ValueError("Expected a file with an image media type")
    if not url.startswith(("https://", "data:image/")):
        raise ValueError("Expected an https URL or a `data:image/` URL")


def _read(decoder: msgspec.json.Decoder[Part], raw: msgspec.Raw, place: str) -> Part:
    try:
        return decoder.decode(raw)
    except msgspec.DecodeError as exc:
        fault, _, where = str(exc).partition(" - at `$")
        raise InvalidRequest(f"{fault} - at `{place}{where or '`'}") from exc
