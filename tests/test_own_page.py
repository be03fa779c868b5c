"""The service's own page behind a real nginx that writes another Host or port, opened in a real Chromium.

On plain http beyond this machine a browser sends no `Sec-Fetch-Site`, so `Origin` beside `Host` is all that
tells the service's own page from a foreign one.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from chat_sse.access.origin import Origins
from chat_sse.errors import ForbiddenOrigin
from tests.conftest import QUICK
from tests.page.reader import WAIT_MS, Reader
from tests.support.browser import chromium
from tests.support.nginx import run_nginx
from tests.support.ports import free_port
from tests.support.readme import README
from tests.support.reverse_proxies import shown
from tests.support.service import RunningService, serve
from tests.support.upstream import Finish, Say, ScriptedUpstream

LINE = "proxy_set_header Host $http_host;"

Nginx = Callable[[str], AbstractContextManager[str]]


@pytest.fixture(scope="module")
def proxy_port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def service(upstream_port: int) -> Iterator[RunningService]:
    env = {
        "OPENAI_BASE_URL": f"http://127.0.0.1:{upstream_port}/v1",
        "CHAT_SSE_ALLOWED_HOSTS": "chat.example",
    }
    with serve({**QUICK, **env}) as running:
        yield running


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    expect.set_options(timeout=WAIT_MS)
    # No secure context, as any name but this machine's own.
    with chromium("--host-resolver-rules=MAP *.example 127.0.0.1") as running:
        yield running


@pytest.fixture
def nginx(service: RunningService, proxy_port: int, tmp_path: Path) -> Nginx:
    """Runs the README's nginx in front of the service, with another line for Host."""

    def run(line: str, config: str = shown("nginx")) -> AbstractContextManager[str]:
        assert LINE in config
        config = config.replace(LINE, line).replace("listen 80;", f"listen 127.0.0.1:{proxy_port};")
        for port in ("8001", "8002"):
            config = config.replace(f"127.0.0.1:{port} ", f"127.0.0.1:{service.url.rpartition(':')[2]} ")
        return run_nginx(tmp_path / "nginx", config, proxy_port)

    return run


def ask_on_the_page(browser: Browser, url: str, host: str) -> tuple[int, str]:
    """Open the page under a host name and ask; give the status and the details of the answer."""
    with browser.new_context() as context:
        reader = Reader(context, url.replace("127.0.0.1", host))
        with reader.page.expect_response("**/ask") as waiting:
            reader.ask("Hello!")
        response = waiting.value
        reader.wait_for_end()
        if response.status == 200:
            expect(reader.prose).to_have_text("Hello there!")
            return 200, ""
        return response.status, response.json()["details"]


@pytest.mark.parametrize("line", [LINE, "proxy_set_header Host $host:$server_port;"])
def test_a_proxy_that_passes_host_and_port_on_needs_no_setting(
    nginx: Nginx, browser: Browser, upstream: ScriptedUpstream, line: str
) -> None:
    upstream.answer(Say("Hello "), Say("there!"), Finish())
    with nginx(line) as url:
        assert ask_on_the_page(browser, url, "chat.example") == (200, "")


@pytest.mark.parametrize(
    ("line", "seen"),
    [
        ("proxy_set_header Host $host;", "chat.example"),  # without the port: as many guides have it
        ("proxy_set_header Host localhost;", "localhost"),
    ],
)
def test_where_it_writes_another_the_page_is_recognized_by_the_browsers_own_word_or_told_the_cause(
    nginx: Nginx, browser: Browser, upstream: ScriptedUpstream, service: RunningService, line: str, seen: str
) -> None:
    upstream.answer(Say("Hello there!"), Finish())
    with nginx(line) as url:
        assert ask_on_the_page(browser, url, "localhost") == (200, "")  # Sec-Fetch-Site: same-origin
        status, details = ask_on_the_page(browser, url, "chat.example")
    assert status == 403
    origin = url.replace("127.0.0.1", "chat.example")
    assert details == (
        f"the page's origin {origin} is not in ALLOWED_ORIGIN, nor that of the Host asked for, {seen}; "
        "if it is the service's own page, the proxy must pass its Host on "
        "(nginx: proxy_set_header Host $http_host)"
    )
    assert upstream.paid_calls == 1
    service.wait_for_log(f"origin.refused.*{origin} is not in ALLOWED_ORIGIN.* request_id=")


def test_a_proxy_that_must_write_another_host_is_told_the_pages_origin(
    proxy_port: int, browser: Browser, upstream: ScriptedUpstream, tmp_path: Path
) -> None:
    upstream.answer(Say("Hello there!"), Finish())
    env = {"OPENAI_BASE_URL": upstream.base_url, "ALLOWED_ORIGIN": f"http://chat.example:{proxy_port}"}
    with serve({**QUICK, **env}) as service:
        # As `proxy_pass` alone does it: the Host is the address that it passes to.
        server = f"server {{ listen 127.0.0.1:{proxy_port}; location / {{ proxy_pass {service.url}; }} }}"
        with run_nginx(tmp_path / "nginx", server, proxy_port) as url:
            assert ask_on_the_page(browser, url, "chat.example") == (200, "")


def test_a_host_that_is_not_allowed_is_named_with_what_to_do(
    nginx: Nginx, browser: Browser, upstream: ScriptedUpstream
) -> None:
    # Without the line nginx writes the name of its own upstream.
    with nginx("") as url, browser.new_context() as context:
        response = context.new_page().goto(f"{url}/")
        assert response is not None
        assert response.status == 421
        assert response.json()["details"] == (
            "the Host asked for, chat_sse, is not in CHAT_SSE_ALLOWED_HOSTS; if a proxy wrote it, let it "
            "pass the visitor's on (nginx: proxy_set_header Host $http_host)"
        )


@pytest.mark.parametrize(
    ("origin", "host", "is_own"),
    [
        ("http://chat.example", "chat.example:80", True),
        ("https://chat.example", "chat.example:443", True),
        ("https://chat.example", "Chat.Example", True),
        ("https://chat.example", "chat.example:80", False),
        ("http://chat.example:8080", "chat.example:80", False),
        ("http://chat.example:8080", "chat.example", False),
    ],
)
def test_a_default_port_that_a_proxy_writes_is_none(origin: str, host: str, is_own: bool) -> None:
    headers = [(b"origin", origin.encode()), (b"host", host.encode())]
    if is_own:
        Origins(()).check(headers)
    else:
        with pytest.raises(ForbiddenOrigin):
            Origins(()).check(headers)


def test_the_readme_says_which_line_it_takes() -> None:
    assert README.count(f"`{LINE.rstrip(';')}`") == 1
