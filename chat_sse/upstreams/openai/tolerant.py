"""Any JSON that a model server sends, read as far as it can be understood. Pure: no I/O, no clock.

`chunks.py` decodes what OpenAI's reference describes. Everything else comes here: content in parts, a whole
message instead of a delta, usage under other names, fields of unexpected types. What is not understood is
passed over, since bookkeeping must not cost an answer.
"""

import json
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
_REASONING = (
    *("reasoning_content", "reasoning", "thinking", "reasoning_text"),
    *("reasoning_details", "thinking_blocks"),
)
# Where servers that know no `error` put one, and what stands there when there is none.
_ERROR_CODES = ("code", "error_code", "errcode", "err_code", "status_code")
_ERROR_MESSAGES = ("message", "msg", "error_msg", "errmsg", "err_msg", "status_msg", "error_message")
_NO_ERROR = ("", "0", "200", "null", "none", "false", "undefined", "ok", "success", "no error")
_THINKING_TYPES = ("thinking", "reasoning", "reasoning.text", "reasoning.summary", "redacted_thinking")


class Chunk(msgspec.Struct, frozen=True, kw_only=True):
    """What a chunk says. `error`: an error object as upstream wrote it, or None."""

    events: Sequence[Delta | Reasoning] = ()
    finish_reason: str | None = None
    usage: Usage | None = None
    error: Any = None
    has_message: bool = False
    """Whether the text stood in a `message`, where a stream has a `delta`."""
    index: float | None = None
    """Of the choice that was read; None where none had a number."""


def read_chunk(value: Any, index: float | None = None) -> Chunk:
    """Read one decoded JSON value. Raises ValueError for what is neither an object nor null nor an error.

    `index`: of the answer's choice, one being asked for; None takes the first choice that has one.
    """
    if value is None:
        return Chunk()
    if not isinstance(value, dict):
        if (error := error_in(value)) is not None:
            return Chunk(error=error)
        raise ValueError("no JSON object")
    events: list[Delta | Reasoning] = []
    reason, usage, error, has_message = None, _usage_of_chunk(value), error_in(value), False
    for choice in _choices_of(value):
        number = choice.get("index")
        if isinstance(number, int | float):
            index = number if index is None else index
            if number != index:
                continue
        delta = choice.get("delta")
        if not isinstance(delta, dict):
            delta = {"content": delta or choice.get("text")}
        found = list(_events_of(delta))
        if not found and isinstance(message := choice.get("message"), dict):
            found = list(_events_of(message))
            has_message = has_message or bool(found)
        events += found
        reason = clean_reason(choice.get("finish_reason")) or reason
        usage = usage or usage_of(choice.get("usage"))
        errors = (error, choice.get("error"), delta.get("error"))
        error = next((said for said in errors if holds_error(said)), None)
    return Chunk(
        events=events,
        finish_reason=reason,
        usage=usage,
        error=error,
        has_message=has_message,
        index=index,
    )


def _choices_of(value: Json) -> Iterator[Json]:
    """Yield the choices. Raises ValueError where there can be none."""
    choices = value.get("choices") or []
    if not isinstance(choices, list | dict):
        raise ValueError("no choices")  # noqa: TRY004 - of upstream's making, not of a caller's
    for choice in choices if isinstance(choices, list) else [choices]:
        if isinstance(choice, dict):
            yield choice


def error_in(value: Any) -> Any:
    """Return the error that a JSON value holds, or None. An empty one is none."""
    if isinstance(value, list):
        return next((error for item in value if (error := error_in(item)) is not None), None)
    if not isinstance(value, dict):
        return None
    for holder in (value, value.get("x_groq")):
        error = holder.get("error") if isinstance(holder, dict) else None
        if holds_error(error) and not (error is True and value.get("choices")):
            return value if error is True else error
    return None if value.get("choices") else _error_without_a_name(value)


def _error_without_a_name(value: Json) -> Any:
    """Return the error that an object is, or None: it is called one, or has a message and a code."""
    if "error" in (value.get("object"), value.get("type")) or value.get("success") is False:
        return value
    if value.get("errors") or value.get("detail"):
        return value  # JSON:API's and FastAPI's bodies
    for holder in (value, value.get("base_resp")):  # MiniMax
        if (
            isinstance(holder, dict)
            and any(isinstance(holder.get(name), str) for name in _ERROR_MESSAGES)
            and any(holds_error(holder.get(name)) for name in _ERROR_CODES)
        ):
            return holder
    return None


def holds_error(error: Any) -> bool:
    """Return whether an error is said under a name for errors: null, {"code": 0} and "ok" say none."""
    if isinstance(error, dict):
        return any(map(holds_error, error.values()))
    if isinstance(error, list):
        return any(map(holds_error, error))
    return error is not None and str(error).strip().lower() not in _NO_ERROR


def decode_json(data: bytes) -> Any:
    """Decode JSON as servers write it: with NaN, with raw control characters, with half of a character.

    Bytes that are no UTF-8 become U+FFFD. Raises ValueError or RecursionError for anything else.
    """
    try:
        return msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return json.loads(data.decode("utf-8", "replace"), strict=False)


def clean_reason(reason: Any) -> str | None:
    """Return a finish_reason in printable ASCII and at most MAX_REASON_CHARS; None for what says nothing."""
    if not isinstance(reason, str) or reason.strip().lower() in _NO_REASON:
        return None
    return _UNPRINTABLE.sub("?", reason.strip())[:MAX_REASON_CHARS]


def usage_of(value: Any) -> Usage | None:
    """Return token counts as far as two of prompt, completion and total are known."""
    if not isinstance(value, dict):
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


def _usage_of_chunk(value: Json) -> Usage | None:
    extension = value.get("x_groq")
    places = (
        value.get("usage"),
        extension.get("usage") if isinstance(extension, dict) else None,
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
        kind = Reasoning if isinstance(part, dict) and part.get("type") in _THINKING_TYPES else Delta
        if text := "".join(_texts(part)):
            yield kind(text)


def _texts(value: Any) -> Iterator[str]:
    """Yield the strings of a text in whichever shape: a string, a list of parts, a part."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for part in value:
            yield from _texts(part)
    elif isinstance(value, dict):
        for name in ("text", "thinking", "summary", "content", "refusal"):
            if value.get(name):
                yield from _texts(value[name])
                return
