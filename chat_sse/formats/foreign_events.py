"""Event streams of other protocols, numbered: an entry becomes any number of their events.

The last of an entry's events has its number as its id. What a client has seen of an entry whose last event
it has not, it gets once more when it resumes.
"""

from collections.abc import Iterator, Sequence

import msgspec

from chat_sse.events import Event, as_ascii, decode_event
from chat_sse.formats.sse import HEARTBEAT, NumberedEncoder

# Where a protocol has no other word for it.
STOPPED = "The answer was stopped."

encode_json = msgspec.json.Encoder().encode


class ForeignEncoder(NumberedEncoder):
    """Encodes one reading, which begins at the answer's start, and leaves out what was seen before."""

    __slots__ = ("_after",)

    def __init__(self, stream_id: str, after: int) -> None:
        """`after`: the number of the last entry that the client has seen, -1 for none."""
        super().__init__(stream_id, 0)
        self._after = after

    def encode(self, entries: Sequence[bytes]) -> bytes:
        """Return consecutive entries as one piece of the body, which is never empty: that would end it."""
        pieces: list[bytes] = []
        for seq, entry in enumerate(entries, self._next):
            events = list(self.translate(decode_event(entry)))
            if seq > self._after:
                pieces += (b"data: %s\n\n" % as_ascii(event) for event in events[:-1])
                pieces.append(b"data: %s%s%d\n\n" % (as_ascii(events[-1]), self._id, seq))
        self._next += len(entries)
        return b"".join(pieces) or HEARTBEAT

    def encode_fault(self, event: bytes) -> bytes:
        """Return the error without an id, as `SseEncoder` does."""
        return b"".join(b"data: %s\n\n" % as_ascii(data) for data in self.translate(decode_event(event)))

    def translate(self, event: Event) -> Iterator[bytes]:
        """Yield the data of the protocol's events for one of ours: at least one."""
        raise NotImplementedError
