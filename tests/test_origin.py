"""Foreign web pages spend nothing: neither what their headers say, nor what a real browser makes of them."""

import time
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
from playwright.sync_api import Browser, Page

from chat_sse.access.hosts import TrustedHost
from chat_sse.access.origin import Origins
from chat_sse.api.error_responses import ErrorMiddleware
from tests.conftest import QUICK
from tests.support import plain_http
from tests.support.browser import chromium
from tests.support.service import HELLO, RunningService, ask, events, serve
from tests.support.upstream import Finish, Say, ScriptedUpstream, Silence
from tests.support.web import EMPTY_PAGE, Handler, web_server

EVIL = "https://evil.example"
PAGE = "http://localhost:3000"  # allowed by default

FOREIGN = {
    "another origin": {"Origin": EVIL},
    "another origin, cross-site": {"Origin": EVIL, "Sec-Fetch-Site": "cross-site"},
    "a neighbouring port": {"Origin": "http://localhost:3001", "Sec-Fetch-Site": "same-site"},
    "the allowed origin's host on another scheme": {"Origin": "https://localhost:3000"},
    "the allowed origin as a prefix": {"Origin": f"{PAGE}.evil.example"},
    "no origin to name": {"Origin": "null"},
    "no origin to name, on our own page": {"Origin": "null", "Sec-Fetch-Site": "cross-site"},
    "an image or a link": {"Sec-Fetch-Site": "cross-site"},
    "a link on a neighbour": {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "navigate"},
    "a new value of the header": {"Sec-Fetch-Site": "cousin"},
    "an extension": {"Origin": "chrome-extension://abcdefgh", "Sec-Fetch-Site": "none"},
    "an image, on plain http": {"Referer": f"{EVIL}/page?q=1"},
    "an image, on plain http, of our name": {"Referer": "http://evil.example/127.0.0.1"},
    "a prefetch of the address bar's guess": {"Sec-Fetch-Site": "none", "Sec-Purpose": "prefetch;prerender"},
    "a prefetch of a page of ours": {"Sec-Fetch-Site": "same-origin", "Purpose": "prefetch"},
}

OWN = {
    "a program": {},
    "an allowed page": {"Origin": PAGE, "Sec-Fetch-Site": "same-site"},
    "an allowed page on another site": {"Origin": PAGE, "Sec-Fetch-Site": "cross-site"},
    "our own page": {"Origin": "{own}", "Sec-Fetch-Site": "same-origin"},
    "our own page behind a proxy": {"Origin": "https://chat.example", "Sec-Fetch-Site": "same-origin"},
    "our own page's EventSource": {"Sec-Fetch-Site": "same-origin"},
    "our own page, on plain http": {"Origin": "{own}"},
    "our own page's EventSource, on plain http": {"Referer": "{own}/page?q=1"},
    "an allowed page's link, on plain http": {"Referer": f"{PAGE}/page"},
    "the address bar": {"Sec-Fetch-Site": "none", "Sec-Fetch-Mode": "navigate"},
}


def requests(service: RunningService, headers: dict[str, str]) -> Iterator[httpx2.Response]:
    """Try all ways to act."""
    own = {name: value.format(own=service.url) for name, value in headers.items()}
    yield ask(service.url, headers=own)
    yield plain_http.get(f"{service.url}/ask?q=Hello!", headers=own, timeout=20)
    yield plain_http.get(f"{service.url}/ask/{'f' * 32}", headers=own)
    yield plain_http.get(f"{service.url}/ask/chat/stream", headers=own)
    yield plain_http.delete(f"{service.url}/ask/{'f' * 32}", headers=own)


@pytest.mark.parametrize("headers", FOREIGN.values(), ids=FOREIGN.keys())
def test_a_foreign_page_is_refused_everywhere(
    service: RunningService, upstream: ScriptedUpstream, headers: dict[str, str]
) -> None:
    for response in requests(service, headers):
        assert (response.status_code, response.json()["error"]) == (403, "forbidden_origin")
        assert "access-control-allow-origin" not in response.headers
    assert upstream.calls == []


@pytest.mark.parametrize("headers", OWN.values(), ids=OWN.keys())
def test_pages_that_may_and_programs_are_let_in(
    service: RunningService, upstream: ScriptedUpstream, headers: dict[str, str]
) -> None:
    assert [response.status_code for response in requests(service, headers)] == [200, 200, 404, 204, 404]
    assert upstream.paid_calls == 2


