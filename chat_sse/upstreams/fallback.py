"""Several models behind one name: the next one is asked where a model refuses, and nothing was paid.

A model that keeps refusing is left out for a while, so that not every question waits for its refusal first.
"""

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence

import msgspec

from chat_sse.errors import UpstreamError, UpstreamRejected
from chat_sse.figures import Figure, Measured
from chat_sse.messages import Question
from chat_sse.upstreams.base import Listener, Upstream

log = logging.getLogger(__name__)

# One refusal may be this question's bad luck; a third in a row is the server's state.
REFUSALS = 3
# About as long as a rate limit's window needs to move, or a server to start again.
OPEN_SECONDS = 30.0


class Breaker:
    """Counts a model's refusals in a row. After REFUSALS of them it is left out for OPEN_SECONDS.

    Then one question at a time is let through to try it: an acceptance ends it, a refusal begins it anew.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._refusals = 0
        self._open_until = 0.0
        self._probing = False

    @property
    def is_open(self) -> bool:
        """Whether the model is left out, but for the one question that tries it."""
        return self._refusals >= REFUSALS

    def enter(self) -> bool:
        """Return whether the model may be asked. Each True is followed by one call of the three below."""
        if not self.is_open:
            return True
        if self._probing or self._clock() < self._open_until:
            return False
        self._probing = True
        return True

    def accepted(self) -> None:
        """The model has taken a question."""
        self._refusals = 0

    def refused(self) -> None:
        """The model, or its server, has refused a question that it should have taken."""
        self._refusals, self._probing = self._refusals + 1, False
        self._open_until = self._clock() + OPEN_SECONDS

    def undecided(self) -> None:
        """The question ended without saying anything about the model."""
        self._probing = False


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """One model, as it is asked."""

    name: str
    """What clients call it."""
    model: str
    """What its server calls it."""
    upstream: Upstream
    breaker: Breaker = msgspec.field(default_factory=Breaker)


class _Accepting:
    """A listener that says which model was accepted. What comes for each delta is the listener's own."""

    def __init__(self, candidate: Candidate, listener: Listener) -> None:
        self._candidate, self._listener = candidate, listener
        self.accepted = False
        self.on_model = listener.on_model
        self.on_events = listener.on_events
        self.on_activity = listener.on_activity
        self.on_entry = listener.on_entry

    def on_accepted(self) -> None:
        self.accepted = True
        self._candidate.breaker.accepted()
        self._listener.on_model(self._candidate.name)
        self._listener.on_accepted()


class FallbackUpstream:
    """An Upstream over several: for each name that clients may use, the candidates in their order."""

    def __init__(self, candidates: Mapping[str, Sequence[Candidate]]) -> None:
        self._candidates = candidates
        self.models = tuple(candidates)
        upstreams = {id(one.upstream): one.upstream for several in candidates.values() for one in several}
        self._upstreams = tuple(upstreams.values())
        self._refusals: Counter[str] = Counter()  # by the model's name for clients
        self.name = ", ".join(dict.fromkeys(upstream.name for upstream in self._upstreams))

    async def answer(self, question: Question, listener: Listener) -> None:
        """Ask, as `Upstream.answer` promises; the next model only where the one before was not paid.

        Raises the first model's error when all have refused. If all are left out, the first one is asked.
        """
        candidates = self._candidates[question.model]
        if len(candidates) > 1:
            listener.on_model(None)
        first: UpstreamError | None = None
        for candidate in candidates:
            if not candidate.breaker.enter():
                continue
            refusal = await self._refusal(candidate, question, listener)
            if refusal is None:
                return
            first = first or refusal
            self._refusals[candidate.name] += 1
            fields = {"model": candidate.name, "error": refusal.code}
            log.warning("upstream.refused", extra={"fields": fields})
        first = first or await self._refusal(candidates[0], question, listener)
        if first is not None:
            raise first

    def figures(self) -> Iterator[Figure]:
        """Return which models are left out and how often each has refused, and what the upstreams say."""
        for candidate in {one.name: one for several in self._candidates.values() for one in several}.values():
            yield Figure("upstream_breaker_open", candidate.breaker.is_open, candidate.name)
            yield Figure("upstream_fallbacks", self._refusals[candidate.name], candidate.name)
        retries = [one for each in self._upstreams if isinstance(each, Measured) for one in each.figures()]
        yield Figure("upstream_retries", sum(one.value for one in retries))

    async def aclose(self) -> None:
        """Close all connections."""
        for upstream in self._upstreams:
            await upstream.aclose()

    async def _refusal(
        self, candidate: Candidate, question: Question, listener: Listener
    ) -> UpstreamError | None:
        """Ask one model. Returns the error where it was not paid; raises all others."""
        accepting, breaker = _Accepting(candidate, listener), candidate.breaker
        asked = msgspec.structs.replace(question, model=candidate.model)
        try:
            await candidate.upstream.answer(asked, accepting)
        except UpstreamError as exc:
            if accepting.accepted or exc.may_cost:
                breaker.undecided()
                raise
            if isinstance(exc, UpstreamRejected):
                breaker.undecided()  # the question's fault, as far as can be told
            else:
                breaker.refused()
            return exc
        except BaseException:
            breaker.undecided()
            raise
        return None
