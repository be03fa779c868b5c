"""Where the reader is: scrolling, keyboard, screen readers, themes."""

import threading

from playwright.sync_api import expect

from tests.page.reader import NARROW, Visit
from tests.support.upstream import Finish, Hold, Pause, Say, ScriptedUpstream


def test_scrolling_up_lets_go_and_jumping_follows_again(visit: Visit, upstream: ScriptedUpstream) -> None:
    gate, last = threading.Event(), threading.Event()
    upstream.answer(
        Say("line\n\n" * 80), Hold(gate), Say("more\n\n" * 20), Hold(last), Say("end\n\n" * 20), Finish()
    )
    reader = visit()
    reader.ask("A long one")
    expect(reader.prose.locator("p")).to_have_count(80)
    distance = "(({scrollHeight: h, scrollTop: t, clientHeight: c}) => h - t - c)(window.scroller)"
    reader.page.evaluate("window.scroller = document.getElementById('scroller')")
    reader.page.wait_for_function(f"{distance} < 2")
    expect(reader.button("Jump to latest")).to_be_hidden()
    reader.page.mouse.move(600, 400)
    reader.page.mouse.wheel(0, -900)
    expect(reader.button("Jump to latest")).to_be_visible()
    reader.page.wait_for_function(f"{distance} > 800")
    before = reader.page.evaluate("window.scroller.scrollTop")
    gate.set()
    expect(reader.prose.locator("p")).to_have_count(100)
    assert reader.page.evaluate("window.scroller.scrollTop") == before
    reader.button("Jump to latest").click()
    reader.page.wait_for_function(f"{distance} < 2")
    last.set()
    expect(reader.prose.locator("p")).to_have_count(120)
    reader.page.wait_for_function(f"{distance} < 2")
    reader.wait_for_end()


def test_a_screen_reader_is_told_once_an_answer(visit: Visit, upstream: ScriptedUpstream) -> None:
    upstream.answer(Say("One "), Pause(0.1), Say("two "), Pause(0.1), Say("three"), Finish())
    reader = visit()
    reader.page.evaluate(
        """() => {
          window.told = [];
          const region = document.getElementById("announcer");
          new MutationObserver(() => window.told.push(region.textContent)).observe(region, {childList: true});
        }"""
    )
    reader.ask("Count")
    reader.wait_for_end()
    assert reader.page.evaluate("window.told") == ["One two three"]
    assert reader.page.locator("[aria-live], [role=status], [role=alert], [role=log]").count() == 1


def test_everything_works_by_keyboard_with_a_visible_focus(visit: Visit, upstream: ScriptedUpstream) -> None:
    reader = visit()
    expect(reader.page.locator("#question")).to_be_focused()
    reader.ask("Hello!")
    reader.wait_for_end()
    seen = set()
    for _ in range(20):
        reader.page.keyboard.press("Tab")
        name, outline = reader.page.evaluate(
            "[document.activeElement.getAttribute('aria-label') ?? document.activeElement.textContent,"
            " getComputedStyle(document.activeElement).outlineStyle]"
        )
        seen.add(name.strip())
        if name.strip() == "Regenerate":
            assert outline == "solid"
    assert {
        "New chat",
        "Hello!",
        "Delete Hello!",
        "Edit the question",
        "Copy the answer",
        "Regenerate",
    } <= seen


def test_the_drawer_of_a_narrow_screen_opens_and_closes_by_keyboard(visit: Visit) -> None:
    reader = visit(viewport=NARROW)
    expect(reader.page.locator("#sidebar")).to_be_hidden()
    reader.button("Chats").click()
    expect(reader.button("Close the list of chats")).to_be_focused()
    reader.page.keyboard.press("Escape")
    expect(reader.page.locator("#sidebar")).to_be_hidden()
    expect(reader.button("Chats")).to_be_focused()


def test_a_chosen_theme_holds_against_the_systems_and_over_a_reload(visit: Visit) -> None:
    reader = visit(color_scheme="light")
    paper = "getComputedStyle(document.body).backgroundColor"
    light = reader.page.evaluate(paper)
    reader.page.get_by_role("radio", name="Dark").check()
    dark = reader.page.evaluate(paper)
    reader.page.reload()
    assert reader.page.evaluate(paper) == dark != light
    reader.page.get_by_role("radio", name="Auto").check()
    assert reader.page.evaluate(paper) == light


def test_reduced_motion_moves_nothing(visit: Visit, upstream: ScriptedUpstream) -> None:
    gate = threading.Event()
    upstream.answer(Hold(gate), Say("Done"), Finish())
    reader = visit(reduced_motion="reduce")
    reader.ask("Hello!")
    expect(reader.page.get_by_text("Thinking")).to_be_visible()
    assert reader.page.evaluate("document.getAnimations().length") == 0
    gate.set()
    reader.wait_for_end()
