"""From OpenAI's chunks to events, and the verdict on how an answer ended. Pure: no I/O, no clock.

Source: OpenAI API reference, "Chat completion chunk object". A strict, fast decoder reads what is written by
the reference; `tolerant.py` reads everything else.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from chat_sse.errors import UpstreamError, UpstreamProtocol, UpstreamTimeout, UpstreamUnavailable
from chat_sse.events import Delta, Done, Reasoning, Usage
from chat_sse.upstreams.base import UpstreamEvent
from chat_sse.upstreams.openai.classify import Told, classify, read_error
from chat_sse.upstreams.openai.events import ErrorData, EventSplitter, NamedData
from chat_sse.upstreams.openai.redaction import names_of
from chat_sse.upstreams.openai.tolerant import Chunk, clean_reason, read_chunk

# A finish_reason that says that the answer was cut. Providers invent their own words for it.
_FAILED = re.compile(
    r"error|fail|time_?out|abort|cancel|insufficient|unavailable|overload|interrupt|malformed|network|"
    r"exception|crash|disconnect|incomplete",
    re.IGNORECASE,
)


class _Delta(msgspec.Struct, gc=False):
    content: str | None = None
    refusal: str | None = None
    reasoning_content: str | None = None  # DeepSeek, vLLM, llama.cpp
    reasoning: str | None = None  # OpenRouter, Ollama, newer vLLM
    reasoning_details: Any = None

    @property
    def is_plain(self) -> bool:
        return not self.reasoning_details or bool(self.reasoning_content or self.reasoning)


class _Choice(msgspec.Struct, gc=False):
    index: int = 0
    delta: _Delta | None = None
    finish_reason: str | None = None
    message: Any = None
    text: Any = None
    usage: Any = None
    error: Any = None

    @property
    def is_plain(self) -> bool:
        if self.message or self.text or self.usage or self.error:
            return False
        return self.delta is None or self.delta.is_plain


class _Chunk(msgspec.Struct, gc=False):
    """A chunk as OpenAI's reference describes it, and the members by which it may differ from that."""

    choices: list[_Choice]
    usage: Usage | None = None
    error: Any = None
    object: str | None = None
    x_groq: Any = None
    usage_metadata: Any = msgspec.field(name="usageMetadata", default=None)

    @property
    def is_plain(self) -> bool:
        if self.error or self.x_groq or self.usage_metadata or self.object == "error":
            return False
        return all(choice.is_plain for choice in self.choices)


_decode_chunk = msgspec.json.Decoder(_Chunk).decode
_decode_json = msgspec.json.Decoder().decode


