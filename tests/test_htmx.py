"""`?format=html` with the real htmx in a real Chromium: the README's page, and the attributes of htmx 4."""

import html
import re
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Dialog, Page, expect

from tests.support import plain_http
from tests.support.browser import chromium
from tests.support.long_answer import PATIENT
from tests.support.proxy import BadNetwork
from tests.support.readme import README, code_block
from tests.support.service import RunningService, serve
from tests.support.tables import Matrix
from tests.support.upstream import Finish, Hold, Reason, Reset, Say, ScriptedUpstream, Silence
from tests.support.web import Handler, web_server
from tests.test_readme import ADDRESS

MODULES = Path(__file__).parent / "clients" / "node_modules"
WAIT_MS = 20_000

# What a page must show as it stands. Each piece is swapped in by itself.
PIECES = (
    *(
        '<script>alert(1)</script> & "quotes"',
        "\n\n",
        "  two  spaces",
        " \n",
        "&lt;b",
        "&",
        "gt; ",
        "<",
        "b>",
    ),
    *(
        "</p><img src=x onerror=alert(2)>",
        "\n",
        "\ndata: x\n\nid: 7",
        "Grüße 🙂",
        "<!--",
        "</template>",
        "\n.",
    ),
)
TEXT = "".join(PIECES)
HALF = len(PIECES) // 2

OF_HTMX_4 = """<!doctype html>
<link rel="icon" href="data:,">
<meta charset="utf-8">
<script src="/htmx-4.js"></script>
<script src="/hx-sse-4.js"></script>
<main></main>
"""
SCRIPTS = {
    "/htmx.min.js": MODULES / "htmx.org/dist/htmx.min.js",
    "/sse.min.js": MODULES / "htmx-ext-sse/dist/sse.min.js",
    "/htmx-4.js": MODULES / "htmx4/dist/htmx.min.js",
    "/hx-sse-4.js": MODULES / "htmx4/dist/ext/hx-sse.min.js",
}


def served(url: str) -> dict[str, str]:
    """Return what stands at an address: a script, or the page."""
    path, _, service = url.partition("?")
    if script := SCRIPTS.get("/" + path.rpartition("/")[2]):
        return {"body": script.read_text(), "content_type": "text/javascript"}
    page = code_block("html", "htmx.min.js").replace(ADDRESS, service) if service else OF_HTMX_4
    return {"body": page, "content_type": "text/html"}


class Site(Handler):
    """Serves the README's page and its scripts; the query is the service's address."""

    def do_GET(self) -> None:
        found = served(self.path)
        self.reply(200, found["body"].encode(), **{"Content-Type": found["content_type"]})


@pytest.fixture(scope="module")
def site() -> Iterator[str]:
    with web_server(Site) as port:
        yield f"http://localhost:{port}/"


class Chat:
    """A page with htmx, and what its reader does."""

    def __init__(self, page: Page, network: BadNetwork, site: str, version: int) -> None:
        self.page, self.network, self.version = page, network, version
        self.dialogs: list[str] = []
        page.set_default_timeout(WAIT_MS)
        page.on("dialog", self._note)
        if version == 2:
            page.goto(f"{site}?{network.url}")
        else:  # asks its own origin alone, so its page and scripts stand in the service's place
            page.route(
                re.compile(r"/(page|.*4\.js)$"), lambda route: route.fulfill(**served(route.request.url))
            )
            page.goto(f"{network.url}/page")

    def _note(self, dialog: Dialog) -> None:
        self.dialogs.append(dialog.message)
        dialog.dismiss()

    def _watch(self) -> None:
        """Let the page remember why htmx has closed its connection."""
        self.page.evaluate(
            """() => {
                const remember = ({ detail }) => (globalThis.closedBy = detail.type ?? detail.reason);
                for (const name of ["htmx:sseClose", "htmx:sse:close"])
                    document.body.addEventListener(name, remember);
            }"""
        )

    def ask(self) -> None:
        self._watch()
        if self.version == 2:
            self.page.fill("[name=q]", "Hello!")
            self.page.press("[name=q]", "Enter")
        else:
            [shown] = re.findall(r"`(hx-sse:connect=.*?)`", README)
            attributes = shown.replace("q=…&id=…", html.escape(f"q=Hello!&id={uuid.uuid4()}"))
            turn = f'<p {attributes} style="white-space: pre-wrap"></p>'
            self.page.evaluate(
                "(turn) => { const main = document.querySelector('main');"
                " main.innerHTML = turn; htmx.process(main); }",
                turn,
            )

    @property
    def text(self) -> str:
        return str(self.page.locator("p").inner_text())

    def wait_for_text(self, text: str) -> None:
        self.page.wait_for_function("(text) => document.querySelector('p')?.innerText === text", arg=text)

    def wait_for_end(self) -> None:
        self.page.wait_for_function("globalThis.closedBy === 'message'")
        if self.version == 2:
            expect(self.page.get_by_text("writing…")).to_have_count(0, timeout=WAIT_MS)
            expect(self.page.locator("small span")).to_have_count(1, timeout=WAIT_MS)

    def expect_unharmed(self) -> None:
        assert self.dialogs == []
        assert self.page.locator("p :not(br, em, strong)").count() == 0


