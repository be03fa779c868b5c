"""What is known of an answer once it has ended."""

from collections.abc import Awaitable, Callable
from typing import Literal, TypeAlias

import msgspec

from chat_sse.events import Usage
from chat_sse.messages import Question


class AnswerRecord(msgspec.Struct, frozen=True, kw_only=True):
    """How one call to upstream went. It holds no content. Times are in seconds."""

    stream_id: str
    request_id: str
    owner: str
    """The principal that asked: a key's name, or what `authenticate` said."""
    model: str
    """The model that was asked for."""
    answered_by: str
    """The model that answered: another one after a fallback."""
    outcome: Literal["done", "cancelled", "error"]
    """`done`: upstream ended it. `cancelled`: it was stopped, or nobody read it. `error`: it failed."""
    abandoned: bool
    """Whether it was cancelled because nobody read it."""
    finish_reason: str | None
    """As upstream said it, or "cancelled"; None after an error too."""
    error: str | None
    """The error's code."""
    details: str | None
    """The error's details."""
    may_cost: bool
    """False where upstream has refused the question, which costs nothing."""
    usage: Usage | None
    """None where upstream did not tell it, as it cannot after a stop."""
    charged_tokens: int
    """What the budgets count for it: what upstream told, else the most that it can have cost."""
    started_at: float
    """When it was asked, since 1970."""
    first_event_seconds: float | None
    """How long upstream took to its first event; None where there was none."""
    seconds: float
    """How long the whole call took."""
    events: int
    """How many events readers were sent, the first and the last included."""
    size: int
    """Bytes of all events."""
    readers: int
    """How often it was read in the process that asked, until it ended."""
    resumes: int
    """How many of those readers came back after an event that they had seen."""


class AnsweredQuestion(AnswerRecord, frozen=True, kw_only=True):
    """A record with what was asked and answered."""

    question: Question
    text: str
    """The answer as far as it came, as readers were sent it."""
    reasoning: str
    """The model's reasoning, likewise."""


Observer: TypeAlias = Callable[[AnswerRecord], None]
"""Called once for each call to upstream when it has ended. Never waits, never raises."""

AfterAnswer: TypeAlias = Callable[[AnsweredQuestion], Awaitable[None]]
"""Called once for each call to upstream that may cost, when it has ended, whatever its readers do."""
