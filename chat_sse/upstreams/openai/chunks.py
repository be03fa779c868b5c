"""From OpenAI's chunks to events, and the verdict on how an answer ended. Pure: no I/O, no clock.

Source: OpenAI API reference, "Chat completion chunk object". `plain.py` decodes what is written by the
reference; `tolerant.py` reads everything else.
"""

import re
from contextlib import suppress
from typing import Any

import msgspec

from chat_sse.errors import UpstreamError, UpstreamProtocol, UpstreamTimeout, UpstreamUnavailable
from chat_sse.events import Delta, Done, Reasoning, Usage
from chat_sse.upstreams.base import UpstreamEvent
from chat_sse.upstreams.openai.classify import classify, read_error
from chat_sse.upstreams.openai.events import ErrorData, EventSplitter, NamedData
from chat_sse.upstreams.openai.plain import RestChunk, TextChunk, decode_rest, decode_text
from chat_sse.upstreams.openai.redaction import names_of
from chat_sse.upstreams.openai.tolerant import (
    Chunk,
    clean_reason,
    decode_json,
    holds_error,
    read_chunk,
)

# A finish_reason that says that the answer was cut. Providers invent their own words for it.
_FAILED = re.compile(
    r"error|fail|time_?out|abort|cancel|insufficient|unavailable|overload|interrupt|malformed|network|"
    r"exception|crash|disconnect|incomplete|unexpected|internal|invalid|server|exhaust|preempt|terminat|fault",
    re.IGNORECASE,
)


# Words that some servers send as data, to say that they are alive.
_SIGNALS = (b"", b"null", b"ping", b"pong", b"keep-alive", b"keepalive", b"keep_alive", b"heartbeat", b"ok")


