"""How the page looks, to people and to axe."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect

from tests.page.reader import ARTIFACTS, DESKTOP, NARROW, SAMPLE, Reader, Visit, check, say
from tests.support.upstream import Cut, Finish, Reason, Say, ScriptedUpstream


@contextmanager
def conversation(visit: Visit, upstream: ScriptedUpstream, **options: Any) -> Iterator[Reader]:
    """A reader before every kind of thing that the page can show."""
    upstream.answer_next(Reason("They want a comparison."), *say(SAMPLE), Finish())
    upstream.answer_next(Say("The first half of an answer"), Cut())
    reader = visit(**options)
    reader.ask("How do server-sent events work, and when are they the better choice?")
    reader.wait_for_end()
    yield reader


@pytest.mark.parametrize("size", ["desktop", "narrow"])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_nothing_and_nothing_overflows(
    visit: Visit, upstream: ScriptedUpstream, theme: str, size: str
) -> None:
    viewport = DESKTOP if size == "desktop" else NARROW
    options = {"viewport": viewport, "color_scheme": theme, "reduced_motion": "reduce"}
    check(visit(**options), f"{theme}-{size}-empty")
    with conversation(visit, upstream, **options) as reader:
        reader.page.locator("#scroller").evaluate("(scroller) => { scroller.scrollTop = 0 }")
        expect(reader.button("Jump to latest")).to_be_visible()
        check(reader, f"{theme}-{size}-answer")
        reader.ask("And then?")
        expect(reader.page.locator(".failure").last).to_be_visible()
        reader.button("Edit the question").last.click()
        check(reader, f"{theme}-{size}-failure")


def test_the_picture_for_the_readme_is_taken(visit: Visit, upstream: ScriptedUpstream) -> None:
    with conversation(visit, upstream, viewport={"width": 1040, "height": 720}) as reader:
        reader.page.locator("#scroller").evaluate("(scroller) => { scroller.scrollTop = 0 }")
        reader.page.locator("#question").blur()
        ARTIFACTS.mkdir(exist_ok=True)
        picture = reader.page.screenshot(path=ARTIFACTS / "screenshot.png")
    assert len(picture) < 120_000
    committed = (
        Path(__file__).parent.parent / "screenshot.png"
    )  # copied from a run by hand: fonts differ by machine
    assert committed.stat().st_size < 120_000
