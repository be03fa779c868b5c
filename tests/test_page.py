"""The chat page at `/`: what is served, and what it does in a real Chromium against the real service.

Each test leaves nothing behind: a new context is a new reader with an empty storage. Every page is watched
for requests to other hosts, faults in its console (CSP violations are such) and uncaught errors.
"""

import hashlib
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from chat_sse.web.chat import CONTENT_SECURITY_POLICY, FOLDER
from tests.conftest import QUICK
from tests.support.browser import chromium
from tests.support.proxy import BadNetwork
from tests.support.service import RunningService, serve
from tests.support.upstream import Cut, Finish, Hold, Pause, Reason, Refuse, Say, ScriptedUpstream, Silence

ARTIFACTS = Path(__file__).parent / ".artifacts"
AXE = Path(__file__).parent / "clients" / "node_modules" / "axe-core" / "axe.min.js"

WAIT_MS = 20_000
DESKTOP = {"width": 1180, "height": 820}
NARROW = {"width": 320, "height": 640}

SAMPLE = """A **server-sent event stream** is one ordinary HTTP response that never quite ends: the server \
keeps writing small blocks of text, and the browser hands each of them to your code as it arrives.

# When to choose them

- The talk goes mostly *one way*, from server to reader
- You want reconnecting for free, with `Last-Event-ID`

| | Server-sent events | Web sockets |
|---|---|---:|
| Direction | server to browser | both |
| Reconnects | by itself | by hand |

```js
source.onmessage = ({ data }) => {
  output.append(JSON.parse(data).content); // one piece of the answer, as soon as it has been written
};
```

> Choose the simplest thing that carries the message.

For the details, see [the standard](https://html.spec.whatwg.org/).
"""


@pytest.fixture(scope="module")
def service(upstream_port: int) -> Iterator[RunningService]:
    """A service whose deadlines outlast the two seconds that a client waits before it reconnects."""
    env = {
        **QUICK,
        "OPENAI_BASE_URL": f"http://127.0.0.1:{upstream_port}/v1",
        "CHAT_SSE_DISCONNECT_GRACE": "20",
        "CHAT_SSE_FIRST_TOKEN_TIMEOUT": "30",
        "CHAT_SSE_IDLE_TIMEOUT": "30",
    }
    with serve(env) as running:
        yield running


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    expect.set_options(timeout=WAIT_MS)
    with chromium() as running:
        yield running


class Reader:
    """Somebody with a browser of his own at the page."""

    def __init__(self, context: BrowserContext, url: str) -> None:
        self.context = context
        self.faults: list[str] = []
        self.offline = False
        self.page = self._open(url)

    def _open(self, url: str) -> Page:
        page = self.context.new_page()
        page.set_default_timeout(WAIT_MS)
        page.on("request", lambda request: self._check_host(request.url, url))
        page.on("console", lambda message: self._check_console(message.type, message.text))
        page.on("pageerror", lambda error: self.faults.append(f"uncaught: {error}"))
        page.goto(f"{url}/")
        return page

    def _check_host(self, address: str, url: str) -> None:
        if not address.startswith(f"{url}/"):
            self.faults.append(f"a request to another host: {address}")

    def _check_console(self, kind: str, text: str) -> None:
        # Chromium itself tells of every HTTP error and every lost connection.
        if kind in ("error", "warning") and not text.startswith("Failed to load resource"):
            self.faults.append(f"{kind}: {text}")

    def ask(self, question: str) -> None:
        self.page.fill("#question", question)
        self.page.press("#question", "Enter")

    @property
    def answers(self) -> Any:
        return self.page.locator(".answer")

    @property
    def prose(self) -> Any:
        return self.page.locator(".prose").last

    def wait_for_end(self) -> None:
        expect(self.page.locator("#send")).to_be_visible(timeout=WAIT_MS)
        expect(self.answers.last).to_have_attribute("aria-busy", "false", timeout=WAIT_MS)

    def button(self, name: str) -> Any:
        return self.page.get_by_role("button", name=name, exact=True)


