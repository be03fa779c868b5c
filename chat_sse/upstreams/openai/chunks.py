"""From OpenAI's stream of bytes to events. Pure: no I/O, no clock.

Sources: WHATWG HTML, "9.2.5 Parsing an event stream"; OpenAI API reference, "Chat completion chunk object".

Bytes are split on the bytes LF and CR alone. A text decoder's `splitlines` also splits on U+2028 and U+0085,
which are legal inside a JSON string.
"""

from collections.abc import Iterable, Iterator

import msgspec

from chat_sse.errors import (
    UpstreamAuthentication,
    UpstreamError,
    UpstreamProtocol,
    UpstreamRateLimit,
    UpstreamRejected,
    UpstreamUnavailable,
)
from chat_sse.events import Delta, Done, Reasoning, Usage
from chat_sse.upstreams.base import UpstreamEvent

# A chunk is some hundred bytes; an event that outgrows this is no chunk, and must not fill the memory.
MAX_EVENT_BYTES = 1_048_576


class _Delta(msgspec.Struct, gc=False):
    content: str | None = None
    refusal: str | None = None
    reasoning_content: str | None = None  # DeepSeek, vLLM, llama.cpp
    reasoning: str | None = None  # OpenRouter, Ollama, newer vLLM


class _Choice(msgspec.Struct, gc=False):
    index: int = 0
    delta: _Delta | None = None
    finish_reason: str | None = None


class _Error(msgspec.Struct, gc=False):
    type: str | None = None
    code: str | int | None = None


class _Chunk(msgspec.Struct, gc=False):
    choices: list[_Choice] | None = None
    usage: Usage | None = None
    error: _Error | str | None = None


_decode_chunk = msgspec.json.Decoder(_Chunk).decode


class EventSplitter:
    """Cut a byte stream into the data of its server-sent events, wherever the network split it."""

    def __init__(self) -> None:
        self._rest = b""

    @property
    def is_at_rest(self) -> bool:
        """Whether an event has just ended, and none has begun."""
        return not self._rest

    def feed(self, data: bytes) -> Iterable[bytes]:
        """Give the data of each event that `data` completes. Raises UpstreamProtocol for an endless one."""
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
        data = self._rest + data
        held = b""
        if b"\r" in data:
            if data.endswith(b"\r"):  # may be half of a CRLF
                data, held = data[:-1], b"\r"
            data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        *blocks, rest = data.split(b"\n\n")
        self._rest = rest + held
        for block in blocks:
            # Nearly every event is a single data line; the general case is the same, only slower.
            if block.startswith(b"data: ") and b"\n" not in block:
                yield block[6:]
            elif found := _data_of(block):
                yield found
        if len(self._rest) > MAX_EVENT_BYTES:
            raise UpstreamProtocol("upstream sent an event without an end")

    def end(self) -> bytes:
        """Give the data of an event that the end of the stream cut short of its blank line, or b""."""
        rest, self._rest = self._rest, b""
        return _data_of(rest.replace(b"\r", b"\n"))


def _data_of(block: bytes) -> bytes:
    lines = (line for line in block.removeprefix(b"\xef\xbb\xbf").split(b"\n") if line.startswith(b"data:"))
    return b"\n".join(line[5:].removeprefix(b" ") for line in lines)


class ChunkDecoder:
    """Turn OpenAI's chunks into events and judge how the stream ended.

    `feed` and `end` never raise for what upstream did: they set `fault`, so that the events which arrived
    together with a fault are not lost. After `finished` or `fault`, nothing more is decoded.

    A null `finish_reason` up to the end is no reason to call an answer complete, unless upstream vouched for
    it twice: with usage, which is sent after the last token, and with `[DONE]`. Some Ollama versions end
    complete answers so; `Done.finish_reason` is then null, as upstream said it.
    """

    def __init__(self) -> None:
        self.finished = False
        self.fault: UpstreamError | None = None
        self.finish_reason: str | None = None
        self._usage: Usage | None = None
        self._splitter = EventSplitter()

    @property
    def is_at_rest(self) -> bool:
        """Whether the next bytes begin an event, and events are still taken."""
        return self._splitter.is_at_rest and not self.finished and self.fault is None

    @property
    def is_as_new(self) -> bool:
        """Whether it would go on like one that has been fed nothing."""
        return self.is_at_rest and self.finish_reason is None and self._usage is None

    def feed(self, data: bytes) -> list[UpstreamEvent]:
        """Decode what arrived. Ends with Done once upstream said `[DONE]`."""
        events: list[UpstreamEvent] = []
        if self.finished or self.fault:
            return events
        try:
            for payload in self._splitter.feed(data):
                if self._decode(payload, events):
                    break
        except UpstreamError as exc:
            self.fault = exc
        return events

    def end(self) -> list[UpstreamEvent]:
        """Judge a stream whose bytes have ended, cleanly or not."""
        events: list[UpstreamEvent] = []
        if self.finished or self.fault:
            return events
        try:
            if rest := self._splitter.end():
                self._decode(rest, events)
        except UpstreamError as exc:
            self.fault = exc
            return events
        if not self.finished:
            if self.finish_reason is not None:  # a server that does not say [DONE]
                self._finish(events)
            else:
                self.fault = UpstreamProtocol("upstream closed the stream before the answer was complete")
        return events

    def _decode(self, payload: bytes, events: list[UpstreamEvent]) -> bool:
        """Append the chunk's events; True when it was the last."""
        if payload.startswith(b"[DONE]"):
            if self.finish_reason is None and self._usage is None:
                raise UpstreamProtocol("upstream ended the answer without a finish_reason")
            self._finish(events)
            return True
        try:
            chunk = _decode_chunk(payload)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
            raise UpstreamProtocol("upstream sent a chunk that is not one") from exc
        if chunk.error is not None:
            raise _translate(chunk.error)
        if chunk.usage is not None:
            self._usage = chunk.usage
        for choice in chunk.choices or ():
            if choice.index == 0:
                self._take(choice, events)
        return False

    def _take(self, choice: _Choice, events: list[UpstreamEvent]) -> None:
        delta = choice.delta
        if delta is not None:
            if reasoning := delta.reasoning_content or delta.reasoning:
                events.append(Reasoning(reasoning))
            if content := delta.content or delta.refusal:
                events.append(Delta(content))
        if choice.finish_reason:
            self.finish_reason = choice.finish_reason

    def _finish(self, events: list[UpstreamEvent]) -> None:
        self.finished = True
        events.append(Done(finish_reason=self.finish_reason, usage=self._usage))


def _translate(error: _Error | str) -> UpstreamError:
    """Tell an error object in the stream. Its text may quote the prompt, so only its type is used."""
    names = set() if isinstance(error, str) else {str(error.type), str(error.code)}
    details = "upstream reported an error in the middle of the answer"
    if names & {"rate_limit_error", "rate_limit_exceeded", "tokens", "requests", "429"}:
        return UpstreamRateLimit(details)
    if "insufficient_quota" in names:
        return UpstreamRateLimit(details, retryable=False)
    if names & {"authentication_error", "invalid_api_key", "401", "403"}:
        return UpstreamAuthentication(details)
    if names & {"invalid_request_error", "BadRequestError", "400"}:
        return UpstreamRejected(details)
    return UpstreamUnavailable(details)
