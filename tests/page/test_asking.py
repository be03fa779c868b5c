"""Asking a question, and what the page shows of its answer."""

import re
import threading

import pytest
from playwright.sync_api import expect

from tests.page.reader import SAMPLE, Visit, say
from tests.support.upstream import Cut, Finish, Hold, Reason, Refuse, Say, ScriptedUpstream, Silence


def test_a_question_streams_its_answer_as_markdown(visit: Visit, upstream: ScriptedUpstream) -> None:
    gate, rest = threading.Event(), threading.Event()
    upstream.answer(Hold(gate), Say("Hello **you**"), Hold(rest), *say("\n\n" + SAMPLE), Finish())
    reader = visit()
    assert not reader.page.locator("#send").is_enabled()
    reader.ask("Hello!")
    expect(reader.page.get_by_text("Thinking")).to_be_visible()
    gate.set()
    expect(reader.prose.locator("strong")).to_have_text("you")
    expect(reader.page.get_by_text("Thinking")).to_be_hidden()
    rest.set()
    reader.wait_for_end()
    assert reader.prose.locator("li").count() == 2
    assert reader.prose.locator("tbody td").count() == 6
    assert reader.prose.locator("pre code").inner_text().startswith("source.onmessage")
    link = reader.prose.get_by_role("link", name="the standard")
    assert (link.get_attribute("target"), link.get_attribute("rel")) == ("_blank", "noopener noreferrer")
    assert upstream.calls[0].body["messages"] == [{"role": "user", "content": "Hello!"}]
    assert reader.page.title() == "Hello! · ask"


def test_the_history_goes_with_the_next_question(visit: Visit, upstream: ScriptedUpstream) -> None:
    reader = visit()
    reader.ask("One")
    reader.wait_for_end()
    reader.ask("Two")
    upstream.wait_for_calls(2)
    reader.wait_for_end()
    told = [(message["role"], message["content"]) for message in upstream.calls[1].body["messages"]]
    assert told == [("user", "One"), ("assistant", "Hello there!"), ("user", "Two")]


def test_starter_questions_are_asked_by_a_click(visit: Visit, upstream: ScriptedUpstream) -> None:
    reader = visit()
    starter = reader.page.locator(".starters button").first
    text = starter.inner_text()
    starter.click()
    reader.wait_for_end()
    assert upstream.calls[0].body["messages"][0]["content"] == text
    expect(reader.page.locator("#empty")).to_be_hidden()


def test_input_is_checked_before_it_is_sent(visit: Visit, upstream: ScriptedUpstream) -> None:
    reader = visit()
    reader.ask("   ")
    expect(reader.page.locator("#send")).to_be_disabled()
    reader.ask("x" * 100_001)
    expect(reader.page.locator("#fault")).to_have_text("Too long by 1 characters.")
    expect(reader.page.locator("#send")).to_be_disabled()
    reader.page.fill("#question", "line one")
    reader.page.press("#question", "Shift+Enter")
    reader.page.keyboard.type("line two")
    expect(reader.page.locator("#question")).to_have_value("line one\nline two")
    assert upstream.calls == []


def test_reasoning_is_live_and_then_one_row_that_tells_how_long_it_took(
    visit: Visit, upstream: ScriptedUpstream
) -> None:
    gate = threading.Event()
    upstream.answer(Reason("Let me **see**."), Hold(gate), Say("42"), Finish())
    reader = visit()
    reader.ask("What is it?")
    expect(reader.page.locator(".reasoning strong")).to_have_text("see")
    expect(reader.page.get_by_text("Thinking").filter(visible=True)).to_have_count(1)
    gate.set()
    reader.wait_for_end()
    expect(reader.page.locator(".answer > .prose")).to_have_text("42")
    expect(reader.page.get_by_text("Let me see.")).to_be_hidden()
    reader.page.get_by_text(re.compile(r"^Thought for \d+ s$")).click()
    expect(reader.page.get_by_text("Let me see.")).to_be_visible()
    reader.page.reload()
    expect(reader.page.get_by_text(re.compile(r"^Thought for \d+ s$"))).to_be_visible()