Permit = Callable[..., Reader]


@pytest.fixture
def visit(browser: Browser, service: RunningService) -> Iterator[Permit]:
    """Open the page for a new reader; at the end none may have met a fault."""
    readers: list[Reader] = []
    with ExitStack() as stack:

        def open_page(url: str = service.url, **options: Any) -> Reader:
            context = browser.new_context(**{"viewport": DESKTOP, **options})
            stack.callback(context.close)
            readers.append(Reader(context, url))
            return readers[-1]

        yield open_page
        for reader in readers:
            assert reader.faults == []


def say(text: str, size: int = 12) -> list[Say]:
    """An answer in pieces."""
    return [Say(text[start : start + size]) for start in range(0, len(text), size)]


# What is served


def test_the_page_is_served_under_a_strict_policy(service: RunningService) -> None:
    response = httpx2.get(f"{service.url}/")
    assert response.status_code == 200
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    assert response.headers["content-security-policy"] == CONTENT_SECURITY_POLICY
    assert "unsafe" not in CONTENT_SECURITY_POLICY
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.headers["referrer-policy"] == "no-referrer"


@pytest.mark.parametrize(
    ("path", "media_type"),
    [
        ("/ask.js", "text/javascript; charset=utf-8"),
        ("/ask.d.ts", "text/plain; charset=utf-8"),
        ("/page/main.js", "text/javascript; charset=utf-8"),
        ("/page/vendor/purify.es.mjs", "text/javascript; charset=utf-8"),
        ("/page/vendor/LICENSE-marked.txt", "text/plain; charset=utf-8"),
        ("/page/chat.css", "text/css; charset=utf-8"),
        ("/page/icon.svg", "image/svg+xml"),
    ],
)
def test_each_part_is_served_with_its_type_and_asked_about_by_its_etag(
    service: RunningService, path: str, media_type: str
) -> None:
    url = f"{service.url}{path}"
    first = httpx2.get(url)
    assert (first.status_code, first.headers["content-type"]) == (200, media_type)
    assert first.headers["cache-control"] == "no-cache"
    tag = first.headers["etag"]
    for known in (tag, f"W/{tag}", f'"other", {tag}', "*"):
        again = httpx2.get(url, headers={"If-None-Match": known})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
    assert httpx2.get(url, headers={"If-None-Match": '"other"'}).status_code == 200


def test_nothing_else_of_the_package_is_served(service: RunningService) -> None:
    for path in ("/page/", "/page/__init__.py", "/page/../app.py", "/page/vendor/README.md"):
        assert httpx2.get(f"{service.url}{path}").status_code == 404


def test_vendored_modules_are_the_ones_that_were_reviewed() -> None:
    notes = (FOLDER / "vendor" / "README.md").read_text()
    listed = dict(re.findall(r"^\| `([\w.]+)` \|.*`([0-9a-f]{64})` \|$", notes, re.MULTILINE))
    found = {path.name: path for path in (FOLDER / "vendor").iterdir() if path.suffix in (".js", ".mjs")}
    assert {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in found.items()} == listed


# CompletionClient


def test_a_question_streams_its_answer_as_markdown(visit: Permit, upstream: ScriptedUpstream) -> None:
    gate, rest = threading.Event(), threading.Event()
    upstream.answer(Hold(gate), Say("Hello **you**"), Hold(rest), *say("\n\n" + SAMPLE), Finish())
    reader = visit()
    assert not reader.page.locator("#send").is_enabled()
    reader.ask("Hello!")
    expect(reader.page.get_by_text("Thinking")).to_be_visible()
    gate.set()
    expect(reader.prose.locator("strong")).to_have_text("you")
    expect(reader.page.get_by_text("Thinking")).to_be_hidden()
    rest.set()
    reader.wait_for_end()
    assert reader.prose.locator("li").count() == 2
    assert reader.prose.locator("tbody td").count() == 6
    assert reader.prose.locator("pre code").inner_text().startswith("source.onmessage")
    link = reader.prose.get_by_role("link", name="the standard")
    assert (link.get_attribute("target"), link.get_attribute("rel")) == ("_blank", "noopener noreferrer")
    assert upstream.calls[0].body["messages"] == [{"role": "user", "content": "Hello!"}]
    assert reader.page.title() == "Hello! · ask"


