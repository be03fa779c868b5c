"""The page at a service with keys and limits."""

import re
import threading
from collections.abc import Iterator

import pytest
from playwright.sync_api import expect

from tests.conftest import QUICK
from tests.page.reader import Reader, Visit, check
from tests.support.service import RunningService, serve
from tests.support.upstream import Finish, Hold, Say, ScriptedUpstream

KEY = "reader-canary-0123456789"


@pytest.fixture(scope="module")
def locked(upstream_port: int) -> Iterator[RunningService]:
    env = {
        **QUICK,
        "OPENAI_BASE_URL": f"http://127.0.0.1:{upstream_port}/v1",
        "CHAT_SSE_DISCONNECT_GRACE": "20",
        "CHAT_SSE_IDLE_TIMEOUT": "30",
        "CHAT_SSE_API_KEYS": f"reader:{KEY}",
    }
    with serve(env) as running:
        yield running
        assert "canary" not in running.log()


def give(reader: Reader, key: str) -> None:
    reader.page.get_by_label("This service asks for a key").fill(key)
    reader.button("Use this key").click()


def test_a_key_is_asked_for_once_and_the_question_is_sent_again_with_it(
    visit: Visit, locked: RunningService, upstream: ScriptedUpstream
) -> None:
    reader = visit(locked.url)
    field = reader.page.get_by_label("This service asks for a key")
    reader.ask("Hello!")
    expect(reader.page.locator(".failure.calm")).to_contain_text("asks for a key. Your question is sent")
    expect(field).to_be_focused()
    check(reader, "key")
    give(reader, "two words")
    expect(reader.page.locator("#key-fault")).to_contain_text("no spaces")
    give(reader, "wrong-canary-0123456789")
    expect(reader.page.locator("#key-fault")).to_contain_text("did not take that key")
    assert upstream.calls == []
    give(reader, KEY)
    expect(reader.prose).to_have_text("Hello there!")
    expect(field).to_be_hidden()
    reader.ask("And now?")
    reader.wait_for_end()
    assert upstream.paid_calls == 2
    assert len(reader.page.locator(".turn").all()) == 2
    stored = reader.page.evaluate("JSON.stringify([localStorage, location.href, document.cookie])")
    assert "canary" not in stored


def test_a_key_lasts_over_a_reload_and_until_it_is_forgotten(
    visit: Visit, locked: RunningService, upstream: ScriptedUpstream
) -> None:
    gate = threading.Event()
    upstream.answer(Say("One, "), Hold(gate), Say("two."), Finish())
    reader = visit(locked.url)
    reader.ask("Count")
    give(reader, KEY)
    expect(reader.prose).to_have_text("One,")
    reader.page.reload()
    gate.set()
    expect(reader.prose).to_have_text("One, two.")
    reader.wait_for_end()
    reader.button("Forget the key").click()
    expect(reader.button("Forget the key")).to_be_hidden()
    reader.ask("Who am I?")
    expect(reader.page.get_by_label("This service asks for a key")).to_be_visible()
    assert upstream.paid_calls == 1


def test_an_answer_that_is_met_without_its_key_goes_on_when_it_is_given(
    visit: Visit, locked: RunningService, upstream: ScriptedUpstream
) -> None:
    gate = threading.Event()
    upstream.answer(Say("One, "), Hold(gate), Say("two."), Finish())
    reader = visit(locked.url)
    reader.ask("Count")
    give(reader, KEY)
    expect(reader.prose).to_have_text("One,")
    reader.page.evaluate("sessionStorage.clear()")
    reader.page.reload()
    give(reader, KEY)
    gate.set()
    expect(reader.prose).to_have_text("One, two.")
    reader.wait_for_end()
    assert upstream.paid_calls == 1


@pytest.mark.parametrize(
    ("limit", "told"),
    [
        ({"CHAT_SSE_RATE_LIMIT": "1/hour"}, r"too quickly.* ask again (in \d+ (seconds?|minutes)|now)\."),
        ({"CHAT_SSE_MAX_STREAMS_PER_CLIENT": "1"}, "Too many of your questions are being answered"),
        ({"CHAT_SSE_MAX_STREAMS": "1"}, r"The service is busy.* ask again (in \d+ seconds?|now)\."),
        (
            {"CHAT_SSE_TOKEN_BUDGET": "6000/day"},
            r"budget .* is used up.* ask again in \d+ (seconds?|minutes|hours)\.",
        ),
    ],
    ids=["rate", "streams of one", "streams of all", "budget"],
)
def test_a_limit_is_told_in_words_and_the_question_is_not_lost(
    visit: Visit, upstream: ScriptedUpstream, limit: dict[str, str], told: str
) -> None:
    gate = threading.Event()
    upstream.answer(Say("One, "), Hold(gate), Finish())
    with serve({**QUICK, "OPENAI_BASE_URL": upstream.base_url, **limit}) as service:
        reader = visit(service.url)
        reader.ask("First")
        expect(reader.prose).to_have_text("One,")
        reader.button("New chat").first.click()
        reader.ask("Second")
        expect(reader.page.locator(".failure.calm")).to_contain_text(re.compile(told))
        expect(reader.page.locator(".question")).to_contain_text("Second")
        expect(reader.button("Ask again")).to_be_visible()
        gate.set()
        assert upstream.paid_calls == 1


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_button_of_a_wait_is_off_until_it_is_over_also_after_a_reload(
    visit: Visit, upstream: ScriptedUpstream, theme: str
) -> None:
    limited = {**QUICK, "OPENAI_BASE_URL": upstream.base_url, "CHAT_SSE_RATE_LIMIT": "1/hour"}
    with serve(limited) as service:
        reader = visit(service.url, color_scheme=theme)
        reader.page.clock.install()
        reader.ask("First")
        reader.wait_for_end()
        reader.ask("Second")
        expect(reader.button("Ask again")).to_be_disabled()
        check(reader, f"waiting-{theme}")
        reader.page.reload()
        expect(reader.button("Ask again")).to_be_disabled()
        reader.page.clock.fast_forward("01:00:30")
        expect(reader.page.locator(".failure").last).to_contain_text("You can ask again now.")
        expect(reader.button("Ask again")).to_be_enabled()


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.2, "in 1 second"),
        (59, "in 59 seconds"),
        (119.5, "in 120 seconds"),
        (121, "in 3 minutes"),
        (3600, "in 60 minutes"),
        (61_000, "in 17 hours"),
        (200_000, "in 3 days"),
    ],
)
def test_a_wait_is_told_in_words(visit: Visit, seconds: float, words: str) -> None:
    told = visit().page.evaluate(
        "async (seconds) => (await import('/page/failure.js')).inWords(seconds)", seconds
    )
    assert told == words
