"""Which host names the service answers to beyond the loopback interface, as in a container."""

from collections.abc import Iterator
from typing import Any

import pytest

from chat_sse.access.hosts import TrustedHost
from chat_sse.errors import Misdirected
from tests.conftest import QUICK
from tests.support import plain_http
from tests.support.service import HELLO, RunningService, ask, serve
from tests.support.upstream import ScriptedUpstream

NAMES = (
    "evil.example",
    "evil.example:8000",
    "localhost.evil.example",
    "10.0.0.1.nip.io",
    "chat",
    "1.2.3",
)
ADDRESSES = ("192.0.2.7", "192.0.2.7:8000", "[2001:db8::1]", "[2001:db8::1]:80", "0.0.0.0:8000")
LOOPBACK = ("localhost:8000", "127.0.0.1", "[::1]:8000", "LOCALHOST")
FORGED = ("127.0.0.1:80@evil.example", "192.0.2.7:evil.example", "localhost:x")


@pytest.fixture(scope="module")
def container(upstream_port: int) -> Iterator[RunningService]:
    """A service that listens on all interfaces, with no other setting of its own."""
    env = {"CHAT_SSE_HOST": "0.0.0.0", "OPENAI_BASE_URL": f"http://127.0.0.1:{upstream_port}/v1"}
    with serve({**QUICK, **env}) as running:
        running.url = running.url.replace("0.0.0.0", "127.0.0.1")
        yield running


@pytest.mark.parametrize("host", [*NAMES, *FORGED])
def test_a_rebound_name_is_refused_everywhere(
    container: RunningService, upstream: ScriptedUpstream, host: str
) -> None:
    page = {"Host": host, "Origin": f"http://{host}", "Sec-Fetch-Site": "same-origin"}
    for method, path in (("POST", "/ask"), ("GET", "/ask?q=Hi"), ("GET", "/"), ("GET", "/openapi.json")):
        response = plain_http.request(method, container.url + path, json=HELLO, headers=page)
        assert response.status_code in (400, 421)
    assert upstream.calls == []


@pytest.mark.parametrize("host", [*ADDRESSES, *LOOPBACK])
def test_addresses_and_loopback_names_are_answered(
    container: RunningService, upstream: ScriptedUpstream, host: str
) -> None:
    assert ask(container.url, headers={"Host": host}).status_code == 200
    assert upstream.paid_calls == 1


@pytest.mark.parametrize("host", [*NAMES, *ADDRESSES, *LOOPBACK])
def test_health_checks_are_answered_under_any_name(
    container: RunningService, upstream: ScriptedUpstream, host: str
) -> None:
    for path in ("/healthz", "/readyz"):
        assert plain_http.get(container.url + path, headers={"Host": host}).status_code == 200


def test_the_start_says_which_names_are_answered_and_how_to_set_them(container: RunningService) -> None:
    log = container.log()
    assert "answers to localhost and IP addresses, to no other host name (CHAT_SSE_ALLOWED_HOSTS)" in log
    assert "service.open_to_everybody" in log
    assert "set=CHAT_SSE_API_KEYS,CHAT_SSE_ALLOWED_HOSTS" in log


def test_with_keys_any_name_is_answered_since_a_rebound_page_has_none(upstream: ScriptedUpstream) -> None:
    keys = {"CHAT_SSE_HOST": "0.0.0.0", "CHAT_SSE_API_KEYS": "web:0123456789abcdef"}
    with serve({**QUICK, **keys, "OPENAI_BASE_URL": upstream.base_url}) as service:
        url = service.url.replace("0.0.0.0", "127.0.0.1")
        named = {"Host": "chat.example"}
        assert ask(url, headers=named).status_code == 401
        assert ask(url, headers={**named, "Authorization": "Bearer 0123456789abcdef"}).status_code == 200
        assert "answers to any host name (CHAT_SSE_ALLOWED_HOSTS)" in service.log()


def test_with_names_set_those_alone_are_answered_and_health_checks_by_address(
    upstream: ScriptedUpstream,
) -> None:
    names = {"CHAT_SSE_HOST": "0.0.0.0", "CHAT_SSE_ALLOWED_HOSTS": "chat.example"}
    with serve({**QUICK, **names, "OPENAI_BASE_URL": upstream.base_url}) as service:
        url = service.url.replace("0.0.0.0", "127.0.0.1")
        statuses = [
            plain_http.get(url + path, headers={"Host": host}).status_code
            for path in ("/openapi.json", "/healthz")
            for host in ("chat.example:443", "192.0.2.7:8000", "evil.example")
        ]
    assert statuses == [200, 421, 421, 200, 200, 421]


@pytest.mark.parametrize(
    ("server", "status"),
    [
        (("10.0.0.1", 80), 421),
        (("127.0.0.1", 80), 421),
        (("/a/socket", None), 421),
        (("testserver", 80), 200),
        (None, 200),
    ],
)
async def test_another_servers_socket_beyond_loopback_is_guarded_as_well(server: Any, status: int) -> None:
    sent: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"status": 200})

    async def send(message: Any) -> None:
        sent.append(message)

    guard = TrustedHost(app, bound_to="127.0.0.1", allowed=(), authenticated=False)
    headers = [(b"host", b"evil.example")]
    scope = {"type": "http", "path": "/", "server": server, "headers": headers, "state": {"request_id": ""}}
    try:
        await guard(scope, None, send)  # type: ignore[arg-type]
    except Misdirected as refusal:
        sent.append({"status": refusal.status})
    assert sent[0]["status"] == status
