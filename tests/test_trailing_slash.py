"""A path with a slash at its end is the same path, and no response leads to a host that a client named."""

from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route
from starlette.testclient import TestClient

from chat_sse.access.paths import TrailingSlash
from tests.conftest import QUICK
from tests.support import plain_http
from tests.support.service import HELLO, RunningService, parse_sse, serve
from tests.support.upstream import ScriptedUpstream

PAGE = "http://localhost:3000"


def test_a_question_and_its_answer_are_found_with_a_slash(
    service: RunningService, upstream: ScriptedUpstream
) -> None:
    asked = plain_http.post(
        f"{service.url}/ask/?format=sse", json=HELLO, headers={"Origin": PAGE}, timeout=30
    )
    assert asked.status_code == 200
    assert asked.headers["access-control-allow-origin"] == PAGE
    place = asked.headers["content-location"]
    assert place.startswith("/ask/")
    assert parse_sse(plain_http.get(f"{service.url}{place}/").content) == parse_sse(asked.content)
    assert plain_http.delete(f"{service.url}{place}/").status_code == 204
    assert plain_http.get(f"{service.url}/ask/?q=Hi", timeout=30).status_code == 200
    assert upstream.paid_calls == 2


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/healthz/", 200),
        ("/readyz/", 200),
        ("/openapi.json/", 200),
        ("/ask.js/", 200),
        ("/page/main.js/", 200),
        ("/docs/assets/swagger-ui.css/", 200),
        ("/ask/chat/stream/", 204),
        ("/docs/assets", 404),
        ("/docs/assets/", 404),
        ("/nothing/", 404),
        ("//", 404),
    ],
)
def test_no_path_is_redirected(service: RunningService, path: str, status: int) -> None:
    response = plain_http.get(f"{service.url}{path}")
    assert response.status_code == status
    assert "location" not in response.headers
    if status == 404:
        assert response.json()["error"] == "not_found"


@pytest.mark.parametrize("page", ["docs", "redoc"])
def test_a_page_with_relative_links_is_shown_without_its_slash(service: RunningService, page: str) -> None:
    response = plain_http.get(f"{service.url}/{page}/")
    assert (response.status_code, response.headers["location"]) == (307, f"../{page}")
    assert plain_http.get(f"{service.url}/{page}/", follow_redirects=True).url == f"{service.url}/{page}"


def test_no_response_names_the_host_that_a_client_sent(upstream: ScriptedUpstream) -> None:
    env = {**QUICK, "OPENAI_BASE_URL": upstream.base_url, "CHAT_SSE_ALLOWED_HOSTS": "*"}
    with serve(env) as service:
        for path in ("/ask/", "/docs/", "/docs/assets", "/nothing/"):
            for method in ("GET", "POST", "DELETE", "OPTIONS"):
                response = plain_http.request(method, service.url + path, headers={"Host": "evil.example"})
                assert "evil" not in f"{response.headers} {response.text}"
                assert "//" not in response.headers.get("location", "")


def test_the_limits_hold_with_a_slash_too(upstream: ScriptedUpstream) -> None:
    env = {**QUICK, "OPENAI_BASE_URL": upstream.base_url, "CHAT_SSE_RATE_LIMIT": "1/hour"}
    with serve(env) as service:
        first, second = (plain_http.post(f"{service.url}/ask/", json=HELLO, timeout=30) for _ in range(2))
    assert (first.status_code, second.status_code) == (200, 429)


def test_a_service_mounted_below_a_path_keeps_its_page(service: RunningService) -> None:
    async def path_of(request: Request) -> PlainTextResponse:
        return PlainTextResponse(request.scope["path"])

    inner: Any = TrailingSlash(Starlette(routes=[Route("/", path_of), Route("/ask", path_of)]))
    with TestClient(Starlette(routes=[Mount("/chat", inner)])) as client:
        assert client.get("/chat/").text == "/chat/"
        assert client.get("/chat/ask/").text == "/chat/ask"
