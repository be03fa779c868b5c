"""From a stream of bytes to the data of its server-sent events. Pure: no I/O, no clock.

Source: WHATWG HTML, "9.2.5 Parsing an event stream". Bytes are split on LF and CR alone: a text decoder's
`splitlines` also splits on U+2028 and U+0085, which are legal inside a JSON string. Beyond the standard, an
error may be a field of its own (`error: {…}`) or a bare line of JSON, as some servers send it.
"""

from collections.abc import Iterable, Iterator

import msgspec

from chat_sse.errors import UpstreamProtocol

# An event may hold an image as a data URL: as much as a log may hold, with its envelope.
MAX_EVENT_BYTES = 17 * 1_048_576
# A line of JSON in the place of an event is looked at up to here: an error is a sentence or two.
MAX_BARE_BYTES = 65_536

# How lines begin.
FIELD_STARTS = (b":", b"data:", b"event:", b"id:", b"retry:", b"error:")
JSON_STARTS = (b"{", b"[")
NOTHING = (b"", b"null", b"{}", b"[]")


class ErrorData(bytes):
    """The data of an event that is called an error: by its name, or by a field `error` instead of `data`."""


class NamedData(bytes):
    """The data of an event with a name of its own, such as a ping: no fault when it cannot be read."""


class EventSplitter:
    """Cuts a byte stream into the data of its server-sent events, wherever the network split it."""

    __slots__ = ("_is_after_cr", "_rest")

    def __init__(self) -> None:
        self._rest = bytearray()
        self._is_after_cr = False

    @property
    def is_at_rest(self) -> bool:
        """Whether an event has just ended, and none has begun."""
        return not self._rest

    def feed(self, data: bytes) -> Iterable[bytes]:
        """Return the data of each event that `data` completes. Raises UpstreamProtocol for an endless one."""
        if (
            not self._rest
            and data.find(b"\n") == len(data) - 2
            and data.startswith(b"data: ")
            and data.endswith(b"\n\n")
            and b"\r" not in data
        ):
            return (data[6:-2],)  # as an upstream sends a delta: one event of one line, in one piece
        return self._split(data)

    def _split(self, data: bytes) -> Iterator[bytes]:
        data = self._with_line_feeds(data)
        if self._rest:
            # What is held has been searched already: a large event may arrive in thousands of pieces.
            start = len(self._rest) - 1
            self._rest += data
            if self._rest.find(b"\n\n", start) < 0:
                yield from self._bare_line()
                self._check_size()
                return
            data = bytes(self._rest)
        *blocks, rest = data.split(b"\n\n")
        self._rest = bytearray(rest.lstrip(b"\n"))
        for block in blocks:
            # Nearly every event is a single data line; the general case is the same, only slower.
            if block.startswith(b"data: ") and b"\n" not in block:
                yield block[6:]
            else:
                yield from _payloads_of(block)
        yield from self._bare_line()
        self._check_size()

    def _with_line_feeds(self, data: bytes) -> bytes:
        if self._is_after_cr:
            data = data.removeprefix(b"\n")  # the other half of a CRLF
        self._is_after_cr = data.endswith(b"\r")
        return data.replace(b"\r\n", b"\n").replace(b"\r", b"\n") if b"\r" in data else data

    def _bare_line(self) -> Iterator[bytes]:
        """Yield a line of JSON at once: a server that says its error so may send no blank line after it."""
        rest = self._rest
        if rest.startswith(JSON_STARTS) and rest.endswith(b"\n") and len(rest) < MAX_BARE_BYTES:
            try:
                msgspec.json.decode(rest)
            except (ValueError, RecursionError):
                return  # it goes on in the next line
            self._rest = bytearray()
            yield bytes(rest)

    def _check_size(self) -> None:
        if len(self._rest) > MAX_EVENT_BYTES:
            raise UpstreamProtocol("upstream sent an event without an end", retryable=False)

    def end(self) -> Iterable[bytes]:
        """Return the data of an event that the end of the stream cut short of its blank line."""
        rest, self._rest = bytes(self._rest), bytearray()
        return _payloads_of(rest)


def _payloads_of(block: bytes) -> Iterator[bytes]:
    """Yield an event's error or data, then the bare JSON among its lines."""
    lines = block.removeprefix(b"\xef\xbb\xbf").split(b"\n")
    bare: list[bytes] = []
    if b"\n{" in block or b"\n[" in block or lines[0].startswith(JSON_STARTS):
        start = next(place for place, line in enumerate(lines) if line.startswith(JSON_STARTS))
        bare = [line for line in lines[start:] if not line.startswith(FIELD_STARTS)]
        lines = lines[:start] + [line for line in lines[start:] if line.startswith(FIELD_STARTS)]
    data, name = _field(lines, b"data"), _field(lines, b"event").strip().lower()
    if errors := _field(lines, b"error"):
        yield ErrorData(errors)
    if b"error" in name:
        yield ErrorData(data if data.strip() not in NOTHING else b"error")
    elif data:
        yield NamedData(data) if name else data
    if bare:
        yield b"\n".join(bare)


def _field(lines: Iterable[bytes], name: bytes) -> bytes:
    """Return a field's values, joined as the standard says."""
    head = name + b":"
    found = [line[len(head) :].removeprefix(b" ") for line in lines if line.startswith(head)]
    return b"\n".join(found)
