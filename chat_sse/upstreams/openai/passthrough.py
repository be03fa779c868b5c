"""What the chunks of one answer have in common, so that most of them need no parsing. Pure: no I/O, no clock.

A model's chunks differ in the delta's text and in nothing else, but for padding that no client reads
(OpenAI's `obfuscation`). So one is decoded, and what later stands between the same bytes is known to be a
delta's text: JSON has no other way to read it as long as it is the inside of a string, and one that we would
write with the same bytes. Whatever is not like that goes the decoder's way, and the decoder itself vouches
for each passthrough.
"""

import re

import msgspec

from chat_sse.events import Delta, Reasoning, entry_around
from chat_sse.upstreams.openai.chunks import ChunkDecoder

# What stands for itself in a JSON string (RFC 8259, 7), so far as it is ASCII.
_PLAIN = bytes(byte for byte in range(0x20, 0x80) if byte not in b'"\\')
# A string's inside with such escapes as our own encoder writes, but for the long ones.
_CANONICAL = re.compile(rb'(?:[^"\\\x00-\x1f]|\\["\\bfnrt])*')
# Put where a text and a padding were, to see what the decoder makes of it.
_TEXT, _PADDING = "~text~", b"~padding~"

_encode = msgspec.json.Encoder().encode


class Passthrough:
    """An event's bytes before a delta's text, and those after it."""

    __slots__ = ("_after", "_before", "_end", "_form", "_start", "kind", "served")

    def __init__(self, kind: type[Delta | Reasoning], before: bytes, after: bytes) -> None:
        self.kind, self._form = kind, entry_around(kind)
        self._before, self._after = before, after
        self._start, self._end = len(before), -len(after)
        self.served = False
        """Whether any event was like it."""

    def entry(self, data: bytes) -> bytes | None:
        """Return the log's entry for an event's bytes; None when they are not like the passthrough's."""
        if not (data.startswith(self._before) and data.endswith(self._after)):
            return None
        text = data[self._start : self._end]
        if not text or (text.translate(None, _PLAIN) and not _is_canonical(text)):
            return None
        self.served = True
        return self._form % text

    def filled(self) -> bytes:
        """Return an event that is like it."""
        return b"".join((self._before, _TEXT.encode(), self._after))

    def padded(self, other: "Passthrough") -> "Passthrough | None":
        """Return one for which the string that differs from another chunk's is padding, if there is one."""
        if (other.kind, other._before) != (self.kind, self._before):  # noqa: SLF001 - its own kind
            return None
        mine, others = self._after, other._after  # noqa: SLF001
        same = _common(mine, others)
        end = mine[len(mine) - _common(mine[same:][::-1], others[same:][::-1]) :]
        middle, end = mine[: mine.rfind(b'"', 0, same) + 1], end[end.find(b'"') :]
        if not middle.endswith(b':"') or not end.startswith(b'"'):
            return None
        return PaddedPassthrough(self.kind, self._before, middle, end)


class PaddedPassthrough(Passthrough):
    """The same with the padding in a string of its own behind the text."""

    __slots__ = ("_middle",)

    def __init__(self, kind: type[Delta | Reasoning], before: bytes, middle: bytes, after: bytes) -> None:
        """`middle`: from the text's quote to that before the padding; `after`: from the quote behind it."""
        super().__init__(kind, before, after)
        self._middle = middle

    def entry(self, data: bytes) -> bytes | None:
        """Return it, as `Passthrough.entry` does."""
        end = data.find(b'"', self._start)
        behind = end + len(self._middle)
        if not (
            data.startswith(self._before)
            and data.startswith(self._middle, end)
            and data.endswith(self._after, behind)
        ):
            return None
        text, padding = data[self._start : end], data[behind : self._end]
        if not text or (
            (text + padding).translate(None, _PLAIN) and not (_is_canonical(text) and _is_canonical(padding))
        ):
            return None
        self.served = True
        return self._form % text

    def filled(self) -> bytes:
        """Return an event that is like it."""
        return b"".join((self._before, _TEXT.encode(), self._middle, _PADDING, self._after))

    def padded(self, other: Passthrough) -> None:
        """Return none: it is."""


def derive(data: bytes, event: Delta | Reasoning, known: Passthrough | None) -> Passthrough | None:
    """Make a passthrough of an event's bytes and what they were decoded to; None where they make none.

    `known`: an earlier one, which they were not like.
    """
    quoted = _encode(event.content)
    before, found, after = data.partition(quoted)
    if not found or b"\n" in before:  # no delta of an answer comes behind other lines but its first
        return None
    passthrough = Passthrough(type(event), before + b'"', b'"' + after)
    for one in (known and passthrough.padded(known), passthrough):
        if one and _verified(one):
            return one
    return None


def _verified(passthrough: Passthrough) -> bool:
    """Ask the decoder: whether the text is all that there is in such an event."""
    decoder = ChunkDecoder()
    return decoder.feed(passthrough.filled()) == [passthrough.kind(_TEXT)] and decoder.is_as_new


def _common(one: bytes, other: bytes) -> int:
    """Count the bytes with which both begin."""
    shorter = min(len(one), len(other))
    return next((place for place in range(shorter) if one[place] != other[place]), shorter)


def _is_canonical(text: bytes) -> bool:
    """Return whether our own encoder would write a text like this between a string's quotes."""
    if not _CANONICAL.fullmatch(text):
        return False
    if not text.isascii():
        try:
            text.decode()
        except UnicodeDecodeError:
            return False
    return True