def test_a_browser_that_does_not_say_which_page_asks_may_not_ask_by_url(
    service: RunningService, upstream: ScriptedUpstream
) -> None:
    silent = {"User-Agent": "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36"}
    assert plain_http.get(f"{service.url}/ask?q=Hello!", headers=silent).status_code == 403
    assert upstream.calls == []
    # Our own page reads on so, on plain http: it sends no referrer.
    assert plain_http.get(f"{service.url}/ask/{'f' * 32}", headers=silent).status_code == 404


def test_a_foreign_page_cannot_stop_an_answer(service: RunningService, upstream: ScriptedUpstream) -> None:
    upstream.answer(Say("Hi"), Silence())
    url = service.url + ask(service.url, headers={"Prefer": "respond-async"}).headers["content-location"]
    assert plain_http.delete(url, headers={"Origin": EVIL}).status_code == 403
    assert not upstream.calls[0].gone
    assert plain_http.delete(url).status_code == 204


def test_with_any_origin_allowed_all_pages_may(upstream: ScriptedUpstream) -> None:
    origins = Origins(["*"])
    for headers in (EVIL, "null"):
        origins.check([(b"origin", headers.encode()), (b"sec-fetch-site", b"cross-site")])
    with serve({**QUICK, "OPENAI_BASE_URL": upstream.base_url, "ALLOWED_ORIGIN": "*"}) as service:
        response = ask(service.url, headers={"Origin": "null", "Sec-Fetch-Site": "cross-site"})
        assert response.headers["access-control-allow-origin"] == "*"
        assert events(response)[-1]["type"] == "done"


# Host names


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:8000", "localhost.evil.example", "127.0.0.1.nip.io", "[::2]:80"],
)
def test_on_loopback_a_foreign_host_name_is_refused_everywhere(
    service: RunningService, upstream: ScriptedUpstream, host: str
) -> None:
    for method, path in (("POST", "/ask"), ("GET", "/ask?q=Hi"), ("GET", "/"), ("GET", "/openapi.json")):
        response = plain_http.request(method, service.url + path, json=HELLO, headers={"Host": host})
        assert (response.status_code, response.json()["error"]) == (421, "misdirected_request")
        assert "CHAT_SSE_ALLOWED_HOSTS" in response.json()["details"]
    assert upstream.calls == []


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1", "127.0.0.1:65535", "[::1]", "[::1]:8000"])
def test_on_loopback_its_own_names_are_answered_on_any_port(service: RunningService, host: str) -> None:
    assert plain_http.get(f"{service.url}/healthz", headers={"Host": host}).status_code == 200


def test_configured_host_names_are_answered_beside_those_of_loopback(upstream: ScriptedUpstream) -> None:
    env = {**QUICK, "OPENAI_BASE_URL": upstream.base_url, "CHAT_SSE_HOST": "0.0.0.0"}
    statuses = {}
    for allowed in ("", "chat.example", "*"):
        with serve({**env, "CHAT_SSE_ALLOWED_HOSTS": allowed}) as service:
            url = service.url.replace("0.0.0.0", "127.0.0.1")
            statuses[allowed] = [
                plain_http.get(f"{url}/healthz", headers={"Host": host}).status_code
                for host in ("chat.example", "localhost:80", "evil.example")
            ]
    assert statuses == {"": [200, 200, 200], "chat.example": [200, 200, 421], "*": [200, 200, 200]}


@pytest.mark.parametrize(
    ("server", "status"),
    [
        (("127.0.0.1", 80), 421),
        (("::1", 80), 421),
        (("10.0.0.1", 80), 200),
        (("/a/socket", None), 200),
        (None, 200),
    ],
)
async def test_where_the_socket_listens_counts_as_well_as_the_setting(server: Any, status: int) -> None:
    sent: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"status": 200})

    async def send(message: Any) -> None:
        sent.append(message)

    headers = [(b"host", b"evil.example")]
    scope = {"type": "http", "path": "/", "server": server, "headers": headers, "state": {"request_id": ""}}
    guarded = ErrorMiddleware(TrustedHost(app, bound_to="127.0.0.1", allowed=(), authenticated=True))
    await guarded(scope, None, send)  # type: ignore[arg-type]
    assert sent[0]["status"] == status


# A real browser


class Site(Handler):
    """An empty page under any path."""

    def do_GET(self) -> None:
        self.reply(200, EMPTY_PAGE, **{"Content-Type": "text/html"})


