"""Any JSON that a model server sends, read as far as it can be understood. Pure: no I/O, no clock.

`chunks.py` decodes what OpenAI's reference describes. Everything else comes here: content in parts, a whole
message instead of a delta, usage under other names, fields of unexpected types. What is not understood is
passed over, since bookkeeping must not cost an answer.
"""

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import msgspec

from chat_sse.events import Delta, Reasoning, Usage

Json: TypeAlias = Mapping[str, Any]

# A finish_reason is a word. Longer ones, and control characters in it, are no reason but an attack on logs.
MAX_REASON_CHARS = 64
_NO_REASON = ("", "null", "none", "undefined")
_UNPRINTABLE = re.compile(r"[^\x20-\x7e]+")
# JavaScript's largest exact integer; more tokens than any answer has.
MAX_TOKENS = 2**53 - 1

_PROMPT = ("prompt_tokens", "input_tokens", "promptTokenCount", "prompt_eval_count", "inputTokens")
_COMPLETION = ("completion_tokens", "output_tokens", "candidatesTokenCount", "eval_count", "outputTokens")
_TOTAL = ("total_tokens", "totalTokenCount", "totalTokens")
_REASONING = ("reasoning_content", "reasoning", "thinking", "reasoning_details")
_THINKING_TYPES = ("thinking", "reasoning", "reasoning.text", "reasoning.summary", "redacted_thinking")


class Chunk(msgspec.Struct, frozen=True, kw_only=True):
    """What a chunk says. `error`: an error object as upstream wrote it, or None."""

    events: Sequence[Delta | Reasoning] = ()
    finish_reason: str | None = None
    usage: Usage | None = None
    error: Any = None
    has_message: bool = False
    """Whether the text stood in a `message`, where a stream has a `delta`."""


def read_chunk(value: Any) -> Chunk:
    """Read one decoded JSON value. Raises ValueError for what is neither an object nor null nor an error."""
    if value is None:
        return Chunk()
    if not isinstance(value, Mapping):
        if (error := error_in(value)) is not None:
            return Chunk(error=error)
        raise ValueError("no JSON object")
    choice = first_choice(value)
    message = choice.get("delta")
    has_message = not isinstance(message, Mapping) and isinstance(choice.get("message"), Mapping)
    if has_message:
        message = choice["message"]
    elif not isinstance(message, Mapping):
        message = {"content": message or choice.get("text")}
    return Chunk(
        events=list(_events_of(message)),
        finish_reason=clean_reason(choice.get("finish_reason")),
        usage=_usage_in(value, choice),
        error=error_in(value) or choice.get("error") or None,
        has_message=has_message,
    )


def first_choice(value: Json) -> Json:
    """Return the choice with the index 0, or an empty one."""
    choices = value.get("choices") or []
    if not isinstance(choices, list | Mapping):
        raise ValueError("no choices")  # noqa: TRY004 - of upstream's making, not of a caller's
    candidates = choices if isinstance(choices, list) else [choices]
    for choice in candidates:
        if isinstance(choice, Mapping) and (choice.get("index") or 0) in (0, "0"):
            return choice
    return {}


def error_in(value: Any) -> Any:
    """Return the error that a JSON value holds, or None. An empty one is none."""
    if isinstance(value, list):
        return next((error for item in value if (error := error_in(item)) is not None), None)
    if not isinstance(value, Mapping):
        return None
    if error := value.get("error"):
        return None if error is True and value.get("choices") else value if error is True else error
    if value.get("object") == "error" or value.get("type") == "error":
        return value
    if not value.get("choices") and (value.get("errors") or value.get("detail")):
        return value  # FastAPI's and JSON:API's bodies
    return None


def clean_reason(reason: Any) -> str | None:
    """Return a finish_reason in printable ASCII and at most MAX_REASON_CHARS; None for what says nothing."""
    if not isinstance(reason, str) or reason.strip().lower() in _NO_REASON:
        return None
    return _UNPRINTABLE.sub("?", reason.strip())[:MAX_REASON_CHARS]


def usage_of(value: Any) -> Usage | None:
    """Return token counts as far as two of prompt, completion and total are known."""
    if not isinstance(value, Mapping):
        return None
    prompt, completion, total = (_count(value, names) for names in (_PROMPT, _COMPLETION, _TOTAL))
    if prompt is None and completion is not None and total is not None:
        prompt = max(0, total - completion)
    if completion is None and prompt is not None and total is not None:
        completion = max(0, total - prompt)
    if prompt is None or completion is None:
        return None
    return Usage(
        prompt_tokens=prompt,
        completion_tokens=completion,
        total_tokens=prompt + completion if total is None else total,
    )


def _usage_in(value: Json, choice: Json) -> Usage | None:
    extension = value.get("x_groq")
    places = (
        value.get("usage"),
        choice.get("usage"),
        extension.get("usage") if isinstance(extension, Mapping) else None,
        value.get("usage_metadata") or value.get("usageMetadata"),
    )
    return next((usage for place in places if (usage := usage_of(place)) is not None), None)


def _count(value: Json, names: Iterable[str]) -> int | None:
    for name in names:
        number = value.get(name)
        if isinstance(number, str):
            try:
                number = float(number)
            except ValueError:
                continue
        if isinstance(number, int | float) and not isinstance(number, bool) and 0 <= number <= MAX_TOKENS:
            return math.ceil(number)
    return None


def _events_of(message: Json) -> Iterator[Delta | Reasoning]:
    """Yield a message's reasoning, under the first name that has some, then its text."""
    for name in _REASONING:
        if reasoning := "".join(_texts(message.get(name))):
            yield Reasoning(reasoning)
            break
    yield from _content(message.get("content") or message.get("refusal"))


def _content(content: Any) -> Iterator[Delta | Reasoning]:
    for part in content if isinstance(content, list) else [content]:
        kind = Reasoning if isinstance(part, Mapping) and part.get("type") in _THINKING_TYPES else Delta
        if text := "".join(_texts(part)):
            yield kind(text)


def _texts(value: Any) -> Iterator[str]:
    """Yield the strings of a text in whichever shape: a string, a list of parts, a part."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for part in value:
            yield from _texts(part)
    elif isinstance(value, Mapping):
        for name in ("text", "thinking", "summary", "content", "refusal"):
            if value.get(name):
                yield from _texts(value[name])
                return
