"""What an answer must not do to the page."""

import re

import pytest
from playwright.sync_api import expect

from tests.page.reader import ATTACKS, Visit, say
from tests.support.service import RunningService
from tests.support.upstream import Finish, Say, ScriptedUpstream


def test_markdown_that_tries_to_inject_is_shown_and_does_nothing(
    visit: Visit, upstream: ScriptedUpstream
) -> None:
    upstream.answer(*say(ATTACKS, 7), Finish())
    reader = visit()
    reader.ask("Attack me")
    reader.wait_for_end()
    for link in reader.prose.locator("a").all():
        link.hover()
        assert re.match(r"https?://", link.get_attribute("href") or "")
    assert reader.page.evaluate("window.hacked") is None
    assert (
        reader.prose.locator(
            "script, img, svg:not(.code-head svg), iframe, form, input, style, math, [onclick]"
        ).count()
        == 0
    )
    assert "<script>window.hacked = 1</script>" in reader.prose.inner_text()
    assert reader.prose.get_by_role("link", name="Image: pixel").count() == 1
    assert reader.prose.locator("br").count() == 1


def test_a_question_is_never_markup(visit: Visit, upstream: ScriptedUpstream) -> None:
    text = "<img src=x onerror='window.hacked = 1'> **bold**"
    reader = visit()
    reader.ask(text)
    reader.wait_for_end()
    expect(reader.page.locator(".question p")).to_have_text(text)
    expect(reader.page.locator("#title")).to_have_text(text)
    assert reader.page.evaluate("window.hacked") is None


# Each ends in words that the page must show. marked throws at some of these, and takes seconds at others.
BREAKING = {
    "quotes in one line": "> " * 3_000,
    "quotes without spaces": ">" * 3_000,
    "lists in one line": "1. " * 3_000,
    "bullets, deeper each line": "\n".join("  " * depth + "- x" for depth in range(300)) + "\n\n",
    "quotes, deeper each line": "\n".join(">" * depth + " x" for depth in range(400)) + "\n\n",
    "stars": "*" * 60_000 + " ",
    "emphasis in emphasis": "*a **b " * 10_000,
    "underscores": "_a_" * 20_000 + " ",
    "brackets": "[" * 60_000,
    "links in links": "[a](" * 15_000,
    "signs that open": "<" * 60_000,
    "almost an e-mail": "a." * 30_000 + " ",
    "code that never closes": "`a``b```c" * 6_000,
    "cells": "|a" * 3_000 + "|\n" + "|-" * 3_000 + "|\n\n",
    "lines of lists": "\n- " * 20_000,
}


@pytest.mark.parametrize("text", BREAKING.values(), ids=BREAKING)
def test_no_answer_breaks_the_page_nor_does_it_after_a_reload(
    visit: Visit, upstream: ScriptedUpstream, text: str
) -> None:
    upstream.answer_next(Say("**Before.**\n\n"), Say(text), Say("The end."), Finish())
    reader = visit()
    reader.ask("Break it")
    reader.wait_for_end()
    expect(reader.prose).to_contain_text("The end.")
    reader.page.reload()
    expect(reader.prose.locator("strong").first).to_have_text("Before.")
    expect(reader.prose).to_contain_text("The end.")
    reader.ask("Are you there?")
    expect(reader.prose).to_have_text("Hello there!")
    reader.wait_for_end()


def test_what_the_markdown_library_cannot_take_is_shown_as_text_beside_the_rest(visit: Visit) -> None:
    html = visit().page.evaluate(
        """async () => {
          const { MarkdownView } = await import("/page/markdown.js");
          const view = new MarkdownView(document.createElement("div"));
          view.update("# Title\\n\\n" + "_a_".repeat(5000) + "\\n\\n*end*", true);
          return [...view.element.children].map((child) => [child.tagName, child.textContent.length]);
        }"""
    )
    assert html == [["H3", 5], ["P", 15_000], ["P", 3]]


def test_a_link_to_the_service_itself_is_no_link_and_asks_nothing(
    visit: Visit, upstream: ScriptedUpstream, service: RunningService
) -> None:
    host = service.url.partition("://")[2]
    targets = [
        "/ask?q=Pay",
        "ask?q=Pay",
        "./ask?q=Pay",
        "?q=Pay",
        f"//{host}/ask?q=Pay",
        f"{service.url}/ask?q=Pay",
        f"{service.url.upper()}/ask?q=Pay",
        f"http://name:word@{host}/ask?q=Pay",
        f"http:\\\\{host}/ask?q=Pay",
        f"http:/{host}/ask?q=Pay",
        f"{service.url}/../ask?messages=%5B%5D",
    ]
    links = "\n\n".join([*(f"[link {n}]({target})" for n, target in enumerate(targets)), *targets[5:]])
    tail = f"\n\n<{service.url}/ask?q=Pay> ![image]({service.url}/ask?q=Pay) [other](https://example.org/)"
    upstream.answer_next(Say(links + tail), Finish())
    reader = visit()
    reader.ask("Links, please")
    reader.wait_for_end()
    assert [link.get_attribute("href") for link in reader.prose.locator("a").all()] == [
        "https://example.org/"
    ]
    for number in range(len(targets)):
        reader.prose.get_by_text(f"link {number}", exact=False).first.click()
    assert len(upstream.calls) == 1
    assert len(reader.context.pages) == 1
