"""Which model is asked: the next one where one refuses unpaid, and none that keeps refusing."""

import asyncio

import pytest

from chat_sse.errors import UpstreamError, UpstreamProtocol, UpstreamRejected, UpstreamUnavailable
from chat_sse.events import Delta, Done
from chat_sse.messages import Message, Question
from chat_sse.upstreams.base import Listener
from chat_sse.upstreams.fallback import OPEN_SECONDS, REFUSALS, Breaker, Candidate, FallbackUpstream
from tests.inside.upstreams.ears import Ear


def test_a_breaker_lets_one_question_try_after_its_deadline() -> None:
    now = 0.0
    breaker = Breaker(clock=lambda: now)
    for _ in range(REFUSALS):
        assert breaker.enter()
        breaker.refused()
    assert not breaker.enter()
    now = OPEN_SECONDS
    assert (breaker.enter(), breaker.enter()) == (True, False)
    breaker.undecided()
    assert breaker.enter()
    breaker.refused()
    assert not breaker.enter()
    now *= 2
    assert breaker.enter()
    breaker.accepted()
    assert breaker.enter()
    assert breaker.enter()


class Model:
    """An upstream that accepts, refuses, or never comes back."""

    def __init__(self, *fates: UpstreamError | None) -> None:
        self.name = "model"
        self.models: tuple[str, ...] = ()
        self.fates = list(fates)
        self.asked = 0
        self.is_closed = False

    async def answer(self, question: Question, listener: Listener) -> None:  # noqa: ARG002
        self.asked += 1
        fate = self.fates.pop(0) if len(self.fates) > 1 else self.fates[0]
        if fate is not None:
            raise fate
        listener.on_accepted()
        listener.on_events([Done(finish_reason="stop")])

    async def aclose(self) -> None:
        assert not self.is_closed
        self.is_closed = True


QUESTION = Question(messages=[Message(role="user", content="Hi")], model="a", max_output_tokens=1)


def pair(first: Model, second: Model) -> FallbackUpstream:
    a, b = (Candidate(name=name, model=name, upstream=one) for name, one in (("a", first), ("b", second)))
    return FallbackUpstream({"a": [a, b], "b": [b]})


def test_a_question_that_models_cannot_take_leaves_none_of_them_out() -> None:
    first, second = Model(UpstreamRejected("too long")), Model(None)
    upstream = pair(first, second)
    for _ in range(2 * REFUSALS):
        ear = Ear()
        asyncio.run(upstream.answer(QUESTION, ear))
        assert (ear.models, ear.accepted) == ([None, "b"], 1)
    assert first.asked == 2 * REFUSALS


def test_when_all_are_left_out_the_first_is_asked_all_the_same() -> None:
    first, second = Model(UpstreamUnavailable("down")), Model(UpstreamUnavailable("down too"))
    upstream = pair(first, second)
    for count in range(1, REFUSALS + 3):
        with pytest.raises(UpstreamUnavailable, match=r"^down$"):
            asyncio.run(upstream.answer(QUESTION, Ear()))
        assert (first.asked, second.asked) == (count, min(count, REFUSALS))


def test_an_error_that_may_cost_ends_it() -> None:
    first, second = Model(UpstreamProtocol("cut")), Model(None)
    with pytest.raises(UpstreamProtocol):
        asyncio.run(pair(first, second).answer(QUESTION, Ear()))
    assert second.asked == 0


async def test_a_model_that_refuses_three_times_in_a_row_is_left_out_and_figures_say_so() -> None:
    first, second = Model(*[UpstreamUnavailable("down")] * 2, None, UpstreamUnavailable("down")), Model(None)
    upstream = pair(first, second)

    def figures() -> dict[tuple[str, str], float]:
        return {(figure.name, figure.label): figure.value for figure in upstream.figures()}

    for _ in range(3):
        await upstream.answer(QUESTION, Ear())
    assert (first.asked, figures()["upstream_breaker_open", "a"]) == (3, False)  # the third was taken
    for _ in range(9):
        await upstream.answer(QUESTION, Ear())
    assert (first.asked, second.asked) == (6, 11)
    assert figures()["upstream_breaker_open", "a"]
    assert (figures()["upstream_fallbacks", "a"], figures()["upstream_fallbacks", "b"]) == (5, 0)
    assert figures()["upstream_retries", ""] == 0


