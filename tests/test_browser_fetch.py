"""What a page of anybody's does in a real Chromium: its own `fetch` on the text format, and `/ask.js`."""

import threading
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Page

from tests.conftest import QUICK
from tests.support.browser import chromium
from tests.support.service import HELLO, RunningService, serve
from tests.support.tables import ClientTable
from tests.support.upstream import Finish, Hold, Reason, Reset, Say, ScriptedUpstream, Silence

PATIENCE_MS = 30_000

# What a page writes. It notes what it has at each step, so that a test can look on.
SCRIPT = """
async ({ body }) => {
  const aborting = new AbortController();
  const seen = (globalThis.seen = { text: "", status: null, ended: null });
  seen.stop = () => aborting.abort();
  try {
    const response = await fetch("/ask?format=text", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(body),
      signal: aborting.signal,
    });
    seen.status = response.status;
    for await (const piece of response.body.pipeThrough(new TextDecoderStream())) {
      seen.text += piece;
    }
    seen.ended = "whole";
  } catch (error) {
    seen.ended = `${error.name}: ${error.message}`;
  }
}
"""

IMPORTING_SCRIPT = """
async ({ url, messages }) => {
  const { ask } = await import(`${url}/ask.js`);
  let text = "";
  for await (const event of ask(`${url}/ask`, messages)) {
    if (event.type === "delta") text += event.content;
  }
  return text;
}
"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as running:
        yield running


@pytest.fixture
def page(browser: Browser, service: RunningService) -> Iterator[Page]:
    context = browser.new_context(bypass_csp=True)  # the page stands for anybody's
    page = context.new_page()
    page.set_default_timeout(PATIENCE_MS)
    page.goto(f"{service.url}/healthz")
    yield page
    context.close()


def start(page: Page) -> None:
    """Let the page ask, without waiting for the answer."""
    page.evaluate(f"order => {{ ({SCRIPT})(order); }}", {"body": HELLO})


def end(page: Page) -> dict[str, Any]:
    page.wait_for_function("seen.ended !== null")
    found: dict[str, Any] = page.evaluate("({ ...seen, stop: null })")
    return found


def row(browser: Browser) -> tuple[str, str]:
    code = 'fetch("…/ask?format=text") · response.body.pipeThrough(new TextDecoderStream())'
    return f"fetch in Chromium {browser.version}", code


def test_a_page_reads_each_delta_as_it_comes(
    browser: Browser, page: Page, upstream: ScriptedUpstream, client_table: ClientTable
) -> None:
    gate = threading.Event()
    upstream.answer(Say("first 🙂 "), Hold(gate), Say("last"), Finish("stop"))
    start(page)
    page.wait_for_function("seen.text === 'first 🙂 '")  # no browser holds it back to guess its type
    gate.set()
    found = end(page)
    assert (found["status"], found["text"], found["ended"]) == (200, "first 🙂 last", "whole")
    client_table.enter(*row(browser), "a whole answer", "the text")


def test_a_page_reads_an_answer_cut_by_the_limit_to_its_end(
    browser: Browser, page: Page, upstream: ScriptedUpstream, client_table: ClientTable
) -> None:
    upstream.answer(Say("Hello"), Finish("length"))
    start(page)
    found = end(page)
    assert (found["text"], found["ended"]) == ("Hello", "whole")
    client_table.enter(*row(browser), "cut by the token limit", "the text; text cannot tell why it ended")


def test_a_page_cannot_take_a_broken_answer_for_a_whole_one(
    browser: Browser,
    page: Page,
    service: RunningService,
    upstream: ScriptedUpstream,
    client_table: ClientTable,
) -> None:
    upstream.answer(Say("Hello"), Reset())
    start(page)
    found = end(page)
    assert found["text"] in ("", "Hello")  # what a browser has not handed over yet, it drops
    assert found["ended"] == "TypeError: network error"
    service.wait_for_log("text.broken_off .*upstream_protocol_error")
    assert "Traceback" not in service.log()
    client_table.enter(*row(browser), "upstream fails midway", found["ended"])


def test_a_page_gets_an_error_before_the_first_word_as_a_status(
    page: Page, upstream: ScriptedUpstream
) -> None:
    upstream.answer(Reason("Hmm"), Reset())
    start(page)
    found = end(page)
    assert found["status"] == 500
    assert '"error":"upstream_protocol_error"' in found["text"]


def test_a_page_that_aborts_stops_the_upstream_call(
    browser: Browser, page: Page, upstream: ScriptedUpstream, client_table: ClientTable
) -> None:
    upstream.answer(Say("first"), Silence())
    start(page)
    page.wait_for_function("seen.text === 'first'")
    page.evaluate("seen.stop()")
    found = end(page)
    assert found["ended"].startswith("AbortError")
    assert upstream.calls[0].wait_gone(10)
    client_table.enter(
        *row(browser), "stopped", f"{found['ended'].split(':')[0]}; upstream is cancelled at once"
    )


@pytest.fixture
def foreign(browser: Browser, upstream: ScriptedUpstream) -> Iterator[tuple[Page, str]]:
    """A page of another, allowed origin, and the service's address."""
    env = QUICK | {"OPENAI_BASE_URL": upstream.base_url}
    with serve(env) as pages, serve(env | {"ALLOWED_ORIGIN": pages.url}) as service:
        page = browser.new_page(bypass_csp=True)  # it stands for a page of anybody's
        page.goto(f"{pages.url}/healthz")
        yield page, service.url
        page.close()


def test_a_text_answer_to_a_page_of_another_origin_can_be_read(
    foreign: tuple[Page, str], upstream: ScriptedUpstream
) -> None:
    upstream.answer(Say("Hello"), Finish())
    page, url = foreign
    page.evaluate(SCRIPT.replace('"/ask', f'"{url}/ask'), {"body": HELLO})
    assert end(page)["text"] == "Hello"


def test_a_page_of_another_origin_can_import_the_client_module_and_ask(
    foreign: tuple[Page, str], upstream: ScriptedUpstream
) -> None:
    upstream.answer(Say("Hello"), Finish())
    page, url = foreign
    assert page.evaluate(IMPORTING_SCRIPT, {"url": url, "messages": HELLO["messages"]}) == "Hello"