class ChunkDecoder:
    """Turns OpenAI's chunks into events and judges how the stream ended.

    `feed` and `end` never raise for what upstream did: they set `fault`, so that the events which arrived
    together with a fault are not lost. After `finished` or `fault`, nothing more is decoded.

    A finish_reason that is followed by more text was not the last word. A null one up to the end completes
    an answer only when upstream confirmed it twice: with usage, which is sent after the last token, and with
    `[DONE]`. Some Ollama versions end complete answers so; `Done.finish_reason` is then null.

    `secrets`: what must not stand in an error, see `redaction.py`.
    """

    __slots__ = (
        "_earlier_reason",
        "_half_character",
        "_has_message",
        "_has_text",
        "_index",
        "_secrets",
        "_splitter",
        "_usage",
        "fault",
        "finish_reason",
        "finished",
    )

    def __init__(self, secrets: tuple[str, ...] = ()) -> None:
        self.finished = False
        self.fault: UpstreamError | None = None
        self.finish_reason: str | None = None
        self._earlier_reason: str | None = None
        self._index: float | None = None  # of the choice that is the answer
        self._usage: Usage | None = None
        self._half_character = ""
        self._has_text = self._has_message = False
        self._secrets = secrets
        self._splitter = EventSplitter()

    @property
    def is_at_rest(self) -> bool:
        """Whether the next bytes begin an event, and events are still taken."""
        return (
            self._splitter.is_at_rest
            and not self.finished
            and self.fault is None
            and not self._half_character
        )

    @property
    def is_doubtful(self) -> bool:
        """Whether a finish_reason was followed by more text, so that the next one may be too."""
        return self._earlier_reason is not None

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
            self.fault = exc.with_traceback(None)  # whose frames refer to this
        return events

    def end(self, *, lost: bool = False) -> list[UpstreamEvent]:
        """Judge a stream whose bytes have ended. `lost`: the connection broke, so that they may be cut."""
        events: list[UpstreamEvent] = []
        if self.finished or self.fault:
            return events
        try:
            for payload in self._splitter.end():
                if self._decode(payload, events):
                    return events
            # A server that sends a finish_reason with every chunk has not ended an answer with one.
            if self.finish_reason is None or (lost and self._earlier_reason):
                raise UpstreamProtocol("upstream closed the stream before the answer was complete")
            self._finish(events)  # a server that does not say [DONE]
        except UpstreamError as exc:
            self.fault = exc.with_traceback(None)  # whose frames refer to this
        return events

    def read_body(self, body: bytes) -> list[UpstreamEvent]:
        """Decode a body that is no event stream: a whole completion, an error, or chunks, one a line."""
        events: list[UpstreamEvent] = []
        try:
            value = decode_json(body)
            chunk = read_chunk(value, self._index)
            if chunk.error is None and not (isinstance(value, dict) and value.get("choices")):
                self.fault = not_a_completion()
                return events
            self._take_tolerantly(chunk, events)
            self._finish(events)
        except UpstreamError as exc:
            self.fault = exc.with_traceback(None)  # whose frames refer to this
        except (ValueError, RecursionError):
            if not body.lstrip().startswith(b"{") or b"\n" not in body.strip():
                self.fault = not_a_completion()
                return events
            events = self.feed(b"data: " + b"\n\ndata: ".join(body.split(b"\n")) + b"\n\n")
            events += self.end()
        return events

    def _decode(self, payload: bytes, events: list[UpstreamEvent]) -> bool:
        """Append the chunk's events; True when it was the last."""
        if type(payload) is ErrorData:
            error = _json_or_text(payload)
            if holds_error(error):
                raise self._error(error)
            return False
        if payload.startswith(b"["):  # [DONE], as a rule
            return self._read(payload, events)
        try:
            if self._take(decode_text(payload), events) or self._take_rest(decode_rest(payload)):
                return False
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            pass  # not as the reference describes it
        return self._read(payload, events)

    def _take(self, chunk: TextChunk, events: list[UpstreamEvent]) -> bool:
        """Append a text, and return True; False where a chunk says more than a text, or something else."""
        choices = chunk.choices
        if chunk.usage or len(choices) != 1 or choices[0].finish_reason or self._half_character:
            return False
        delta = choices[0].delta
        content = delta.content
        if delta.reasoning_content or delta.reasoning or delta.reasoning_details:
            if not (reasoning := delta.reasoning_content or delta.reasoning):
                return False
            events.append(Reasoning(reasoning))
            if content:
                events.append(Delta(content))
        elif content:
            events.append(Delta(content))
        else:
            return False
        self._has_text = True
        if self.finish_reason is not None:
            self._note(None, has_more=True)
        return True

    def _take_rest(self, chunk: RestChunk) -> bool:
        """Note a finish_reason or usage. Returns False for a chunk with neither choices nor usage."""
        if (usage := chunk.usage) is not None:
            self._usage = Usage(
                prompt_tokens=usage.prompt_tokens,
                completion_tokens=usage.completion_tokens,
                total_tokens=usage.total_tokens,
            )
        for choice in chunk.choices:
            self._index = choice.index
            self._note(choice.finish_reason, has_more=False)
        return bool(chunk.choices) or usage is not None

    def _read(self, payload: bytes, events: list[UpstreamEvent]) -> bool:
        """Read what is no plain chunk, and return whether it was the last.

        Raises UpstreamError for an error, and for what is neither an answer nor a signal.
        """
        word = payload.strip().strip(b'"').lower()
        if word.startswith(b"[done]"):
            self.finish_reason = self.finish_reason or self._earlier_reason
            if self.finish_reason is None and self._usage is None:
                raise UpstreamProtocol("upstream ended the answer without a finish_reason")
            self._finish(events)
            return True
        if word in _SIGNALS:
            return False
        try:
            # A plain text, which notes nothing, had the index 0.
            index = 0 if self._has_text and self._index is None else self._index
            chunk = read_chunk(decode_json(payload), index)
            if any("\ufffd" in event.content for event in chunk.events):
                payload.decode()  # in a text, bytes that are no UTF-8 are a fault
        except (ValueError, RecursionError) as exc:
            lines = payload.split(b"\n")
            if len(lines) > 1:  # of events with no blank line between them
                return any(self._decode(line, events) for line in lines)
            if isinstance(payload, NamedData):
                return False
            raise UpstreamProtocol("upstream sent a chunk that is not one") from exc
        self._take_tolerantly(chunk, events)
        return False

    def _take_tolerantly(self, chunk: Chunk, events: list[UpstreamEvent]) -> None:
        if chunk.error is not None:
            raise self._error(chunk.error)
        self._usage = chunk.usage or self._usage
        self._index = chunk.index if self._index is None else self._index
        # A message after deltas repeats their text.
        repeats = chunk.has_message and self._has_text and not self._has_message
        if not repeats:
            events += filter(None, map(self._mended, chunk.events))
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
            if _FAILED.search(cleaned):
                details = f"upstream ended the answer with the finish_reason {cleaned}"
                is_timeout = re.search("time_?out", cleaned, re.IGNORECASE)
                raise (UpstreamTimeout if is_timeout else UpstreamUnavailable)(details, may_cost=True)

    def _mended(self, event: Delta | Reasoning) -> Delta | Reasoning | None:
        """Return an event whose text is Unicode: half a character waits for its other half (UTF-16)."""
        text, self._half_character = self._half_character + event.content, ""
        if text.isascii():
            return event
        if "\ud800" <= text[-1] <= "\udbff":
            text, self._half_character = text[:-1], text[-1]
        text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
        return type(event)(text) if text else None

    def _finish(self, events: list[UpstreamEvent]) -> None:
        self.finished = True
        events.append(Done(finish_reason=self.finish_reason, usage=self._usage))

    def _error(self, error: Any) -> UpstreamError:
        told = read_error(error)
        names = names_of(told, self._secrets)
        return classify(told, None, ": ".join(filter(None, ("upstream reported an error", names))))


def not_a_completion() -> UpstreamProtocol:
    """Return the error for a successful response that is neither an event stream nor a completion."""
    details = "upstream answered with something that is no chat completion; is OPENAI_BASE_URL right?"
    return UpstreamProtocol(details, retryable=False)


def error_body(content: bytes) -> Any:
    """Return the JSON of an error response, which may stand in an event; None for a page or for nothing."""
    for payload in (content, *EventSplitter().feed(content + b"\n\n")):
        with suppress(ValueError, RecursionError):
            return decode_json(payload)
    return None


def _json_or_text(data: bytes) -> Any:
    try:
        return decode_json(data)
    except (ValueError, RecursionError):
        return data.decode("utf-8", "replace")