def test_the_history_goes_with_the_next_question(visit: Permit, upstream: ScriptedUpstream) -> None:
    reader = visit()
    reader.ask("One")
    reader.wait_for_end()
    reader.ask("Two")
    upstream.wait_for_calls(2)
    reader.wait_for_end()
    told = [(message["role"], message["content"]) for message in upstream.calls[1].body["messages"]]
    assert told == [("user", "One"), ("assistant", "Hello there!"), ("user", "Two")]


def test_starter_questions_are_asked_by_a_click(visit: Permit, upstream: ScriptedUpstream) -> None:
    reader = visit()
    starter = reader.page.locator(".starters button").first
    text = starter.inner_text()
    starter.click()
    reader.wait_for_end()
    assert upstream.calls[0].body["messages"][0]["content"] == text
    expect(reader.page.locator("#empty")).to_be_hidden()


def test_input_is_checked_before_it_is_sent(visit: Permit, upstream: ScriptedUpstream) -> None:
    reader = visit()
    reader.ask("   ")
    expect(reader.page.locator("#send")).to_be_disabled()
    reader.ask("x" * 100_001)
    expect(reader.page.locator("#fault")).to_have_text("Too long by 1 characters.")
    expect(reader.page.locator("#send")).to_be_disabled()
    reader.page.fill("#question", "line one")
    reader.page.press("#question", "Shift+Enter")
    reader.page.keyboard.type("line two")
    expect(reader.page.locator("#question")).to_have_value("line one\nline two")
    assert upstream.calls == []


def test_reasoning_is_shown_collapsed(visit: Permit, upstream: ScriptedUpstream) -> None:
    upstream.answer(Reason("Let me see."), Say("42"), Finish())
    reader = visit()
    reader.ask("What is it?")
    reader.wait_for_end()
    assert reader.prose.inner_text() == "42"
    expect(reader.page.get_by_text("Let me see.")).to_be_hidden()
    reader.page.get_by_text("Reasoning", exact=True).click()
    expect(reader.page.get_by_text("Let me see.")).to_be_visible()


@pytest.mark.parametrize("how", ["button", "Escape"])
def test_stop_ends_the_answer_and_the_paid_call(visit: Permit, upstream: ScriptedUpstream, how: str) -> None:
    upstream.answer(Say("Once upon a time"), Silence())
    reader = visit()
    reader.ask("Tell me a story")
    expect(reader.prose).to_have_text("Once upon a time")
    if how == "button":
        reader.button("Stop the answer").click()
    else:
        reader.page.keyboard.press("Escape")
    reader.wait_for_end()
    expect(reader.page.locator(".notice")).to_have_text("Stopped.")
    expect(reader.prose).to_have_text("Once upon a time")
    assert upstream.calls[0].wait_gone(5)


def test_regenerate_replaces_the_last_answer(visit: Permit, upstream: ScriptedUpstream) -> None:
    upstream.answer_next(Say("First"), Finish())
    upstream.answer_next(Say("Second"), Finish())
    reader = visit()
    reader.ask("Which?")
    reader.wait_for_end()
    reader.button("Regenerate").click()
    expect(reader.prose).to_have_text("Second")
    reader.wait_for_end()
    assert reader.answers.count() == 1
    assert upstream.calls[0].body["messages"] == upstream.calls[1].body["messages"]


