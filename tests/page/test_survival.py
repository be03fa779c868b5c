"""What survives a reload, a lost network and another chat."""

import threading

from playwright.sync_api import expect

from tests.page.reader import WAIT_MS, Visit
from tests.support.proxy import BadNetwork
from tests.support.service import RunningService
from tests.support.upstream import Finish, Hold, Say, ScriptedUpstream


def test_a_reload_in_mid_answer_goes_on_where_it_was_and_is_paid_once(
    visit: Visit, upstream: ScriptedUpstream
) -> None:
    gate = threading.Event()
    upstream.answer(Say("One, "), Say("two, "), Hold(gate), Say("three."), Finish())
    reader = visit()
    reader.ask("Count")
    expect(reader.prose).to_have_text("One, two,")
    reader.page.reload()
    expect(reader.prose).to_have_text("One, two,")
    expect(reader.button("Stop the answer")).to_be_visible()
    gate.set()
    expect(reader.prose).to_have_text("One, two, three.")
    reader.wait_for_end()
    assert upstream.paid_calls == 1


def test_a_reload_before_the_first_event_asks_with_the_same_key_and_is_paid_once(
    visit: Visit, upstream: ScriptedUpstream
) -> None:
    gate = threading.Event()
    upstream.answer(Hold(gate), Say("Late"), Finish())
    reader = visit()
    reader.ask("Hello!")
    upstream.wait_for_calls(1)
    reader.page.reload()
    gate.set()
    expect(reader.prose).to_have_text("Late")
    reader.wait_for_end()
    assert upstream.paid_calls == 1


def test_a_cut_network_loses_nothing_and_is_paid_once(
    visit: Visit, service: RunningService, upstream: ScriptedUpstream
) -> None:
    gate = threading.Event()
    upstream.answer(Say("Before, "), Hold(gate), Say("after."), Finish())
    with BadNetwork(service.url) as network:
        reader = visit(url=network.url)
        reader.ask("Hello!")
        expect(reader.prose).to_have_text("Before,")
        reader.context.set_offline(True)  # refuses what is new; what is open has to be cut as well
        network.cut_all()
        expect(reader.page.get_by_text("Reconnecting")).to_be_visible()
        expect(reader.button("Reconnect now")).to_be_visible()
        gate.set()
        reader.context.set_offline(False)
        expect(reader.prose).to_have_text("Before, after.", timeout=WAIT_MS)
        reader.wait_for_end()
        expect(reader.page.get_by_text("Reconnecting")).to_be_hidden()
    assert upstream.paid_calls == 1


def test_a_server_that_never_got_the_question_says_so_and_gets_it_at_a_press(
    visit: Visit, upstream: ScriptedUpstream
) -> None:
    reader = visit()
    reader.page.route("**/ask", lambda route: route.abort())
    # The page waits for ever by itself, so that only the button can end it.
    reader.page.evaluate(
        "() => { const real = setTimeout; window.setTimeout = (f, ms) => (ms > 1500 ? 0 : real(f, ms)); }"
    )
    reader.ask("Hello!")
    expect(reader.page.locator(".notice")).to_contain_text("has not got your question yet")
    reader.page.unroute("**/ask")
    reader.button("Reconnect now").click()
    expect(reader.prose).to_have_text("Hello there!")
    reader.wait_for_end()
    expect(reader.button("Reconnect now")).to_be_hidden()
    assert upstream.paid_calls == 1


def test_an_answer_goes_on_while_another_chat_is_read(visit: Visit, upstream: ScriptedUpstream) -> None:
    gate = threading.Event()
    upstream.answer(Say("Slow "), Hold(gate), Say("answer"), Finish())
    reader = visit()
    reader.ask("Long one")
    expect(reader.prose).to_have_text("Slow")
    reader.button("New chat").click()
    expect(reader.page.locator("#empty")).to_be_visible()
    gate.set()
    expect(reader.page.locator(".chat-list a.running")).to_have_count(0, timeout=WAIT_MS)
    reader.page.go_back()
    expect(reader.prose).to_have_text("Slow answer")


def test_past_chats_stay_in_this_browser_until_they_are_deleted(
    visit: Visit, upstream: ScriptedUpstream
) -> None:
    reader = visit()
    reader.ask("First chat")
    reader.wait_for_end()
    reader.button("New chat").click()
    reader.ask("Second chat")
    reader.wait_for_end()
    reader.page.reload()
    links = reader.page.locator(".chat-list a")
    expect(links).to_have_text(["Second chat", "First chat"])
    links.nth(1).click()
    expect(reader.page.locator(".question p")).to_have_text(["First chat"])
    reader.button("Delete First chat").click()
    expect(links).to_have_text(["Second chat"])
    reader.button("Undo").click()
    expect(links).to_have_count(2)
    reader.button("Delete First chat").click()
    reader.page.reload()
    expect(links).to_have_text(["Second chat"])
    assert visit().page.locator(".chat-list a").count() == 0
