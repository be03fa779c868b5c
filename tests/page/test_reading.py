"""Where the reader is: scrolling, keyboard, screen readers, themes."""

import threading

from playwright.sync_api import expect

from tests.page.reader import NARROW, Visit
from tests.support.upstream import Finish, Hold, Pause, Say, ScriptedUpstream

TOP = "document.getElementById('scroller').scrollTop"
DISTANCE = (
    "(({scrollHeight: h, scrollTop: t, clientHeight: c}) => h - t - c)(document.getElementById('scroller'))"
)
TEXT_TOP = "(prose) => prose.getBoundingClientRect().top"


def test_the_question_goes_to_the_top_and_its_answer_moves_nothing(
    visit: Visit, upstream: ScriptedUpstream
) -> None:
    gate, end = threading.Event(), threading.Event()
    upstream.answer_next(Say("line\n\n" * 40), Finish())
    upstream.answer_next(
        Say("begin\n\n"), Hold(gate), Say("more\n\n" * 60), Hold(end), Say("**end**"), Finish()
    )
    reader = visit()
    reader.ask("First")
    reader.wait_for_end()
    reader.ask("Second")
    expect(reader.prose).to_have_text("begin")
    question = reader.page.locator(".question").last
    header = reader.page.locator(".top").bounding_box()
    placed = question.bounding_box()
    assert header is not None
    assert placed is not None
    assert 0 <= placed["y"] - header["height"] < 60
    begin = reader.prose.evaluate(TEXT_TOP)
    gate.set()
    expect(reader.prose.locator("p")).to_have_count(61)
    expect(reader.button("Jump to latest")).to_be_visible()
    assert reader.prose.evaluate(TEXT_TOP) == begin
    end.set()
    reader.wait_for_end()
    assert reader.prose.evaluate(TEXT_TOP) == begin


def test_jumping_follows_until_the_reader_scrolls_up(visit: Visit, upstream: ScriptedUpstream) -> None:
    gate, last = threading.Event(), threading.Event()
    upstream.answer(
        Say("line\n\n" * 80), Hold(gate), Say("more\n\n" * 20), Hold(last), Say("end\n\n" * 20), Finish()
    )
    reader = visit()
    reader.ask("A long one")
    expect(reader.prose.locator("p")).to_have_count(80)
    reader.button("Jump to latest").click()
    expect(reader.button("Jump to latest")).to_be_hidden()
    assert reader.page.evaluate(DISTANCE) < 2
    gate.set()
    expect(reader.prose.locator("p")).to_have_count(100)
    assert reader.page.evaluate(DISTANCE) < 2
    reader.page.mouse.move(600, 400)
    reader.page.mouse.wheel(0, -900)
    expect(reader.button("Jump to latest")).to_be_visible()
    before = reader.page.evaluate(TOP)
    last.set()
    expect(reader.prose.locator("p")).to_have_count(120)
    assert reader.page.evaluate(TOP) == before
    reader.wait_for_end()
    assert reader.page.evaluate(TOP) == before


def test_the_text_does_not_move_when_an_answer_ends(visit: Visit, upstream: ScriptedUpstream) -> None:
    end = threading.Event()
    upstream.answer(Say("line\n\n" * 80 + "last"), Hold(end), Finish())
    reader = visit()
    reader.ask("A long one")
    expect(reader.prose.locator("p")).to_have_count(81)
    reader.button("Jump to latest").click()
    before = reader.prose.evaluate(TEXT_TOP)
    end.set()
    reader.wait_for_end()
    assert reader.prose.evaluate(TEXT_TOP) == before


def test_the_composer_is_in_line_with_the_text_and_the_start_begins_at_its_top(visit: Visit) -> None:
    reader = visit()
    for width in (700, 1000, 1400):
        reader.page.set_viewport_size({"width": width, "height": 900})
        lines = [reader.page.locator(part).bounding_box() for part in ("#composer", "#empty")]
        assert lines[0] is not None
        assert lines[1] is not None
        assert (lines[0]["x"], lines[0]["width"]) == (lines[1]["x"], lines[1]["width"])
    reader.page.set_viewport_size({"width": 590, "height": 410})
    reader.page.reload()
    assert reader.page.evaluate(TOP) == 0
    assert reader.page.evaluate(DISTANCE) > 0
    expect(reader.page.locator(".wordmark.large")).to_be_in_viewport(ratio=1)


def test_a_screen_reader_is_told_once_an_answer(visit: Visit, upstream: ScriptedUpstream) -> None:
    upstream.answer(Say("One "), Pause(0.1), Say("**two** "), Pause(0.1), Say("`three`"), Finish())
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
