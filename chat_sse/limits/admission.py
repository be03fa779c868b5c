"""What a question has to pass before it may cost anything: slots, budgets and rates.

A request that asks gets a permit. It is counted as soon as its head has arrived. It takes a slot and tokens
only when it is a new question, and does not attach to an answer.
"""

import math

import msgspec

from chat_sse.events import Done
from chat_sse.limits.budget import prompt_bound, tokens_told
from chat_sse.limits.counts import Counts, Reservation
from chat_sse.limits.headers import LimitStatus, limit_headers
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

    async def arrive(
        self, client: str, *, attaches: bool, own_limits: OwnLimits = NO_LIMITS_OF_ITS_OWN
    ) -> "Permit":
        """Count a request that asks. Raises TooManyRequests, or StoreUnavailable when Redis is out of reach.

        `attaches`: it carries the key of an answer that is there. It costs nobody anything and does not
        count, so that a reader whose connection breaks again and again always gets back to its answer.
        """
        status = None if attaches else await self.counts.arrive(client, own_limits)
        return Permit(self, client, status, own_limits)


class Permit:
    """One request that asks, on its way through."""

    def __init__(
        self,
        limits: Limits,
        client: str,
        requests: LimitStatus | None,
        own_limits: OwnLimits = NO_LIMITS_OF_ITS_OWN,
    ) -> None:
        self._limits = limits
        self._client = client
        self._requests = requests
        self._own_limits = own_limits
        self._tokens: LimitStatus | None = None
        self._output_tokens = 0
        self._reservation: Reservation | None = None

    async def admit(self, stream_id: str, question: Question) -> None:
        """Hold a slot and reserve the most that the question can cost. Raises ChatError, holding nothing."""
        tokens = prompt_bound(question, self._limits.system_prompt) + question.max_output_tokens
        self._reservation = await self._limits.counts.admit(self._client, stream_id, tokens, self._own_limits)
        self._tokens = self._reservation.status
        self._output_tokens = question.max_output_tokens

    async def count_misuse(self) -> None:
        """Count a request that carried another question's key: only attaching is free."""
        if self._requests is None:
            await self._limits.counts.misuse(self._client)

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
        return limit_headers(self._requests, self._tokens)

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
