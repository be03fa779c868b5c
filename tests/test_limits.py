"""Slots and budgets: the same promises in one process and in Redis, where several share them."""

import asyncio
import time

import pytest

from chat_sse.errors import (
    BudgetSpent,
    InvalidRequest,
    KeyReused,
    Overloaded,
    PayloadTooLarge,
    TooManyRequests,
    TooManyStreams,
)
from chat_sse.events import Done, Usage
from chat_sse.limits.admission import Limits, Outcome
from chat_sse.limits.budget import TOKENS_PER_IMAGE, TOKENS_PER_PART, Budget, prompt_bound
from chat_sse.limits.memory import MemoryCounts
from chat_sse.limits.plan import Plan
from chat_sse.limits.rates import Rate
from chat_sse.messages import ImagePart, ImageUrl, Message, Question, TextPart
from tests.support.counts import Parts, eventually, free, question, reserve, take

# Slots.


async def test_a_client_holds_so_many_slots_and_gets_one_back_when_it_frees_one(limits: Parts) -> None:
    slots = limits.slots(2, 100)
    await take(slots, "a", "1")
    await take(slots, "a", "2")
    with pytest.raises(TooManyStreams) as refused:
        await take(slots, "a", "3")
    assert refused.value.retry_after
    await take(slots, "b", "4")
    free(slots, "a", "1")
    await eventually(lambda: take(slots, "a", "3"))


async def test_all_together_hold_so_many_slots(limits: Parts) -> None:
    slots = limits.slots(10, 2)
    await take(slots, "a", "1")
    await take(slots, "b", "2")
    with pytest.raises(Overloaded) as refused:
        await take(slots, "c", "3")
    assert refused.value.status == 503
    free(slots, "b", "2")
    await eventually(lambda: take(slots, "c", "3"))


async def test_parallel_takers_never_hold_more_than_there_are(limits: Parts) -> None:
    slots = limits.slots(5, 100)
    results = await asyncio.gather(*(take(slots, "a", str(n)) for n in range(40)), return_exceptions=True)
    assert sum(result is None for result in results) == 5
    assert sum(isinstance(result, TooManyStreams) for result in results) == 35


# Budgets.


async def test_parallel_questions_never_reserve_more_than_there_is(limits: Parts) -> None:
    budgets = limits.budgets(None, Budget(3_999, "day"))
    results = await asyncio.gather(
        *(reserve(budgets, f"client {n}", 1_000) for n in range(50)), return_exceptions=True
    )
    assert sum(not isinstance(result, BaseException) for result in results) == 3
    refused = [result for result in results if isinstance(result, BudgetSpent)]
    assert len(refused) == 47
    assert 0 < (refused[0].retry_after or 0) <= 86_400
    assert refused[0].headers["RateLimit"].startswith('"tokens";r=999;t=')
    assert refused[0].headers["RateLimit-Policy"] == '"tokens";q=3999;qu="tokens";w=86400'


async def test_what_was_not_spent_is_there_again(limits: Parts) -> None:
    budgets = limits.budgets(Budget(1_000, "month"), Budget(5_000, "day"))
    reservation = await reserve(budgets, "a", 900)
    assert reservation.status is not None
    assert reservation.status.left == 100
    with pytest.raises(BudgetSpent):
        await reserve(budgets, "a", 101)
    budgets.settle(reservation, 20, refused=False)
    await eventually(lambda: reserve(budgets, "a", 980))
    with pytest.raises(BudgetSpent):
        await reserve(budgets, "a", 1)
    await reserve(budgets, "b", 1_000)


async def test_a_refusal_by_one_budget_takes_nothing_out_of_the_other(limits: Parts) -> None:
    budgets = limits.budgets(Budget(1_000, "day"), Budget(2_000, "day"))
    await reserve(budgets, "a", 1_000)
    for _ in range(5):
        with pytest.raises(BudgetSpent, match="per client"):
            await reserve(budgets, "a", 1_000)
    await reserve(budgets, "b", 1_000)
    with pytest.raises(BudgetSpent, match="everybody"):
        await reserve(budgets, "c", 1)


async def test_spending_more_than_was_reserved_counts_in_full(limits: Parts) -> None:
    budgets = limits.budgets(None, Budget(1_000, "day"))
    budgets.settle(await reserve(budgets, "a", 10), 995, refused=False)
    await asyncio.sleep(0.05)
    with pytest.raises(BudgetSpent):
        await reserve(budgets, "a", 10)


async def test_a_question_that_the_whole_budget_is_too_small_for_is_told_so(limits: Parts) -> None:
    budgets = limits.budgets(Budget(1_000, "day"), None)
    with pytest.raises(PayloadTooLarge, match=r"may cost 1001 tokens.*the whole budget is 1000 a day"):
        await reserve(budgets, "a", 1_001)