@pytest.mark.parametrize("how", ["button", "Escape"])
def test_stop_ends_the_answer_and_the_paid_call(visit: Visit, upstream: ScriptedUpstream, how: str) -> None:
    upstream.answer(Say("Once upon a time"), Silence())
    reader = visit()
    reader.ask("Tell me a story")
    expect(reader.prose).to_have_text("Once upon a time")
    if how == "button":
        reader.button("Stop the answer").click()
    else:
        reader.page.keyboard.press("Escape")
    reader.wait_for_end()
    expect(reader.page.locator(".notice")).to_have_text("Stopped.")
    expect(reader.prose).to_have_text("Once upon a time")
    assert upstream.calls[0].wait_gone(5)


def test_the_last_question_can_be_edited(visit: Visit, upstream: ScriptedUpstream) -> None:
    reader = visit()
    reader.ask("Who was Hypatai?")
    reader.wait_for_end()
    reader.page.press("#question", "ArrowUp")
    expect(reader.page.locator("#question")).to_have_value("Who was Hypatai?")
    reader.page.keyboard.press("Escape")
    expect(reader.page.locator("#editing")).to_be_hidden()
    expect(reader.page.locator("#question")).to_have_value("")
    reader.button("Edit the question").click()
    reader.ask("Who was Hypatia?")
    upstream.wait_for_calls(2)
    reader.wait_for_end()
    expect(reader.page.locator(".question p")).to_have_text(["Who was Hypatia?"])
    assert [message["content"] for message in upstream.calls[1].body["messages"]] == ["Who was Hypatia?"]


def test_an_answer_and_its_code_can_be_copied(visit: Visit, upstream: ScriptedUpstream) -> None:
    text = "Look:\n\n```py\nprint(1)\n```\n"
    upstream.answer(Say(text), Finish())
    reader = visit(permissions=["clipboard-read", "clipboard-write"])
    reader.ask("Code, please")
    reader.wait_for_end()
    reader.button("Copy the answer").click()
    expect(reader.page.locator("#announcer")).to_have_text("Copied.")
    assert reader.page.evaluate("navigator.clipboard.readText()") == text
    reader.button("Copy the code").click()
    reader.page.wait_for_function("navigator.clipboard.readText().then((text) => text.trim() === 'print(1)')")


def test_a_refusal_is_shown_and_asking_again_helps(visit: Visit, upstream: ScriptedUpstream) -> None:
    upstream.answer_next(Refuse(429, headers={"retry-after": "7"}))
    reader = visit()
    reader.ask("Hello!")
    failure = reader.page.locator(".failure")
    expect(failure).to_contain_text("too many requests")
    expect(failure).to_contain_text(re.compile(r"ask again in \d seconds"))
    failure.get_by_text("Details").click()
    expect(failure).to_contain_text("rate_limit_error")
    reader.button("Ask again").click()
    expect(reader.prose).to_have_text("Hello there!")
    expect(failure).to_be_hidden()


def test_an_answer_that_breaks_off_keeps_its_text_and_says_so(
    visit: Visit, upstream: ScriptedUpstream
) -> None:
    upstream.answer(Say("The first half"), Cut())
    reader = visit()
    reader.ask("Hello!")
    expect(reader.page.locator(".failure")).to_contain_text("cut off")
    expect(reader.prose).to_have_text("The first half")


def test_an_answer_at_its_length_limit_says_so(visit: Visit, upstream: ScriptedUpstream) -> None:
    upstream.answer(Say("And so on and"), Finish("length"))
    reader = visit()
    reader.ask("Hello!")
    expect(reader.page.locator(".notice")).to_contain_text("length limit")