@pytest.fixture(scope="module")
def site() -> Iterator[str]:
    """A web site on a port of its own; its host name decides how foreign it is."""
    with web_server(Site) as port:
        yield str(port)


@pytest.fixture(scope="module")
def service(upstream_port: int, site: str) -> Iterator[RunningService]:
    """A service that also allows the pages of one name of the site."""
    env = {
        **QUICK,
        "OPENAI_BASE_URL": f"http://127.0.0.1:{upstream_port}/v1",
        "ALLOWED_ORIGIN": f"{PAGE},http://friend.localhost:{site}",
    }
    with serve(env) as running:
        yield running


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    # Names under .example lead here too. They are no secure context, so the browser sends no Sec-Fetch-Site.
    with chromium("--host-resolver-rules=MAP *.example 127.0.0.1") as running:
        yield running


@pytest.fixture(params=["another site", "the same site"])
def foreign_page(request: pytest.FixtureRequest, browser: Browser, site: str) -> Iterator[Page]:
    """A page that the service does not allow."""
    host = "evil.localhost" if request.param == "another site" else "127.0.0.1"
    with browser.new_context() as context:
        page = context.new_page()
        page.set_default_timeout(20_000)
        page.goto(f"http://{host}:{site}/")
        yield page


ATTACKS = {
    "an image": "new Promise((done) => { const i = new Image(); i.onload = i.onerror = done; i.src = url; })",
    "a script": (
        "new Promise((done) => { const s = document.createElement('script'); s.onload = s.onerror = done;"
        " s.src = url; document.body.append(s); })"
    ),
    "a frame": (
        "new Promise((done) => { const f = document.createElement('iframe'); f.onload = done;"
        " f.src = url; document.body.append(f); })"
    ),
    "fetch without CORS": "fetch(url, { mode: 'no-cors', referrerPolicy: 'no-referrer' }).catch(() => 0)",
    "fetch without CORS, posting": (
        "fetch(url, { mode: 'no-cors', method: 'POST', body: question,"
        " headers: {'Content-Type': 'text/plain'} })"
        ".catch(() => 0)"
    ),
    "fetch": "fetch(url).catch(() => 0)",
    "fetch, posting JSON": (
        "fetch(url, { method: 'POST', body: question,"
        " headers: {'Content-Type': 'application/json'} }).catch(() => 0)"
    ),
    "EventSource": "new Promise((done) => { const s = new EventSource(url); s.onerror = s.onopen = done; })",
    "a beacon": (
        "navigator.sendBeacon(url, new Blob([question], {type: 'text/plain'})), fetch(url).catch(() => 0)"
    ),
    "a sandboxed frame": (
        "new Promise((done) => { const f = document.createElement('iframe'); f.sandbox = 'allow-scripts';"
        " addEventListener('message', done); f.srcdoc = `<script>fetch('${url}').catch(() => 0)"
        ".then(() => parent.postMessage(1, '*'))</script>`; document.body.append(f); })"
    ),
    "a prefetch": (
        "new Promise((done) => { const l = document.createElement('link'); l.rel = 'prefetch';"
        " l.onload = l.onerror = done; l.href = url; document.head.append(l); })"
    ),
}


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS.keys())
def test_a_foreign_page_in_a_browser_spends_nothing(
    foreign_page: Page, service: RunningService, upstream: ScriptedUpstream, attack: str
) -> None:
    before = service.log().count(" path=/ask ")
    question = '{"messages":[{"role":"user","content":"Hi"}]}'
    foreign_page.evaluate(
        f"async ([url, question]) => {{ await ({attack}); }}", [f"{service.url}/ask?q=Hi", question]
    )
    deadline = time.monotonic() + 10
    while service.log().count(" path=/ask ") == before:  # until it did arrive
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert upstream.calls == []


@pytest.mark.parametrize(
    "element", ['<a id="go" href="{url}">go</a>', '<a id="go" href="{url}" rel="noreferrer">go</a>']
)
def test_following_a_foreign_link_spends_nothing(
    foreign_page: Page, service: RunningService, upstream: ScriptedUpstream, element: str
) -> None:
    foreign_page.set_content(element.format(url=f"{service.url}/ask?q=Hi"))
    with foreign_page.expect_navigation() as navigation:
        foreign_page.click("#go")
    response = navigation.value
    assert response is not None
    assert response.status == 403
    assert upstream.calls == []


