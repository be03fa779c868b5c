"""From a stream of bytes to the data of its server-sent events. Pure: no I/O, no clock.

Source: WHATWG HTML, "9.2.5 Parsing an event stream". Bytes are split on LF and CR alone: a text decoder's
`splitlines` also splits on U+2028 and U+0085, which are legal inside a JSON string. Beyond the standard, an
error may be a field of its own (`error: {…}`) or a bare line of JSON, as some servers send it.
"""

from collections.abc import Iterable, Iterator

from chat_sse.errors import UpstreamProtocol

# An event may hold an image as a data URL: as much as a log may hold, with its envelope.
MAX_EVENT_BYTES = 17 * 1_048_576


class ErrorData(bytes):
    """The data of an event that is called an error: by its name, or by a field `error` instead of `data`."""


class NamedData(bytes):
    """The data of an event with a name of its own, such as a ping: no fault when it cannot be read."""


class EventSplitter:
    """Cuts a byte stream into the data of its server-sent events, wherever the network split it."""

    def __init__(self) -> None:
        self._rest: list[bytes] = []
        self._rest_bytes = 0

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
        if self._rest and b"\n" not in data and b"\r" not in data:
            self._hold(data)  # joined once its line ends: a large event arrives in hundreds of pieces
            return
        data = b"".join((*self._rest, data))
        self._rest, self._rest_bytes, held = [], 0, b""
        if b"\r" in data:
            if data.endswith(b"\r"):  # may be half of a CRLF
                data, held = data[:-1], b"\r"
            data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        *blocks, rest = data.split(b"\n\n")
        if rest := rest + held:
            self._hold(rest)
        for block in blocks:
            # Nearly every event is a single data line; the general case is the same, only slower.
            if block.startswith(b"data: ") and b"\n" not in block:
                yield block[6:]
            elif found := _data_of(block):
                yield found

    def _hold(self, data: bytes) -> None:
        self._rest.append(data)
        self._rest_bytes += len(data)
        if self._rest_bytes > MAX_EVENT_BYTES:
            raise UpstreamProtocol("upstream sent an event without an end")

    def end(self) -> bytes:
        """Return the data of an event that the end of the stream cut short of its blank line, or b""."""
        rest, self._rest = b"".join(self._rest), []
        return _data_of(rest.replace(b"\r", b"\n"))


def _data_of(block: bytes) -> bytes:
    """Return an event's data; the block itself where it is bare JSON, as some servers send their errors."""
    block = block.removeprefix(b"\xef\xbb\xbf").lstrip(b"\n")
    if block.startswith((b"{", b"[")):
        return block
    lines = block.split(b"\n")
    if errors := _field(lines, b"error"):
        return ErrorData(errors)
    data = _field(lines, b"data")
    if name := _field(lines, b"event").strip():
        return ErrorData(data) if name == b"error" else NamedData(data)
    return data


def _field(lines: Iterable[bytes], name: bytes) -> bytes:
    """Return a field's values, joined as the standard says."""
    head = name + b":"
    found = [line[len(head) :].removeprefix(b" ") for line in lines if line.startswith(head)]
    return b"\n".join(found)
