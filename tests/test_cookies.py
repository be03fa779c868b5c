"""A session in a cookie, in a real Chromium: pages that may use it, and pages that may not.

`chat.localhost` is the service and `www.chat.localhost` another origin of its site; `friend.localhost`, which
is allowed too, and `evil.localhost` are other sites.
"""

import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Literal

import pytest
from playwright.sync_api import BrowserContext, Page, sync_playwright

from tests.conftest import QUICK
from tests.support import plain_http
from tests.support.browser import FLAGS
from tests.support.service import HELLO, RunningService, ask, serve, until
from tests.support.tokens import SECRET, token
from tests.support.upstream import Finish, Hold, Say, ScriptedUpstream, Silence
from tests.support.web import EMPTY_PAGE, Handler, web_server
from tests.test_origin import ATTACKS

SameSite = Literal["Lax", "None", "Strict"]
LogIn = Callable[[SameSite], Page]
QUESTION = '{"messages":[{"role":"user","content":"Hi"}]}'
POST = """fetch(url, {method: "POST", credentials: "include", headers: {"Content-Type": "application/json"},
    body: question}).then(async (answer) => [answer.status, await answer.text()], () => ["unreadable", ""])"""
LISTEN = """new Promise((done) => {
    const source = new EventSource(url, {withCredentials: true}), seen = [];
    source.onerror = () => { if (source.readyState === 2) done("refused"); };
    source.onmessage = ({data}) => {
        const event = JSON.parse(data);
        seen.push(event.content ?? "");
        if (event.type === "done") { source.close(); done(seen.join("")); }
    };
})"""
# With the visitor's cookies: what a foreign page can do beside what it can do without.
WITH_COOKIES = {
    **ATTACKS,
    "fetch with credentials": "fetch(url, {credentials: 'include'}).catch(() => 0)",
    "fetch with credentials, posting": POST,
    "fetch without CORS, with credentials": (
        "fetch(url, {mode: 'no-cors', method: 'POST', credentials: 'include', body: question}).catch(() => 0)"
    ),
    "EventSource with credentials": (
        "new Promise((done) => { const s = new EventSource(url, {withCredentials: true});"
        " s.onerror = s.onopen = done; })"
    ),
}


@pytest.fixture(scope="module")
def site() -> Iterator[int]:
    """The port of a web server that gives an empty page under any name."""

    class Site(Handler):
        def do_GET(self) -> None:
            headers = {"Content-Type": "text/html"}
            path, _, same_site = self.path.partition("?")
            if path == "/login":  # browsers want `Secure` with None; names of this machine count as secure
                session = token("ada", key=None, aud=None)
                secure = "; Secure" if same_site == "None" else ""
                headers["Set-Cookie"] = f"session={session}; HttpOnly; Path=/; SameSite={same_site}{secure}"
            self.reply(200, EMPTY_PAGE, **headers)

    with web_server(Site) as port:
        yield port


@pytest.fixture(scope="module")
def service(upstream_port: int, site: int) -> Iterator[RunningService]:
    env = {
        **QUICK,
        "OPENAI_BASE_URL": f"http://127.0.0.1:{upstream_port}/v1",
        "ALLOWED_ORIGIN": f"http://www.chat.localhost:{site},http://friend.localhost:{site}",
        "CHAT_SSE_ALLOWED_HOSTS": "chat.localhost",
        "CHAT_SSE_CORS_CREDENTIALS": "true",
        "CHAT_SSE_JWT_KEY": SECRET,
        "CHAT_SSE_JWT_COOKIE": "session",
    }
    with serve(env) as running:
        yield running
        assert "eyJ" not in running.log()


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrowserContext]:
    """A browser that lets sites have cookies on each other's pages: today's block them unless told not to."""
    profile = tmp_path_factory.mktemp("profile")
    (profile / "Default").mkdir()
    (profile / "Default" / "Preferences").write_text('{"profile": {"cookie_controls_mode": 0}}')
    with sync_playwright() as playwright:
        path = shutil.which("chromium")
        context = playwright.chromium.launch_persistent_context(profile, executable_path=path, args=FLAGS)
        try:
            yield context
        finally:
            context.close()


@pytest.fixture
def url(service: RunningService) -> str:
    return service.url.replace("127.0.0.1", "chat.localhost")


@pytest.fixture
def visitor(browser: BrowserContext, site: int) -> Iterator[LogIn]:
    """Logs a person in, with a cookie as the service's own host sets it; cookies know no ports."""
    with ExitStack() as stack:

        def log_in(same_site: SameSite) -> Page:
            browser.clear_cookies()
            page = browser.new_page()
            stack.callback(page.close)
            page.set_default_timeout(20_000)
            page.goto(f"http://chat.localhost:{site}/login?{same_site}")
            return page

        yield log_in


