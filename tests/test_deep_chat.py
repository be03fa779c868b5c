"""Deep Chat, a chat frontend of its own, as a page has it: its OpenAI connection with another address."""

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect

from tests.conftest import QUICK
from tests.support.browser import chromium
from tests.support.node import FOLDER, version
from tests.support.service import RunningService, serve
from tests.support.tables import FAULT, LENGTH, STOP, WHOLE, ClientTable
from tests.support.upstream import Cut, Finish, Say, ScriptedUpstream, Silence
from tests.support.web import Handler, web_server

ROW = (
    f"Deep Chat {version('deep-chat')}",
    'connect = { url: "…/v1/chat/completions", stream: true }',
)
PAGE = """<!doctype html><link rel="icon" href="data:,"><title>chat</title>
<script type="module" src="/deepChat.bundle.js"></script>"""


class Site(Handler):
    """Serves the page and its script."""

    def do_GET(self) -> None:
        if self.path == "/":
            self.reply(200, PAGE.encode(), **{"Content-Type": "text/html"})
        else:
            bundle = FOLDER / "node_modules/deep-chat/dist/deepChat.bundle.js"
            self.reply(200, bundle.read_bytes(), **{"Content-Type": "text/javascript"})


@pytest.fixture(scope="module")
def service(upstream_port: int) -> Iterator[RunningService]:
    """A service that pages of this machine may call."""
    env = {"OPENAI_BASE_URL": f"http://127.0.0.1:{upstream_port}/v1", "ALLOWED_ORIGIN": "http://localhost:*"}
    env["OPENAI_MODEL"] = "gpt-4o"  # what it asks for
    with serve(QUICK | env) as running:
        yield running


@pytest.fixture(scope="module")
def page(service: RunningService) -> Iterator[Page]:
    with web_server(Site) as port, chromium() as browser:
        page = browser.new_page()
        page.route(re.compile("googleapis"), lambda route: route.abort())  # a font
        page.goto(f"http://localhost:{port}/")
        yield page


@pytest.fixture
def chat(page: Page, service: RunningService) -> Page:
    """The page with a new chat."""
    settings = {
        "directConnection": {"openAI": {"key": "none", "completions": True}},
        "connect": {"url": f"{service.url}/v1/chat/completions", "stream": True},
    }
    page.evaluate(
        """(settings) => {
            document.body.replaceChildren();
            document.body.append(Object.assign(document.createElement("deep-chat"), settings));
        }""",
        settings,
    )
    return page


def ask(chat: Page) -> None:
    box = chat.locator("#text-input")
    box.fill("Hello!")
    box.press("Enter")


def test_it_shows_a_whole_answer_and_sends_it_back_with_the_next_question(
    chat: Page, upstream: ScriptedUpstream, client_table: ClientTable
) -> None:
    upstream.answer(Say("Hel"), Say("lo "), Say("🙂"), Finish())
    ask(chat)
    expect(chat.get_by_text("Hello 🙂")).to_be_visible()
    ask(chat)
    expect(chat.get_by_text("Hello 🙂")).to_have_count(2)
    assert [message["content"] for message in upstream.calls[1].body["messages"]] == [
        "Hello!",
        "Hello 🙂",
        "Hello!",
    ]
    assert upstream.paid_calls == 2
    client_table.enter(*ROW, WHOLE, "the text")


def test_it_shows_an_answer_that_the_limit_has_cut(
    chat: Page, upstream: ScriptedUpstream, client_table: ClientTable
) -> None:
    upstream.answer(Say("Hel"), Finish("length"))
    ask(chat)
    expect(chat.get_by_text("Hel", exact=True)).to_be_visible()
    client_table.enter(*ROW, LENGTH, "the text; it does not show why it ended")


def test_it_shows_an_error_in_the_middle(
    chat: Page, upstream: ScriptedUpstream, client_table: ClientTable
) -> None:
    upstream.answer(Say("Hel"), Cut())
    ask(chat)
    expect(chat.get_by_text("Error, please try again.")).to_be_visible()
    assert upstream.paid_calls == 1
    client_table.enter(*ROW, FAULT, "its own error message")


def test_its_stop_button_ends_the_upstream_call(
    chat: Page, upstream: ScriptedUpstream, client_table: ClientTable
) -> None:
    upstream.answer(Say("first"), Silence())
    ask(chat)
    expect(chat.get_by_text("first")).to_be_visible()
    chat.locator("#stop-icon").click()
    assert upstream.calls[0].wait_gone(10)
    client_table.enter(*ROW, STOP, "the text so far; upstream is cancelled after the grace")