def test_the_last_question_can_be_edited(visit: Permit, upstream: ScriptedUpstream) -> None:
    reader = visit()
    reader.ask("Who was Hypatai?")
    reader.wait_for_end()
    reader.page.press("#question", "ArrowUp")
    expect(reader.page.locator("#question")).to_have_value("Who was Hypatai?")
    reader.page.keyboard.press("Escape")
    expect(reader.page.locator("#editing")).to_be_hidden()
    expect(reader.page.locator("#question")).to_have_value("")
    reader.button("Edit the question").click()
    reader.ask("Who was Hypatia?")
    upstream.wait_for_calls(2)
    reader.wait_for_end()
    expect(reader.page.locator(".question p")).to_have_text(["Who was Hypatia?"])
    assert [message["content"] for message in upstream.calls[1].body["messages"]] == ["Who was Hypatia?"]


def test_an_answer_and_its_code_can_be_copied(visit: Permit, upstream: ScriptedUpstream) -> None:
    text = "Look:\n\n```py\nprint(1)\n```\n"
    upstream.answer(Say(text), Finish())
    reader = visit(permissions=["clipboard-read", "clipboard-write"])
    reader.ask("Code, please")
    reader.wait_for_end()
    reader.button("Copy the answer").click()
    expect(reader.page.locator("#announcer")).to_have_text("Copied.")
    assert reader.page.evaluate("navigator.clipboard.readText()") == text
    reader.button("Copy the code").click()
    reader.page.wait_for_function("navigator.clipboard.readText().then((text) => text.trim() === 'print(1)')")


def test_a_refusal_is_shown_and_asking_again_helps(visit: Permit, upstream: ScriptedUpstream) -> None:
    upstream.answer_next(Refuse(429, headers={"retry-after": "7"}))
    reader = visit()
    reader.ask("Hello!")
    failure = reader.page.locator(".failure")
    expect(failure).to_contain_text("too many requests")
    expect(failure).to_contain_text("7 s")
    failure.get_by_text("Details").click()
    expect(failure).to_contain_text("rate_limit_error")
    reader.button("Ask again").click()
    expect(reader.prose).to_have_text("Hello there!")
    expect(failure).to_be_hidden()


def test_an_answer_that_breaks_off_keeps_its_text_and_says_so(
    visit: Permit, upstream: ScriptedUpstream
) -> None:
    upstream.answer(Say("The first half"), Cut())
    reader = visit()
    reader.ask("Hello!")
    expect(reader.page.locator(".failure")).to_contain_text("cut off")
    expect(reader.prose).to_have_text("The first half")


def test_an_answer_at_its_length_limit_says_so(visit: Permit, upstream: ScriptedUpstream) -> None:
    upstream.answer(Say("And so on and"), Finish("length"))
    reader = visit()
    reader.ask("Hello!")
    expect(reader.page.locator(".notice")).to_contain_text("length limit")


# What survives


