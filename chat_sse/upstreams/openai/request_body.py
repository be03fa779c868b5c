"""What a question is in the words of a server: the request's body, and which words a server knows.

OpenAI's reasoning models refuse `max_tokens`, behind any host; older servers know nothing else; some refuse
`stream_options`. A refusal names the word, costs nothing, and tells how to ask.
"""

import hashlib
import hmac
import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

import msgspec

from chat_sse.messages import Message, Question
from chat_sse.target import CAP_FIELDS

MAX_COMPLETION_TOKENS = "max_completion_tokens"
MAX_TOKENS = "max_tokens"
_OTHER_CAP = {MAX_TOKENS: MAX_COMPLETION_TOKENS, MAX_COMPLETION_TOKENS: MAX_TOKENS}

# About the account, the time, the size or the rate: said of a question that was understood.
_NOT_ABOUT_WORDS = frozenset((401, 402, 403, 407, 408, 409, 413, 429))
# Where servers quote what they were sent, all of its words included (FastAPI: "input").
_QUOTATIONS = frozenset(("input", "body", "request", "ctx"))
# A value is refused: in other words it would be too large all the same, or would no longer be a cap.
_VALUE = re.compile(
    r"too (?:large|big|high|many|long)|at most|at least|up to|maximum|less than|greater than|exceed|between"
    r"|context.(?:length|window)|above_max|below_min|out of range|must be <|reduce",
    re.IGNORECASE,
)
# A word is refused, whatever else is said.
_WORD = re.compile(
    r"(?:un|not |isn.t )(?:support|recogni|know|expect|permit|allow|accept|available)|use \S+ instead"
    r"|extra.?(?:input|field|forbidden|param|key|argument)|invalid (?:param|field|arg)|no such|deprecated"
    r"|additional propert",
    re.IGNORECASE,
)


class Dialect(msgspec.Struct, frozen=True):
    """The words that a server knows for one model."""

    cap_field: str
    stream_options: bool = True


class RequestWriter:
    """Writes the bodies of one upstream's requests, and remembers each model's dialect."""

    def __init__(
        self,
        base_url: str,
        *,
        system_prompt: str | None = None,
        extra: Mapping[str, Any] | None = None,
        identifier_key: bytes | None = None,
    ) -> None:
        """`extra`: the operator's fields. `identifier_key`: None sends no `safety_identifier`."""
        host = urlsplit(base_url).hostname or ""
        extra = extra or {}
        own = host.endswith((".openai.com", ".openai.azure.com"))
        self._first = Dialect(MAX_COMPLETION_TOKENS if own else MAX_TOKENS)
        self._dialects: dict[str, Dialect] = {}
        self._system = [{"role": "system", "content": system_prompt}] if system_prompt else []
        self._caps = [value for name, value in extra.items() if name in CAP_FIELDS]
        self._extra = {name: value for name, value in extra.items() if name not in CAP_FIELDS}
        self._identifier_key = identifier_key if host.endswith(".openai.com") else None

    def dialect(self, model: str) -> Dialect:
        """Return the words for a model, as far as they are known."""
        return self._dialects.get(model, self._first)

    def remember(self, model: str, dialect: Dialect) -> None:
        """Use these words for a model from now on."""
        self._dialects[model] = dialect

    def messages(self, question: Question) -> list[Message | dict[str, str]]:
        """Return the conversation as it is sent."""
        return [*self._system, *question.messages]

    def body(self, question: Question, dialect: Dialect) -> bytes:
        """Return the body. The service's own fields win over the operator's, and those over a client's."""
        body: dict[str, Any] = {}
        if question.temperature is not None:
            body["temperature"] = question.temperature
        if self._identifier_key is not None:
            body["safety_identifier"] = safety_identifier(self._identifier_key, question.client)
        body |= self._extra
        body |= {"model": question.model, "messages": self.messages(question), "stream": True}
        if dialect.stream_options:
            body["stream_options"] = {"include_usage": True}
        body[dialect.cap_field] = min((question.max_output_tokens, *self._caps))
        return msgspec.json.encode(body)


def safety_identifier(key: bytes, client: str) -> str:
    """Return a name for a client that OpenAI can count by, and from which nobody learns who it is.

    Source: OpenAI's guide "Safety best practices", `safety_identifier`: a stable hash of at most 64
    characters. Keyed, since all IPv4 addresses are hashed in minutes.
    """
    return hmac.digest(
        key, b"safety_identifier:" + client.encode("utf-8", "surrogatepass"), hashlib.sha256
    ).hex()


def adapted(dialect: Dialect, status: int, content: bytes) -> Dialect | None:
    """Return the words to ask in after a refusal; None where it is not about words that were used."""
    if not 400 <= status < 500 or status in _NOT_ABOUT_WORDS:  # noqa: PLR2004 - HTTP's own numbers
        return None
    said = "\n".join(_said(content))
    if _VALUE.search(said) and not _WORD.search(said):
        return None
    cap_field, stream_options = dialect.cap_field, dialect.stream_options
    if _names(cap_field, said):
        cap_field = _OTHER_CAP[cap_field]
    if _names("stream_options", said):
        stream_options = False
    changed = Dialect(cap_field, stream_options)
    return None if changed == dialect else changed


def _names(word: str, said: str) -> bool:
    return re.search(rf"(?<![A-Za-z0-9_]){word}(?![A-Za-z0-9_])", said) is not None


def _said(content: bytes) -> Iterator[str]:
    """Yield all text of an error's JSON but what it quotes of the question, or the body as it is."""
    try:
        yield from _texts(msgspec.json.decode(content))
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        yield content.decode("utf-8", "replace")


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)
    elif isinstance(value, dict):
        for name, item in value.items():
            yield str(name)
            if name not in _QUOTATIONS:
                yield from _texts(item)
