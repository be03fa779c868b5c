"""Under `/chat/`, behind a real nginx that takes the path away or leaves it."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from tests.conftest import QUICK
from tests.page.reader import WAIT_MS, Reader
from tests.support import plain_http
from tests.support.browser import chromium
from tests.support.nginx import run_nginx
from tests.support.ports import free_port
from tests.support.readme import code_block
from tests.support.service import HELLO, RunningService, ask, events, refused_start, serve, text_of
from tests.support.upstream import Finish, Pause, Say, ScriptedUpstream

SHOWN = code_block("nginx", "location /chat/")


@pytest.fixture(scope="module")
def service(upstream_port: int) -> Iterator[RunningService]:
    env = {
        **QUICK,
        "OPENAI_BASE_URL": f"http://127.0.0.1:{upstream_port}/v1",
        "CHAT_SSE_DISCONNECT_GRACE": "20",
        "CHAT_SSE_IDLE_TIMEOUT": "30",
    }
    with serve(env, "--root-path", "/chat") as running:
        yield running


@pytest.fixture(params=["taken away", "left"])
def site(request: pytest.FixtureRequest, service: RunningService, tmp_path: Path) -> Iterator[str]:
    """The site whose `/chat/` is the service."""
    own = service.url.removesuffix("/chat")
    shown = SHOWN.replace("http://127.0.0.1:8000/", own if request.param == "left" else f"{own}/")
    port = free_port()
    server = f"server {{ listen 127.0.0.1:{port}; {shown} }}"
    with run_nginx(tmp_path / "nginx", server, port) as url:
        yield url


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    expect.set_options(timeout=WAIT_MS)
    with chromium() as running:
        yield running


def test_every_address_that_is_given_out_leads_back(site: str, upstream: ScriptedUpstream) -> None:
    upstream.answer(Say("under "), Say("a path"), Finish())
    chat = f"{site}/chat"
    answer = ask(chat)
    place = answer.headers["content-location"]
    assert place.startswith("/chat/ask/")
    assert plain_http.get(site + place).text == answer.text
    later = plain_http.post(f"{chat}/ask", json=HELLO, headers={"Prefer": "respond-async"}, timeout=30)
    assert later.headers["location"].startswith("/chat/ask/")
    assert text_of(events(plain_http.get(site + later.headers["location"]))) == "under a path"
    assert plain_http.delete(site + later.headers["content-location"]).status_code == 204
    assert upstream.paid_calls == 2
    assert plain_http.get(f"{chat}/openapi.json").json()["servers"][0]["url"] == "/chat"
    assert plain_http.get(f"{chat}/readyz").status_code == 200
    assert plain_http.get(chat, follow_redirects=True).url == f"{chat}/"
    docs = plain_http.get(f"{chat}/docs/")
    assert (docs.status_code, docs.headers["location"]) == (307, "../docs")
    assert plain_http.get(f"{chat}/nothing").json()["error"] == "not_found"


def test_the_page_asks_and_reads_on_after_a_reload(
    site: str, browser: Browser, upstream: ScriptedUpstream
) -> None:
    upstream.answer(Say("before "), Pause(3), Say("and after"), Finish())
    with browser.new_context() as context:
        reader = Reader(context, f"{site}/chat")
        reader.ask("Where are you?")
        expect(reader.prose).to_contain_text("before")
        reader.page.reload()
        expect(reader.prose).to_contain_text("before and after")
        reader.wait_for_end()
        assert reader.faults == []
    assert upstream.paid_calls == 1


def test_the_documentation_tries_it_out(site: str, browser: Browser, upstream: ScriptedUpstream) -> None:
    upstream.answer(Say("tried"), Finish())
    with browser.new_context() as context:
        page = context.new_page()
        page.goto(f"{site}/chat/docs/")
        operation = page.locator("#operations-Ask-ask")
        operation.locator(".opblock-summary-control").click()
        operation.get_by_role("button", name="Try it out").click()
        operation.get_by_role("button", name="Execute").click()
        expect(operation.locator(".live-responses-table .response")).to_contain_text('"content":"tried"')
        page.goto(f"{site}/chat/redoc")
        expect(page.get_by_role("link", name="Ask", exact=True)).to_be_visible()


def test_the_client_module_asks_its_own_service(
    site: str, browser: Browser, upstream: ScriptedUpstream
) -> None:
    upstream.answer(Say("by the "), Say("module"), Finish())
    with browser.new_context() as context:
        page = context.new_page()
        page.goto(f"{site}/chat/")
        text = page.evaluate(
            """async () => {
                const { ask } = await import("/chat/ask.js");
                let text = "";
                for await (const event of ask("/chat/ask", [{ role: "user", content: "Hello!" }])) {
                    if (event.type === "delta") text += event.content;
                }
                return text;
            }"""
        )
    assert text == "by the module"


@pytest.mark.parametrize("path", ["chat", "/chat/", "/", "/ask", "/docs/chat", "/a b", "//evil.example"])
def test_a_path_that_cannot_be_one_is_refused_at_start(path: str) -> None:
    assert "CHAT_SSE_ROOT_PATH" in refused_start({"CHAT_SSE_ROOT_PATH": path})