def test_a_reload_in_mid_answer_goes_on_where_it_was_and_is_paid_once(
    visit: Permit, upstream: ScriptedUpstream
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
    visit: Permit, upstream: ScriptedUpstream
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
    visit: Permit, service: RunningService, upstream: ScriptedUpstream
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
        gate.set()
        reader.context.set_offline(False)
        expect(reader.prose).to_have_text("Before, after.", timeout=WAIT_MS)
        reader.wait_for_end()
        expect(reader.page.get_by_text("Reconnecting")).to_be_hidden()
    assert upstream.paid_calls == 1


def test_an_answer_goes_on_while_another_chat_is_read(visit: Permit, upstream: ScriptedUpstream) -> None:
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
    visit: Permit, upstream: ScriptedUpstream
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


# What an answer must not do

ATTACKS = """<script>window.hacked = 1</script>

<img src=x onerror="window.hacked = 2">

Inline <b onclick="window.hacked = 3">bold</b> and <svg onload="window.hacked = 4"> and <br>a break.

[script](javascript:window.hacked=5) [data](data:text/html,<script>window.hacked=6</script>) [home](/ask/1)

<a href="javascript:window.hacked=7">raw</a> ![pixel](https://evil.example/pixel.png?secret=1 "title")

<iframe src="https://evil.example/"></iframe><form action="https://evil.example/"><input name=q></form>

[quote](https://example.org/"onmouseover="window.hacked=8) <https://example.org/?a=<script>>

```"><script>window.hacked=9</script>
</code></pre><script>window.hacked=10</script>
```

<style>body { display: none }</style>

<math><mtext><table><mglyph><style><!--</style><img title="--&gt;&lt;img src=1 onerror=window.hacked=11&gt;">
"""


def test_markdown_that_tries_to_inject_is_shown_and_does_nothing(
    visit: Permit, upstream: ScriptedUpstream
) -> None:
    upstream.answer(*say(ATTACKS, 7), Finish())
    reader = visit()
    reader.ask("Attack me")
    reader.wait_for_end()
    for link in reader.prose.locator("a").all():
        link.hover()
        assert re.match(r"https?://", link.get_attribute("href") or "")
    assert reader.page.evaluate("window.hacked") is None
    assert reader.prose.locator("script, img, svg, iframe, form, input, style, math, [onclick]").count() == 0
    assert "<script>window.hacked = 1</script>" in reader.prose.inner_text()
    assert reader.prose.get_by_role("link", name="Image: pixel").count() == 1
    assert reader.prose.locator("br").count() == 1


def test_a_question_is_never_markup(visit: Permit, upstream: ScriptedUpstream) -> None:
    text = "<img src=x onerror='window.hacked = 1'> **bold**"
    reader = visit()
    reader.ask(text)
    reader.wait_for_end()
    expect(reader.page.locator(".question p")).to_have_text(text)
    expect(reader.page.locator("#title")).to_have_text(text)
    assert reader.page.evaluate("window.hacked") is None


def test_a_giant_table_scrolls_by_itself_and_the_page_stays_alive(
    visit: Permit, upstream: ScriptedUpstream
) -> None:
    row = "|" + "wide cell of a table|" * 30 + "\n"
    table = row + "|" + "-|" * 30 + "\n" + row * 300
    upstream.answer(*say(table, 2000), Say("\nThe end."), Finish())
    reader = visit(viewport=NARROW)
    reader.ask("A table")
    reader.wait_for_end()
    expect(reader.prose).to_contain_text("The end.")
    assert reader.prose.locator("tr").count() == 301
    assert reader.page.evaluate("document.documentElement.scrollWidth") == NARROW["width"]


def test_a_long_answer_is_drawn_at_most_once_a_frame_while_it_grows(
    visit: Permit, upstream: ScriptedUpstream
) -> None:
    paragraph = "A sentence with **bold**, `code` and [a link](https://example.org/) in it. " * 5 + "\n\n"
    upstream.answer(*say(paragraph * 500, 400), Finish())
    reader = visit()
    reader.page.evaluate(
        """() => {
          window.frameCount = 0;
          window.drawings = 0;
          const frame = () => { window.frameCount++; requestAnimationFrame(frame); };
          requestAnimationFrame(frame);
          const isProse = ({ target }) => target instanceof Element && target.closest(".prose");
          const count = (changes) => { window.drawings += changes.some(isProse) ? 1 : 0; };
          new MutationObserver(count).observe(document.body, { childList: true, subtree: true });
        }"""
    )
    reader.ask("Everything")
    expect(reader.page.locator("#send")).to_be_visible(timeout=WAIT_MS)
    expect(reader.prose.locator("p")).to_have_count(500, timeout=WAIT_MS)
    drawings, frames = reader.page.evaluate("[window.drawings, window.frameCount]")
    assert 1 <= drawings <= frames + 2  # the first and the last may fall between two frames


def test_a_growing_answer_makes_only_its_last_blocks_anew(visit: Permit) -> None:
    paragraph = "A sentence with **bold**, `code` and [a link](https://example.org/) in it. " * 5 + "\n\n"
    made, kept = visit().page.evaluate(
        """async (paragraph) => {
          const { MarkdownView } = await import("/page/markdown.js");
          const view = new MarkdownView(document.createElement("div"));
          let made = 0;
          const count = (records) => records.forEach(({ addedNodes }) => (made += addedNodes.length));
          const observer = new MutationObserver(count);
          observer.observe(view.element, { childList: true });
          let text = "";
          for (let part = 0; part < 1000; part += 1) {
            text += paragraph.slice(...(part % 2 ? [200] : [0, 200]));
            view.update(text, false);
          }
          view.update(text, true);
          count(observer.takeRecords());
          return [made, view.element.childElementCount];
        }""",
        paragraph,
    )
    assert kept == 500
    assert made <= 1000  # each paragraph when it begins and when it is whole; all of them would be 250,000


def test_markdown_in_pieces_ends_as_the_same_elements_as_markdown_at_once(visit: Permit) -> None:
    reader = visit()
    samples = [
        SAMPLE,
        ATTACKS,
        "[a]\n\n- x\n\n  y\n- z\n\n1. q\n\npara\n===\n\n[a]: https://a.example\n",
        "a\r\n\r\nb\r",
    ]
    assert reader.page.evaluate(
        """async (samples) => {
          const { MarkdownView } = await import("/page/markdown.js");
          const made = () => new MarkdownView(document.createElement("div"));
          return samples.every((text) => {
            const whole = made();
            whole.update(text, true);
            const grown = made();
            for (let end = 1; end < text.length; end += 3) grown.update(text.slice(0, end), false);
            grown.update(text, true);
            return whole.element.isEqualNode(grown.element);
          });
        }""",
        samples,
    )


# Where the reader is


def test_scrolling_up_lets_go_and_jumping_follows_again(visit: Permit, upstream: ScriptedUpstream) -> None:
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


def test_a_screen_reader_is_told_once_an_answer(visit: Permit, upstream: ScriptedUpstream) -> None:
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


def test_everything_works_by_keyboard_with_a_visible_focus(visit: Permit, upstream: ScriptedUpstream) -> None:
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


def test_the_drawer_of_a_narrow_screen_opens_and_closes_by_keyboard(visit: Permit) -> None:
    reader = visit(viewport=NARROW)
    expect(reader.page.locator("#sidebar")).to_be_hidden()
    reader.button("Chats").click()
    expect(reader.button("Close the list of chats")).to_be_focused()
    reader.page.keyboard.press("Escape")
    expect(reader.page.locator("#sidebar")).to_be_hidden()
    expect(reader.button("Chats")).to_be_focused()


def test_a_chosen_theme_holds_against_the_systems_and_over_a_reload(visit: Permit) -> None:
    reader = visit(color_scheme="light")
    paper = "getComputedStyle(document.body).backgroundColor"
    light = reader.page.evaluate(paper)
    reader.page.get_by_role("radio", name="Dark").check()
    dark = reader.page.evaluate(paper)
    reader.page.reload()
    assert reader.page.evaluate(paper) == dark != light
    reader.page.get_by_role("radio", name="Auto").check()
    assert reader.page.evaluate(paper) == light


def test_reduced_motion_moves_nothing(visit: Permit, upstream: ScriptedUpstream) -> None:
    gate = threading.Event()
    upstream.answer(Hold(gate), Say("Done"), Finish())
    reader = visit(reduced_motion="reduce")
    reader.ask("Hello!")
    expect(reader.page.get_by_text("Thinking")).to_be_visible()
    assert reader.page.evaluate("document.getAnimations().length") == 0
    gate.set()
    reader.wait_for_end()


# A service with keys and limits

KEY = "reader-canary-0123456789"


@pytest.fixture(scope="module")
def locked(upstream_port: int) -> Iterator[RunningService]:
    env = {
        **QUICK,
        "OPENAI_BASE_URL": f"http://127.0.0.1:{upstream_port}/v1",
        "CHAT_SSE_DISCONNECT_GRACE": "20",
        "CHAT_SSE_API_KEYS": f"reader:{KEY}",
    }
    with serve(env) as running:
        yield running
        assert "canary" not in running.log()


def give(reader: Reader, key: str) -> None:
    reader.page.get_by_label("This service asks for a key").fill(key)
    reader.button("Use this key").click()


def test_a_key_is_asked_for_once_and_the_question_is_sent_again_with_it(
    visit: Permit, locked: RunningService, upstream: ScriptedUpstream
) -> None:
    reader = visit(locked.url)
    field = reader.page.get_by_label("This service asks for a key")
    reader.ask("Hello!")
    expect(reader.page.locator(".failure")).to_contain_text("needs an API key")
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
    visit: Permit, locked: RunningService, upstream: ScriptedUpstream
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
    visit: Permit, locked: RunningService, upstream: ScriptedUpstream
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
        ({"CHAT_SSE_RATE_LIMIT": "1/hour"}, r"too many questions.* asks for \d+ s of patience"),
        ({"CHAT_SSE_MAX_STREAMS_PER_CLIENT": "1"}, "Too many of your questions are being answered"),
        ({"CHAT_SSE_MAX_STREAMS": "1"}, r"The service is busy.* asks for \d+ s of patience"),
        ({"CHAT_SSE_TOKEN_BUDGET": "6000/day"}, r"budget .* is used up.* asks for \d+ s of patience"),
    ],
    ids=["rate", "streams of one", "streams of all", "budget"],
)
def test_a_limit_is_told_in_words_and_the_question_is_not_lost(
    visit: Permit, upstream: ScriptedUpstream, limit: dict[str, str], told: str
) -> None:
    gate = threading.Event()
    upstream.answer(Say("One, "), Hold(gate), Finish())
    with serve({**QUICK, "OPENAI_BASE_URL": upstream.base_url, **limit}) as service:
        reader = visit(service.url)
        reader.ask("First")
        expect(reader.prose).to_have_text("One,")
        reader.button("New chat").first.click()
        reader.ask("Second")
        expect(reader.page.locator(".failure")).to_contain_text(re.compile(told))
        expect(reader.page.locator(".question")).to_contain_text("Second")
        expect(reader.button("Ask again")).to_be_visible()
        gate.set()
        assert upstream.paid_calls == 1


