"""The page for fingers, for eyes that need other colours, and for axe in every state."""

import threading
from typing import Any

import pytest
from playwright.sync_api import FilePayload, expect

from tests.page.reader import SAMPLE, Reader, Visit, check, say
from tests.support.upstream import Finish, Hold, Reason, Say, ScriptedUpstream

PHONE = {"viewport": {"width": 390, "height": 760}, "has_touch": True, "is_mobile": True}

TOO_SMALL = """() => [...document.querySelectorAll("button, select, input, textarea, summary, label, nav a")]
  .filter((element) => element.checkVisibility({ visibilityProperty: true }) && !element.closest("[inert]"))
  .filter((element) => !element.matches("input[type=radio], .visually-hidden"))
  .map((element) => [element.outerHTML.slice(0, 80), element.getBoundingClientRect()])
  .filter(([, { width, height }]) => width && (width < 44 || height < 44))
  .map(([html, { width, height }]) => `${width} x ${height}: ${html}`)"""


def with_everything(visit: Visit, upstream: ScriptedUpstream, **options: Any) -> Reader:
    """A chat with versions, reasoning, an image, code and a table, and half a question."""
    upstream.answer_next(Reason("They want a comparison."), *say(SAMPLE, 60), Finish())
    reader = visit(reduced_motion="reduce", **options)
    picture: FilePayload = {"name": "a.png", "mimeType": "image/png", "buffer": reader.page.screenshot()}
    reader.page.locator("#image-file").set_input_files(picture)
    expect(reader.page.locator("#images img")).to_have_count(1)
    reader.ask("How do they compare?")
    reader.wait_for_end()
    reader.button("Regenerate").click()
    reader.wait_for_end()
    reader.button("Previous version of the answer").click()
    reader.page.locator("#image-file").set_input_files(picture)
    expect(reader.page.locator("#images img")).to_have_count(1)
    return reader


def test_everything_that_is_pressed_is_large_enough_for_a_finger(
    visit: Visit, upstream: ScriptedUpstream
) -> None:
    reader = visit(**PHONE)
    assert reader.page.evaluate(TOO_SMALL) == []
    reader = with_everything(visit, upstream, **PHONE)
    assert reader.page.evaluate(TOO_SMALL) == []
    reader.button("Edit the question").click()
    assert reader.page.evaluate(TOO_SMALL) == []
    reader.button("Chats").click()
    expect(reader.button("Close the list of chats")).to_be_focused()
    assert reader.page.evaluate(TOO_SMALL) == []


def test_on_a_phone_the_keyboard_leaves_the_answer_free(visit: Visit, upstream: ScriptedUpstream) -> None:
    reader = visit(**PHONE)
    expect(reader.page.locator("#question")).not_to_be_focused()
    reader.page.locator("#question").tap()
    reader.ask("Hello!")
    expect(reader.page.locator("#question")).not_to_be_focused()
    reader.wait_for_end()


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_nothing_in_any_state(visit: Visit, upstream: ScriptedUpstream, theme: str) -> None:
    reader = with_everything(visit, upstream, color_scheme=theme)
    check(reader, f"{theme}-versions")
    reader.page.locator(".reasoning summary").click()
    reader.page.get_by_role("searchbox").fill("compare")
    reader.page.locator(".chat-list li").last.hover()
    reader.button("Rename How do they compare?").click()
    check(reader, f"{theme}-rename")
    reader.page.keyboard.press("Escape")
    gate = threading.Event()
    upstream.answer(Reason("I *see*."), Hold(gate), Say("Yes"), Finish())
    reader.ask("Sure?")
    expect(reader.page.locator(".reasoning.live")).to_be_visible()
    check(reader, f"{theme}-thinking")
    gate.set()
    reader.wait_for_end()
    reader.page.emulate_media(forced_colors="active")
    check(reader, f"{theme}-forced")


def test_in_forced_colours_what_is_pressed_has_a_border(visit: Visit, upstream: ScriptedUpstream) -> None:
    reader = visit(forced_colors="active")
    reader.page.fill("#question", "Hello")
    for part in ("#send", "#composer", "#new-chat"):
        style = reader.page.locator(part).evaluate("(element) => getComputedStyle(element).borderTopStyle")
        assert style == "solid", part


def test_an_announcement_has_no_markup_and_a_row_of_pictures_has_names(
    visit: Visit, upstream: ScriptedUpstream
) -> None:
    upstream.answer(Say("# Title\n\n**bold** and `code`"), Finish())
    reader = visit()
    reader.ask("Hello!")
    reader.wait_for_end()
    expect(reader.page.locator("#announcer")).to_have_text("Title bold and code")
    for name in ("Copy the answer", "Regenerate", "Edit the question"):
        expect(reader.button(name)).to_have_attribute("title", name)
        expect(reader.button(name)).to_have_text("")