async def test_a_new_window_begins_with_the_day_and_answers_stay_in_theirs(limits: Parts) -> None:
    midnight = (time.time() // 86_400 + 1) * 86_400
    now = midnight - 1
    budgets = limits.budgets(Budget(100, "day"), None, clock=lambda: now)
    late = await reserve(budgets, "a", 100)
    with pytest.raises(BudgetSpent) as refused:
        await reserve(budgets, "a", 1)
    assert refused.value.retry_after == 1
    now = midnight
    await reserve(budgets, "a", 90)
    budgets.settle(late, 0, refused=False)  # gives nothing back to the new day
    await asyncio.sleep(0.05)
    with pytest.raises(BudgetSpent):
        await reserve(budgets, "a", 11)


# What an answer costs.


def test_a_prompt_has_no_more_tokens_than_its_bound() -> None:
    for text in ("Hello!", "Grüße, 世界 🙂", "\ud800", "a" * 1000):
        assert prompt_bound(question(text)) >= len(text.encode("utf-8", "surrogatepass")) + 4 + 3
    assert prompt_bound(question(), "Be brief.") == prompt_bound(question()) + len("Be brief.")
    image = ImagePart(image_url=ImageUrl(url="https://example.org/a.png"))
    shown = Message(role="user", content=[TextPart(text="What?"), image, image])
    pictures = Question(messages=[shown], model="m", max_output_tokens=1)
    assert (
        prompt_bound(pictures) == prompt_bound(question("What?")) + 2 * TOKENS_PER_IMAGE + 3 * TOKENS_PER_PART
    )


USAGE = Usage(prompt_tokens=10, completion_tokens=8, total_tokens=18)


@pytest.mark.parametrize(
    ("refused", "done", "size", "cost"),
    [
        (True, None, 0, 0),
        (False, Done(finish_reason="stop", usage=USAGE), 500, 18),
        (False, Done(finish_reason="stop"), 40, "prompt and size"),
        (False, Done(finish_reason="stop"), 4_000, "all"),
        (False, None, 40, "all"),
    ],
)
async def test_an_answer_costs_what_upstream_says_and_else_its_most(
    refused: bool, done: Done | None, size: int, cost: int | str
) -> None:
    prompt = prompt_bound(question(), None)
    budgets = MemoryCounts(Plan(budget_total=Budget(10_000, "day")))
    admission = Limits(counts=budgets, system_prompt=None)
    permit = admission.permit("a")
    await permit.admit("1", question())
    for _ in range(2):  # the second time changes nothing
        permit.settle(Outcome(refused=refused, done=done, seconds=60, size=size))
    expected = {"all": prompt + 100, "prompt and size": prompt + size}.get(str(cost), cost)
    left = (await reserve(budgets, "a", 1)).status
    assert left is not None
    assert left.left == 10_000 - 1 - int(expected)


async def test_a_question_that_the_budget_refuses_gives_its_slot_back() -> None:
    admission = Limits(counts=MemoryCounts(Plan(streams=1, budget=Budget(1_000, "day"))), system_prompt=None)
    for _ in range(3):
        with pytest.raises(PayloadTooLarge):
            await admission.permit("a").admit("1", question(output=1_000))
    await admission.permit("a").admit("1", question())


async def test_what_costs_nothing_takes_nothing_from_everybody() -> None:
    limits = Limits(counts=MemoryCounts(Plan(rate_total=Rate.parse("3/hour"))), system_prompt=None)
    for number in range(20):  # malformed, or refused before they cost anything
        with pytest.raises(InvalidRequest):
            async with limits.permit(f"stranger {number}"):
                raise InvalidRequest("malformed")
    for number in range(3):
        await limits.permit("a").admit(str(number), question())
    with pytest.raises(TooManyRequests):
        limits.permit("a")


async def test_an_answer_that_is_stopped_at_once_gives_most_of_its_reservation_back() -> None:
    budgets = MemoryCounts(Plan(budget_total=Budget(10_000, "day")))
    limits = Limits(counts=budgets, system_prompt=None)
    permit = limits.permit("a")
    await permit.admit("1", question(output=8_000))
    permit.settle(Outcome(refused=False, done=None, seconds=0.1, size=100))
    left = (await reserve(budgets, "a", 1)).status
    assert left is not None
    assert left.left == 10_000 - 1 - prompt_bound(question(), None) - 100 - 500


async def test_another_questions_key_is_counted_as_a_request() -> None:
    limits = Limits(counts=MemoryCounts(Plan(rate=Rate.parse("2/hour"))), system_prompt=None)
    for error in (KeyReused, KeyReused, TooManyRequests):
        with pytest.raises(error):
            async with limits.permit("a", attaches=True):
                raise KeyReused("another body")