# How it looks


@contextmanager
def conversation(visit: Permit, upstream: ScriptedUpstream, **options: Any) -> Iterator[Reader]:
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
    visit: Permit, upstream: ScriptedUpstream, theme: str, size: str
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


def check(reader: Reader, name: str) -> None:
    """Take a picture for people, and let axe look at the page for those who cannot see it."""
    ARTIFACTS.mkdir(exist_ok=True)
    reader.page.screenshot(path=ARTIFACTS / f"page-{name}.png")
    assert AXE.exists(), "run `npm ci` in tests/clients"
    reader.page.evaluate(AXE.read_text())  # by the debugger's door, which the page's policy does not guard
    found = reader.page.evaluate("axe.run()")
    violations = [(rule["id"], [node["html"] for node in rule["nodes"]]) for rule in found["violations"]]
    assert violations == []
    width = reader.page.viewport_size
    assert width is not None
    assert reader.page.evaluate("document.documentElement.scrollWidth") == width["width"]


def test_the_picture_for_the_readme_is_taken(visit: Permit, upstream: ScriptedUpstream) -> None:
    with conversation(visit, upstream, viewport={"width": 1040, "height": 720}) as reader:
        reader.page.locator("#scroller").evaluate("(scroller) => { scroller.scrollTop = 0 }")
        reader.page.locator("#question").blur()
        ARTIFACTS.mkdir(exist_ok=True)
        picture = reader.page.screenshot(path=ARTIFACTS / "screenshot.png")
    assert len(picture) < 120_000
    committed = Path(__file__).parent / "screenshot.png"  # copied from a run by hand: fonts differ by machine
    assert committed.stat().st_size < 120_000
