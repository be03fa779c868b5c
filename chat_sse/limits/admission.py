"""What a question has to pass before it may cost anything: slots, budgets and rates.

A request that asks gets a permit. It takes a slot and tokens only when it is a new question, and does not
attach to an answer.
"""

import math
from typing import Self

import msgspec

from chat_sse.errors import KeyReused
from chat_sse.events import Done
from chat_sse.limits.budget import prompt_bound, tokens_told
from chat_sse.limits.counts import Counts, Reservation
from chat_sse.limits.headers import limit_headers
from chat_sse.limits.plan import NO_LIMITS_OF_ITS_OWN, OwnLimits
from chat_sse.messages import Question

# Above what the fastest public servers give to one answer (Cerebras, Groq: up to 3,000).
TOKENS_PER_SECOND = 5_000


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """How an upstream call ended, as far as it matters to who pays."""

    refused: bool
    """Upstream refused the question before it did anything, which costs nothing."""
    done: Done | None
    """Upstream's own end of a complete answer."""
    seconds: float
    """How long the call has lasted."""
    size: int
    """Bytes of all events, so more than the answer has tokens."""


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """The limits of this server."""

    counts: Counts
    system_prompt: str | None
    """What is put before every conversation, and costs tokens too."""

    def permit(
        self, client: str, *, attaches: bool = False, own_limits: OwnLimits = NO_LIMITS_OF_ITS_OWN
    ) -> "Permit":
        """Let a request in that asks. Raises TooManyRequests when its client's rate is known to be used up.

        `attaches`: it carries the key of an answer that is there. It costs nobody anything and does not
        count, so that a reader whose connection breaks again and again always gets back to its answer.
        """
        if not attaches:
            self.counts.check(client, own_limits)
        return Permit(self, client, own_limits, attaches=attaches)


class Permit:
    """One request that asks, on its way through.

    It counts with its question, in one step. Its block counts one that ends with an error before that.
    """

    def __init__(self, limits: Limits, client: str, own_limits: OwnLimits, *, attaches: bool) -> None:
        self._limits = limits
        self._client = client
        self._own_limits = own_limits
        self._is_free = attaches
        self._is_counted = False
        self._output_tokens = 0
        self._reservation: Reservation | None = None
        self._told: Reservation | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        is_due = isinstance(error, KeyReused if self._is_free else Exception)  # only attaching is free
        if is_due and not self._is_counted:
            await self._limits.counts.count(self._client, self._own_limits)

    async def admit(self, stream_id: str, question: Question) -> None:
        """Hold a slot and reserve the most that the question can cost. Raises ChatError, holding nothing."""
        tokens = prompt_bound(question, self._limits.system_prompt) + question.max_output_tokens
        self._is_counted = True
        self._told = self._reservation = await self._limits.counts.admit(
            self._client, stream_id, tokens, self._own_limits
        )
        self._output_tokens = question.max_output_tokens

    def settle(self, outcome: Outcome) -> int:
        """Release the slot and the tokens that were not spent. Returns how many were.

        Calls after the first do nothing, and return 0.
        """
        reservation, self._reservation = self._reservation, None
        if reservation is None:
            return 0
        spent = self._spent(outcome, reservation.tokens)
        self._limits.counts.settle(reservation, spent, refused=outcome.refused)
        return spent

    def headers(self) -> dict[str, str]:
        """Return the header fields that tell this client what was left of its limits."""
        return {} if self._told is None else limit_headers(self._told.requests, self._told.status)

    def _spent(self, outcome: Outcome, reserved: int) -> int:
        """Return what an answer can have cost, never too little.

        A call that was cut off, from either side, may have produced more than arrived here, hidden reasoning
        included: as much as the fastest server can in its time, and no more than its cap.
        """
        if outcome.refused:
            return 0
        if outcome.done is None:
            unseen = math.ceil(outcome.seconds * TOKENS_PER_SECOND)
            return reserved - self._output_tokens + min(self._output_tokens, outcome.size + unseen)
        if outcome.done.usage is not None:
            return tokens_told(outcome.done.usage)
        return reserved - self._output_tokens + min(self._output_tokens, outcome.size)