@pytest.fixture(scope="module")
def service(upstream_port: int) -> Iterator[RunningService]:
    env = {"OPENAI_BASE_URL": f"http://127.0.0.1:{upstream_port}/v1", "ALLOWED_ORIGIN": "http://localhost:*"}
    with serve({**PATIENT, **env}) as running:
        yield running


@pytest.fixture
def network(service: RunningService) -> Iterator[BadNetwork]:
    with BadNetwork(service.url) as proxy:
        yield proxy


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as running:
        yield running


@pytest.fixture(params=[2, 4], ids=["htmx 2", "htmx 4"])
def chat(request: pytest.FixtureRequest, browser: Browser, network: BadNetwork, site: str) -> Iterator[Chat]:
    with browser.new_context() as context:
        yield Chat(context.new_page(), network, site, request.param)


def version_of(package: str) -> str:
    return str(re.findall(r'"version": "(.*?)"', (MODULES / package / "package.json").read_text())[0])


def name_of(chat: Chat) -> str:
    return f"htmx {version_of('htmx.org' if chat.version == 2 else 'htmx4')}"


def test_the_text_appears_as_it_is_and_runs_nothing(
    chat: Chat, upstream: ScriptedUpstream, matrix: Matrix
) -> None:
    gate = threading.Event()
    upstream.answer(Reason("<b>Hm</b>"), *map(Say, PIECES[:3]), Hold(gate), *map(Say, PIECES[3:]), Finish())
    chat.ask()
    chat.wait_for_text("".join(PIECES[:3]))  # as it comes
    if chat.version == 2:
        expect(chat.page.locator("small")).to_have_text("writing…")
    gate.set()
    chat.wait_for_text(TEXT)
    chat.wait_for_end()
    chat.expect_unharmed()
    matrix.record(name_of(chat), "whole answer", upstream.paid_calls)
    assert upstream.paid_calls == 1


def test_a_reset_and_a_cut_in_the_middle_lose_and_repeat_nothing(
    chat: Chat, upstream: ScriptedUpstream, matrix: Matrix
) -> None:
    gate = threading.Event()
    upstream.answer(*map(Say, PIECES[:HALF]), Hold(gate), *map(Say, PIECES[HALF:]), Finish())
    chat.network.cut_all()  # a connection that the browser opened beforehand would escape the cuts
    chat.network.cut_next(after=PIECES[0][:7].replace("<", "&lt;").encode())
    chat.network.cut_next(after=b"two  sp", reset=False)
    chat.ask()
    chat.network.wait_for_cuts(2)
    gate.set()
    chat.wait_for_text(TEXT)
    chat.wait_for_end()
    chat.expect_unharmed()
    matrix.record(name_of(chat), "reset in the middle", upstream.paid_calls)
    assert upstream.paid_calls == 1


def test_a_failure_in_the_middle_is_shown_to_the_reader(chat: Chat, upstream: ScriptedUpstream) -> None:
    upstream.answer(Say("Hello"), Reset())
    chat.ask()
    shown = "The answer was cut off before it was complete. Please try again."
    expect(chat.page.get_by_role("alert")).to_have_text(shown, timeout=WAIT_MS)
    chat.wait_for_end()
    assert chat.text == f"Hello{shown}"
    assert upstream.paid_calls == 1


def test_an_answer_that_was_cut_or_stopped_does_not_look_whole(
    chat: Chat, upstream: ScriptedUpstream
) -> None:
    upstream.answer(Say("Hello"), Silence())
    with chat.page.expect_response("**/ask?*") as waiting:
        chat.ask()
    chat.wait_for_text("Hello")
    plain_http.delete(chat.network.url + waiting.value.headers["content-location"])
    expect(chat.page.locator("p em")).to_have_text("Stopped.", timeout=WAIT_MS)
    chat.wait_for_end()


def test_the_readme_names_the_versions_that_are_tested() -> None:
    [two] = [line for line in README.split("\n") if line.startswith("| htmx 2 ")]
    assert two.endswith(f"| {version_of('htmx.org')}, {version_of('htmx-ext-sse')} |")
    [four] = [line for line in README.split("\n") if line.startswith("| htmx 4 ")]
    assert four.endswith(f"| {version_of('htmx4')} |")