async def test_an_error_after_the_acceptance_is_the_answers_and_no_refusal() -> None:
    class Broken(Model):
        async def answer(self, _: Question, listener: Listener) -> None:
            self.asked += 1
            listener.on_accepted()
            raise UpstreamUnavailable("down", may_cost=False)

    first, second = Broken(None), Model(None)
    upstream = pair(first, second)
    for _ in range(2 * REFUSALS):
        with pytest.raises(UpstreamUnavailable):
            await upstream.answer(QUESTION, ear := Ear())
        assert (ear.models, ear.accepted) == ([None, "a"], 1)
    assert (first.asked, second.asked) == (2 * REFUSALS, 0)


async def test_a_probe_that_is_cancelled_leaves_room_for_the_next() -> None:
    breaker = Breaker(clock=asyncio.get_running_loop().time)
    for _ in range(REFUSALS):
        breaker.refused()
    await asyncio.sleep(OPEN_SECONDS - 0.001)
    assert not breaker.enter()
    await asyncio.sleep(0.001)

    class Hanging(Model):
        async def answer(self, _: Question, __: Listener) -> None:
            await asyncio.Event().wait()

    hanging = Candidate(name="a", model="a", upstream=Hanging(None), breaker=breaker)
    other = Candidate(name="b", model="b", upstream=Model(None))
    upstream = FallbackUpstream({"a": [hanging, other]})
    probing = asyncio.create_task(upstream.answer(QUESTION, Ear()))
    await asyncio.sleep(1)
    await upstream.answer(QUESTION, ear := Ear())  # one at a time: this one goes past it
    assert ear.models == [None, "b"]
    probing.cancel()
    await asyncio.sleep(1)
    assert breaker.enter()


async def test_a_name_with_one_model_behind_it_is_decided_from_the_start() -> None:
    model = Model(None)
    one = Candidate(name="a", model="real", upstream=model)
    await FallbackUpstream({"a": [one]}).answer(QUESTION, ear := Ear())
    assert ear.models == ["a"]


@pytest.mark.parametrize("fate", [UpstreamProtocol("cut"), UpstreamRejected("too long")])
async def test_a_probe_that_says_nothing_of_its_model_leaves_room_for_the_next(fate: UpstreamError) -> None:
    breaker = Breaker(clock=lambda: now)
    now = 0.0
    for _ in range(3):
        breaker.refused()
    now = 30.0
    upstream = FallbackUpstream(
        {"a": [Candidate(name="a", model="a", upstream=Model(fate), breaker=breaker)]}
    )
    with pytest.raises(type(fate)):
        await upstream.answer(QUESTION, Ear())
    assert breaker.enter()


async def test_a_cancelled_question_is_cancelled() -> None:
    class Hanging(Model):
        async def answer(self, _: Question, __: Listener) -> None:
            await asyncio.Event().wait()

    asking = asyncio.create_task(pair(Hanging(None), Model(None)).answer(QUESTION, Ear()))
    await asyncio.sleep(1)
    asking.cancel()
    await asyncio.sleep(1)
    assert asking.cancelled()


async def test_servers_are_named_and_closed_once_each() -> None:
    first, second = Model(None), Model(None)
    second.name = "other"
    a, b, c = (Candidate(name="x", model="x", upstream=one) for one in (first, second, first))
    upstream = FallbackUpstream({"a": [a, b, c], "c": [c]})
    assert (upstream.name, upstream.models) == ("model, other", ("a", "c"))
    await upstream.aclose()
    assert (first.is_closed, second.is_closed) == (True, True)


async def test_a_listener_hears_through_it_all_that_an_answer_says() -> None:
    class Talking(Model):
        async def answer(self, _: Question, listener: Listener) -> None:
            listener.on_accepted()
            listener.on_activity()
            listener.on_events([Delta("a")])
            listener.on_entry(b'{"type":"delta","content":"b"}')
            listener.on_events([Done(finish_reason="stop")])

    await pair(Talking(None), Model(None)).answer(QUESTION, ear := Ear())
    assert (ear.accepted, ear.active, ear.short, ear.models) == (1, 1, 1, [None, "a"])
    assert ear.events == [Delta("a"), Delta("b"), Done(finish_reason="stop")]