@pytest.mark.parametrize("method", ["get", "post"])
def test_submitting_a_foreign_form_spends_nothing(
    foreign_page: Page, service: RunningService, upstream: ScriptedUpstream, method: str
) -> None:
    foreign_page.set_content(
        f'<form action="{service.url}/ask?q=Hi" method="{method}" enctype="text/plain">'
        '<input name="q" value="Hi"><button id="go">go</button></form>'
    )
    with foreign_page.expect_navigation() as navigation:
        foreign_page.click("#go")
    response = navigation.value
    assert response is not None
    assert response.status == 403
    assert upstream.calls == []


def test_typing_the_address_asks(
    browser: Browser, service: RunningService, upstream: ScriptedUpstream
) -> None:
    upstream.answer(Say("typed"), Finish())
    with browser.new_context() as context:
        page = context.new_page()
        page.goto(f"{service.url}/ask?q=Hi&format=text", timeout=20_000)
        assert page.inner_text("body") == "typed"
    assert upstream.paid_calls == 1


def test_an_allowed_page_asks_with_fetch_and_event_source(
    browser: Browser, site: str, service: RunningService, upstream: ScriptedUpstream
) -> None:
    upstream.answer(Say("Hi"), Finish())
    with browser.new_context() as context:
        page = context.new_page()
        page.goto(f"http://friend.localhost:{site}/", timeout=20_000)
        url = f"{service.url}/ask?q=Hi"
        assert '"content":"Hi"' in page.evaluate("(url) => fetch(url).then((answer) => answer.text())", url)
        seen = page.evaluate(
            "(url) => new Promise((done) => { const s = new EventSource(url);"
            " s.onmessage = ({ data }) => { s.close(); done(data); }; s.onerror = () => done('refused'); })",
            url,
        )
        assert '"start"' in seen
    assert upstream.paid_calls == 2


def test_dns_rebinding_reaches_nothing(
    browser: Browser, service: RunningService, upstream: ScriptedUpstream
) -> None:
    with browser.new_context(bypass_csp=True) as context:  # a page of the attacker's has none
        page = context.new_page()
        # A name of the attacker's that leads to this machine: to the browser, one origin with the service.
        rebound = service.url.replace("127.0.0.1", "rebound.localhost")
        response = page.goto(f"{rebound}/", timeout=20_000)
        assert response is not None
        assert response.status == 421
        status = page.evaluate("(q) => fetch('/ask', {method: 'POST', body: q}).then((r) => r.status)", "{}")
        assert status == 421
    assert upstream.calls == []


@pytest.mark.parametrize("policy", ["unsafe-url", "no-referrer"])
def test_on_plain_http_beyond_this_machine_a_foreign_page_spends_nothing_either(
    browser: Browser, policy: str, site: str, upstream: ScriptedUpstream
) -> None:
    env = {**QUICK, "OPENAI_BASE_URL": upstream.base_url, "CHAT_SSE_ALLOWED_HOSTS": "service.example"}
    with serve(env) as service, browser.new_context() as far:
        url = service.url.replace("127.0.0.1", "service.example")
        page = far.new_page()
        page.set_default_timeout(20_000)
        page.goto(f"http://evil.example:{site}/")
        for attack in (ATTACKS["an image"], ATTACKS["a frame"], ATTACKS["fetch without CORS"]):
            page.evaluate(
                f"""async ([url, policy]) => {{
                    const meta = document.createElement("meta");
                    meta.name = "referrer";
                    meta.content = policy;
                    document.head.append(meta);
                    await ({attack});
                }}""",
                [f"{url}/ask?q=Hi", policy],
            )
        page.set_content(f'<meta name="referrer" content="{policy}"><a id="go" href="{url}/ask?q=Hi">go</a>')
        with page.expect_navigation():
            page.click("#go")
        service.wait_for_log(r"(?s)(?: path=/ask status=403.*){4}")
        assert service.log().count(" path=/ask status=403") == 4
        assert upstream.calls == []
        # The service's own page may.
        page.goto(f"{url}/")
        asked = (
            "(q) => fetch('/ask', {method: 'POST', headers: {'Content-Type': 'application/json'}, body: q})"
        )
        body = '{"messages":[{"role":"user","content":"Hi"}]}'
        assert page.evaluate(f"(q) => ({asked})(q).then((answer) => answer.status)", body) == 200
        assert upstream.paid_calls == 1
