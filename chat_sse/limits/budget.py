"""How many tokens may be spent in a day or a month: by one client, and by everybody together.

The budget is hard. Before upstream is asked, the most that the question can cost is taken out of it: an upper
bound of the prompt and the whole output cap. When the answer has ended, what it did not cost is put back. So
no number of questions at the same time can spend more than there is.

Windows are days and months of UTC. An answer belongs to the window in which it was asked.
"""

import unicodedata
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Final, Self

import msgspec

from chat_sse.errors import BudgetSpent, PayloadTooLarge
from chat_sse.events import Usage
from chat_sse.limits.headers import LimitStatus, limit_headers
from chat_sse.messages import Question, TextPart

# Byte-level BPE (OpenAI, Llama 3, Qwen, Mistral and others) makes at most one token of a byte. Around a
# message stand some tokens of the chat template (OpenAI's cookbook: 3 or 4; Llama 3: 5), and before the
# conversation some servers put a system prompt of their own (gpt-oss: some 70 tokens).
TOKENS_PER_MESSAGE = 16
TOKENS_PER_CONVERSATION = 256
# Tokenizers use NFC (Qwen), NFKC (SentencePiece's default), NFD (BERT and its kin). A composed character has
# no more bytes than its decomposition, so the decomposed forms bound the composed ones.
DECOMPOSED_FORMS: Final = ("NFD", "NFKD")
# Sorting combining characters takes quadratic time: 100,000 of them in one piece took 8 s, in these 20 ms.
# Each character is decomposed by itself, so the pieces have as many bytes as the whole.
PIECE_CHARS = 256
# Some templates mark or separate each content part.
TOKENS_PER_PART = 8
# The dearest image of the OpenAI API: gpt-4o-mini, 2,833 tokens and 5,667 for each of at most 8 tiles of 512
# pixels (within 2,048 by 768). Models that count patches stay below it. (OpenAI's guide "Images and vision".)
TOKENS_PER_IMAGE = 2_833 + 8 * 5_667

SECONDS_PER_HOUR = 3600


class Window(msgspec.Struct, frozen=True):
    """One day or month; times are in seconds since 1970."""

    name: str
    start: float
    end: float


class Budget(msgspec.Struct, frozen=True):
    """So many tokens in a day or a month."""

    tokens: int
    period: str

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """Read `1000000/day` or `/month`; None for `off`."""
        if text == "off":
            return None
        tokens, _, period = text.partition("/")
        return cls(int(tokens), period)

    def times(self, factor: int) -> Self:
        """Return a multiple of it."""
        return type(self)(factor * self.tokens, self.period)

    def share(self, percent: int, at_least: int) -> Self | None:
        """Return a part of it, of `at_least` so many tokens. None where that is no part."""
        part = max(self.tokens * percent // 100, at_least)
        return type(self)(part, self.period) if part < self.tokens else None

    def window(self, now: float) -> Window:
        """Return the window that a time lies in."""
        return _window(self.period, int(now // SECONDS_PER_HOUR))

    def status(self, spent: int, now: float) -> LimitStatus:
        """Return how much is left."""
        window = self.window(now)
        seconds = round(window.end - window.start)
        return LimitStatus(self.tokens, seconds, max(0, self.tokens - spent), window.end - now)


@lru_cache(8)
def _window(period: str, hour: int) -> Window:
    """Return the window that an hour lies in; days and months of UTC begin with one."""
    moment = datetime.fromtimestamp(hour * SECONDS_PER_HOUR, UTC)
    start = moment.replace(hour=0)
    if period == "day":
        return Window(f"{start:%Y-%m-%d}", start.timestamp(), (start + timedelta(days=1)).timestamp())
    start = start.replace(day=1)
    following = (start + timedelta(days=31)).replace(day=1)
    return Window(f"{start:%Y-%m}", start.timestamp(), following.timestamp())


def prompt_bound(question: Question, system_prompt: str | None = None) -> int:
    """Return a number of tokens that the prompt cannot exceed."""
    tokens = TOKENS_PER_CONVERSATION + (_bytes_of(system_prompt) if system_prompt else 0)
    for message in question.messages:
        tokens += TOKENS_PER_MESSAGE
        if isinstance(message.content, str):
            tokens += _bytes_of(message.content)
            continue
        for part in message.content:
            tokens += TOKENS_PER_PART
            tokens += _bytes_of(part.text) if isinstance(part, TextPart) else TOKENS_PER_IMAGE
    return tokens


def _bytes_of(text: str) -> int:
    """Return the bytes of a text's largest form. Tokenizers may normalise first, which can grow a text."""
    if text.isascii():
        return len(text)
    pieces = [text[start : start + PIECE_CHARS] for start in range(0, len(text), PIECE_CHARS)]
    decomposed = (
        sum(_utf8(unicodedata.normalize(form, piece)) for piece in pieces) for form in DECOMPOSED_FORMS
    )
    return max(_utf8(text), *decomposed)


def _utf8(text: str) -> int:
    return len(text.encode("utf-8", "surrogatepass"))


def tokens_told(usage: Usage) -> int:
    """Read upstream's own count; of two that disagree the larger one."""
    return max(0, usage.total_tokens, usage.prompt_tokens + usage.completion_tokens)


def budget_spent(budget: Budget, spent: int, whose: str, now: float) -> BudgetSpent:
    """Return the refusal of a question that could cost more than is left."""
    window = budget.window(now)
    return BudgetSpent(
        f"limit: {budget.tokens} tokens per {budget.period} {whose}; "
        "this question may cost more than is left",
        retry_after=window.end - now,
        headers=limit_headers(None, budget.status(spent, now)),
    )


def check_fits(budget: Budget, tokens: int) -> None:
    """Raise PayloadTooLarge for a question that no new day or month would make room for."""
    if tokens > budget.tokens:
        raise PayloadTooLarge(
            f"this question may cost {tokens} tokens with its answer, and the whole budget is "
            f"{budget.tokens} a {budget.period}: shorten the conversation, or set a smaller max_output_tokens"
        )