class ChunkDecoder:
    """Turns OpenAI's chunks into events and judges how the stream ended.

    `feed` and `end` never raise for what upstream did: they set `fault`, so that the events which arrived
    together with a fault are not lost. After `finished` or `fault`, nothing more is decoded.

    A finish_reason that is followed by more text was not the last word. A null one up to the end completes
    an answer only when upstream confirmed it twice: with usage, which is sent after the last token, and with
    `[DONE]`. Some Ollama versions end complete answers so; `Done.finish_reason` is then null.

    `scrub` returns what may be told of an error: see `redaction.py`.
    """

    def __init__(self, scrub: Callable[[Told], str] = names_of) -> None:
        self.finished = False
        self.fault: UpstreamError | None = None
        self.finish_reason: str | None = None
        self._earlier_reason: str | None = None
        self._usage: Usage | None = None
        self._has_text = self._has_message = False
        self._scrub = scrub
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

    def end(self, *, lost: bool = False) -> list[UpstreamEvent]:
        """Judge a stream whose bytes have ended. `lost`: the connection broke, so that they may be cut."""
        events: list[UpstreamEvent] = []
        if self.finished or self.fault:
            return events
        try:
            if (rest := self._splitter.end()) and self._decode(rest, events):
                return events
            # A server that sends a finish_reason with every chunk has not ended an answer with one.
            if self.finish_reason is None or (lost and self._earlier_reason):
                raise UpstreamProtocol("upstream closed the stream before the answer was complete")
            self._finish(events)  # a server that does not say [DONE]
        except UpstreamError as exc:
            self.fault = exc
        return events

    def read_body(self, body: bytes) -> list[UpstreamEvent]:
        """Decode a body that is no event stream: one JSON object, a whole completion or an error."""
        events: list[UpstreamEvent] = []
        try:
            value = _decode_json(body)
            chunk = read_chunk(value)
            if chunk.error is None and not (isinstance(value, Mapping) and value.get("choices")):
                self.fault = not_a_completion()
                return events
            self._take_tolerantly(chunk, events)
            self._finish(events)
        except UpstreamError as exc:
            self.fault = exc
        except (ValueError, RecursionError):  # msgspec's DecodeError and UnicodeDecodeError are ValueErrors
            self.fault = not_a_completion()
        return events

    def _decode(self, payload: bytes, events: list[UpstreamEvent]) -> bool:
        """Append the chunk's events; True when it was the last."""
        if payload.lstrip().startswith(b"[DONE]"):
            self.finish_reason = self.finish_reason or self._earlier_reason
            if self.finish_reason is None and self._usage is None:
                raise UpstreamProtocol("upstream ended the answer without a finish_reason")
            self._finish(events)
            return True
        if isinstance(payload, ErrorData):
            raise self._error(_json_or_text(payload))
        try:
            chunk = _decode_chunk(payload)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            self._read(payload, events)
            return False
        if chunk.is_plain:
            self._take(chunk, events)
        else:
            self._read(payload, events)
        return False

    def _take(self, chunk: _Chunk, events: list[UpstreamEvent]) -> None:
        if chunk.usage is not None:
            self._usage = chunk.usage
        for choice in chunk.choices:
            if choice.index == 0:
                delta, count = choice.delta, len(events)
                if delta is not None:
                    if reasoning := delta.reasoning_content or delta.reasoning:
                        events.append(Reasoning(reasoning))
                    if content := delta.content or delta.refusal:
                        events.append(Delta(content))
                self._note(choice.finish_reason, has_more=len(events) > count)

    def _read(self, payload: bytes, events: list[UpstreamEvent]) -> None:
        """Read what is no plain chunk. Raises UpstreamError for an error, and for what nobody can read."""
        if not payload.strip():
            return
        try:
            chunk = read_chunk(_decode_json(payload))
        except (ValueError, RecursionError) as exc:
            if isinstance(payload, NamedData):
                return
            raise UpstreamProtocol("upstream sent a chunk that is not one") from exc
        self._take_tolerantly(chunk, events)

    def _take_tolerantly(self, chunk: Chunk, events: list[UpstreamEvent]) -> None:
        if chunk.error is not None:
            raise self._error(chunk.error)
        self._usage = chunk.usage or self._usage
        # A message after deltas repeats their text.
        repeats = chunk.has_message and self._has_text and not self._has_message
        if not repeats:
            events += chunk.events
            self._has_message = self._has_message or chunk.has_message
        self._note(chunk.finish_reason, has_more=bool(chunk.events) and not repeats)

    def _note(self, reason: str | None, *, has_more: bool) -> None:
        """Remember a finish_reason, and that an earlier one was not the last word."""
        if has_more:
            self._has_text = True
            self._earlier_reason = self.finish_reason or self._earlier_reason
            self.finish_reason = None
        if cleaned := clean_reason(reason):
            self.finish_reason = cleaned

    def _finish(self, events: list[UpstreamEvent]) -> None:
        reason = self.finish_reason
        if reason is not None and _FAILED.search(reason):
            details = f"upstream ended the answer with the finish_reason {reason}"
            kind = UpstreamTimeout if re.search("time_?out", reason, re.IGNORECASE) else UpstreamUnavailable
            raise kind(details, may_cost=True)
        self.finished = True
        events.append(Done(finish_reason=reason, usage=self._usage))

    def _error(self, error: Any) -> UpstreamError:
        told = read_error(error)
        names = self._scrub(told)
        return classify(told, None, ": ".join(filter(None, ("upstream reported an error", names))))


def not_a_completion() -> UpstreamProtocol:
    """Return the error for a successful response that is neither an event stream nor a completion."""
    details = "upstream answered with something that is no chat completion; is OPENAI_BASE_URL right?"
    return UpstreamProtocol(details, retryable=False)


def _json_or_text(data: bytes) -> Any:
    try:
        return _decode_json(data)
    except (ValueError, RecursionError):
        return data.decode("utf-8", "replace")