@pytest.mark.parametrize("same_site", ["Lax", "Strict"])
def test_the_services_own_page_asks_with_fetch_and_event_source(
    visitor: LogIn, url: str, upstream: ScriptedUpstream, same_site: SameSite
) -> None:
    upstream.answer(Say("Hel"), Say("lo"), Finish())
    page = visitor(same_site)
    page.goto(f"{url}/")
    status, text = page.evaluate(f"([url, question]) => {POST}", [f"{url}/ask?format=text", QUESTION])
    assert (status, text) == (200, "Hello")
    assert page.evaluate(f"(url) => {LISTEN}", f"{url}/ask?q=Hi&id={same_site}") == "Hello"
    assert page.evaluate("() => fetch('/me').then((answer) => answer.json())")["name"] == "ada"
    assert page.evaluate("() => document.cookie") == ""
    assert upstream.paid_calls == 2


@pytest.mark.parametrize(
    ("host", "same_site", "status"),
    [
        ("www.chat.localhost", "Lax", 200),
        ("friend.localhost", "None", 200),
        ("friend.localhost", "Lax", 401),  # such a cookie stays on its site
    ],
)
def test_an_allowed_page_of_another_origin_asks_with_the_cookie_that_its_site_gets(
    visitor: LogIn,
    url: str,
    site: int,
    upstream: ScriptedUpstream,
    host: str,
    same_site: SameSite,
    status: int,
) -> None:
    upstream.answer(Say("Hel"), Say("lo"), Finish())
    page = visitor(same_site)
    page.goto(f"http://{host}:{site}/")
    found, text = page.evaluate(f"([url, question]) => {POST}", [f"{url}/ask?format=text", QUESTION])
    heard = page.evaluate(f"(url) => {LISTEN}", f"{url}/ask?q=Hi&id={host}")
    assert found == status
    if status == 200:
        assert (text, heard, upstream.paid_calls) == ("Hello", "Hello", 2)
    else:
        assert '"accepts":["jwt"]' in text  # it may read why
        assert (heard, upstream.calls) == ("refused", [])


def test_event_source_comes_back_with_the_cookie_after_a_cut(
    visitor: LogIn, url: str, service: RunningService, upstream: ScriptedUpstream
) -> None:
    gate = threading.Event()
    upstream.answer(Say("Hel"), Hold(gate), Say("lo"), Finish())
    page = visitor("Lax")
    page.goto(f"{url}/")
    page.evaluate(f"(url) => {{ globalThis.heard = {LISTEN}; }}", f"{url}/ask?q=Hi&id=3")
    upstream.wait_for_calls(1)
    # The same person elsewhere reads it as well, and stops nothing by leaving.
    answer = {"Cookie": f"session={token('ada', key=None, aud=None)}"}
    with plain_http.stream("GET", f"{service.url}/ask?q=Hi&id=3", headers=answer, timeout=20) as other:
        assert other.status_code == 200
        gate.set()
        assert b'"lo"' in other.read()
    assert page.evaluate("() => globalThis.heard") == "Hello"
    assert upstream.paid_calls == 1


@pytest.mark.parametrize("same_site", ["None", "Lax"])
@pytest.mark.parametrize("attack", WITH_COOKIES)
def test_a_foreign_page_spends_nothing_with_its_visitors_cookie(
    visitor: LogIn,
    url: str,
    site: int,
    service: RunningService,
    upstream: ScriptedUpstream,
    attack: str,
    same_site: SameSite,
) -> None:
    page = visitor(same_site)
    page.goto(f"http://evil.localhost:{site}/")
    before = service.log().count(" path=/ask ")
    page.evaluate(
        f"async ([url, question]) => {{ await ({WITH_COOKIES[attack]}); }}", [f"{url}/ask?q=Hi", QUESTION]
    )
    until(lambda: service.log().count(" path=/ask ") > before)
    assert upstream.calls == []


def test_a_foreign_page_neither_reads_nor_stops_what_its_visitor_has_asked(
    visitor: LogIn, url: str, site: int, service: RunningService, upstream: ScriptedUpstream
) -> None:
    upstream.answer(Say("secret"), Silence())
    mine = {"Cookie": f"session={token('ada', key=None, aud=None)}"}
    path = ask(service.url, HELLO, headers={**mine, "Prefer": "respond-async"}).headers["content-location"]
    page = visitor("None")
    page.goto(f"http://evil.localhost:{site}/")
    for method, target in (("GET", path), ("DELETE", path), ("GET", "/me")):
        outcome = page.evaluate(
            "([url, method]) => fetch(url, {method, credentials: 'include'})"
            ".then((answer) => answer.status, () => 'unreadable')",
            [url + target, method],
        )
        assert outcome == "unreadable"
    page.goto(f"http://friend.localhost:{site}/")
    stopped = page.evaluate(
        "(url) => fetch(url, {method: 'DELETE', credentials: 'include'}).then((answer) => answer.status)",
        url + path,
    )
    assert stopped == 204
    service.wait_for_log("path=/ask/[0-9a-f]+ status=403")
    assert upstream.paid_calls == 1
