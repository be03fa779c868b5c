"""Behind nginx, HAProxy and Caddy, set up as the README shows them."""

import re
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import httpx2
import pytest

from chat_sse.settings import Settings
from tests.conftest import QUICK
from tests.support import plain_http
from tests.support.ports import free_port
from tests.support.readme import README
from tests.support.reverse_proxies import PROXIES, caddy_version, replace, run_shown, shown
from tests.support.service import HELLO, RunningService, ask, serve
from tests.support.upstream import Accept, Cut, Finish, Hold, Pause, Say, ScriptedUpstream, Silence, Step

PATIENT = {
    **QUICK,
    "CHAT_SSE_FIRST_TOKEN_TIMEOUT": "20",
    "CHAT_SSE_IDLE_TIMEOUT": "20",
    "CHAT_SSE_HEARTBEAT": "20",
}
# The line whose removal would leave each proxy's own clock.
CLOCKS = {"nginx": ["proxy_read_timeout 630s"], "haproxy": ["timeout server 630s", "timeout client 630s"]}


@pytest.fixture(scope="module")
def service(upstream_port: int) -> Iterator[RunningService]:
    with serve({**PATIENT, "OPENAI_BASE_URL": f"http://127.0.0.1:{upstream_port}/v1"}) as running:
        yield running


@pytest.fixture(params=PROXIES)
def proxy(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


def before(service: RunningService, proxy: str, folder: Path, config: str) -> AbstractContextManager[str]:
    """Run a proxy before one service, in the place of both."""
    here = service.url.removeprefix("http://")
    return run_shown(proxy, config, folder / proxy, port=free_port(), upstreams=[here, here])


@pytest.mark.parametrize("wire", ["sse", "text", "ai-sdk"])
def test_a_piece_is_passed_on_before_the_next_one_is_said(
    service: RunningService, upstream: ScriptedUpstream, proxy: str, tmp_path: Path, wire: str
) -> None:
    gate = threading.Event()
    upstream.answer(Say("Hel"), Hold(gate), Say("lo"), Finish())
    with before(service, proxy, tmp_path, shown(proxy)) as url:
        options: dict[str, Any] = {"json": HELLO, "params": {"format": wire}, "timeout": 20}
        with plain_http.stream("POST", f"{url}/ask", **options) as answer:
            pieces, seen = answer.iter_raw(), b""
            while b"Hel" not in seen:
                seen += next(pieces)
            gate.set()
            assert b"lo" in b"".join(pieces)


def test_an_answer_that_is_cut_does_not_look_complete(
    service: RunningService, upstream: ScriptedUpstream, proxy: str, tmp_path: Path
) -> None:
    upstream.answer(Say("Hel"), Cut())
    with before(service, proxy, tmp_path, shown(proxy)) as url:
        if proxy == "caddy" and caddy_version() < (2, 7, 6):  # the README says so
            assert ask(url, params={"format": "text"}).text == "Hel"
            return
        with pytest.raises(httpx2.HTTPError):
            ask(url, params={"format": "text"})


@pytest.mark.parametrize(
    ("wire", "steps"),
    [("sse", [Say("Hel"), Silence()]), ("text", [Say("Hel"), Silence()]), ("json", [Accept(), Silence()])],
)
def test_a_visitor_who_leaves_is_noticed(
    service: RunningService,
    upstream: ScriptedUpstream,
    proxy: str,
    tmp_path: Path,
    wire: str,
    steps: list[Step],
) -> None:
    upstream.answer(*steps)
    with before(service, proxy, tmp_path, shown(proxy)) as url:
        with pytest.raises(httpx2.ReadTimeout):
            plain_http.post(f"{url}/ask", json=HELLO, params={"format": wire}, timeout=1)
        assert upstream.calls[0].wait_gone(5)


@pytest.mark.parametrize("wire", ["json", "text"])
def test_an_answer_that_is_long_silent_arrives(
    service: RunningService, upstream: ScriptedUpstream, proxy: str, tmp_path: Path, wire: str
) -> None:
    upstream.answer(Pause(1.6), Say("Hello"), Finish())
    with before(service, proxy, tmp_path, shown(proxy)) as url:
        assert "Hello" in ask(url, params={"format": wire}).text
    config = shown(proxy)
    for line in CLOCKS.get(proxy, []):
        config = replace(config, line, line.replace("630s", "1s"))
    if proxy in CLOCKS:  # Caddy has none
        with before(service, proxy, tmp_path, config) as url:
            assert ask(url, params={"format": wire}).status_code == 504


def test_every_clock_in_the_readme_is_longer_than_a_whole_answer_may_take() -> None:
    clocks = [
        *re.findall(r"proxy_read_timeout (\d+)s;", README),
        *re.findall(r"timeout (?:client|server) (\d+)s", shown("haproxy")),
        *re.findall(r"`idle_timeout.timeout_seconds` to (\d+)", README),
    ]
    assert len(clocks) == 6
    assert min(map(int, clocks)) > Settings().total_timeout
    [kept] = re.findall(r"`CHAT_SSE_KEEP_ALIVE=(\d+)` \(longer", README)
    assert int(kept) > int(clocks[-1])


def test_every_nginx_in_the_readme_tells_who_asks_and_waits_for_a_whole_answer() -> None:
    blocks = re.findall(r"^```nginx\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)
    assert len(blocks) == 3
    for line in (
        "X-Forwarded-For $proxy_add_x_forwarded_for;",
        "Host $http_host;",
        "proxy_read_timeout 630s;",
    ):
        assert [block for block in blocks if line not in block] == []


@pytest.mark.parametrize("trusts", [True, False])
def test_visitors_behind_a_unix_socket_are_told_apart_by_the_proxys_header_if_it_is_trusted(
    upstream: ScriptedUpstream, proxy: str, tmp_path: Path, trusts: bool
) -> None:
    upstream.answer(Say("Hi"), Finish())
    path = tmp_path / "a.sock"
    env = {"CHAT_SSE_RATE_LIMIT": "2/hour", "OPENAI_BASE_URL": upstream.base_url, **QUICK}
    if trusts:
        env["CHAT_SSE_TRUSTED_PROXIES"] = "unix"
    socket_ = written(proxy, path)
    with (
        serve(env, "--uds", str(path)) as service,
        run_shown(proxy, shown(proxy), tmp_path / proxy, port=free_port(), upstreams=[socket_] * 2) as url,
    ):
        statuses = {
            visitor: [ask_from(visitor, url, invented=f"198.51.100.{number}") for number in range(3)]
            for visitor in ("127.0.0.2", "127.0.0.3")
        }
        assert ("who count as one client" in service.log()) is not trusts
        assert ("service.visitors_count_as_one" in service.log()) is not trusts
    assert statuses["127.0.0.2"] == [200, 200, 429]
    assert statuses["127.0.0.3"] == ([200, 200, 429] if trusts else [429] * 3)


def written(proxy: str, path: Path) -> str:
    """Give a socket as the README says that a proxy writes it."""
    prefix = {"nginx": "unix:", "haproxy": "unix@", "caddy": "unix/"}[proxy]
    assert f"`{prefix}/run/chat-sse/a.sock`" in README
    return f"{prefix}{path}"


def ask_from(visitor: str, url: str, *, invented: str) -> int:
    """Ask from an address of this machine, and claim another one. Gives the status."""
    transport = httpx2.HTTPTransport(local_address=visitor)
    with plain_http.Client(transport=transport, timeout=20) as client:
        return client.post(f"{url}/ask", json=HELLO, headers={"X-Forwarded-For": invented}).status_code
