"""What every response tells browsers."""

import pytest

from tests.conftest import QUICK
from tests.support import plain_http
from tests.support.service import HELLO, RunningService, ask, serve
from tests.support.upstream import Finish, Refuse, Say, ScriptedUpstream

API_POLICY = "default-src 'none'; frame-ancestors 'none'"
PREFLIGHT = {"Origin": "http://localhost:3000", "Access-Control-Request-Method": "POST"}


@pytest.mark.parametrize(
    ("request_line", "options", "status"),
    [
        ("POST /ask", {"json": HELLO}, 200),
        ("POST /ask?format=text", {"json": HELLO}, 200),
        ("POST /ask?format=json", {"json": HELLO}, 200),
        ("POST /ask?format=ai-sdk", {"json": HELLO}, 200),
        ("POST /ask?format=html", {"json": HELLO}, 200),
        ("POST /ask", {"json": HELLO, "headers": {"Prefer": "respond-async"}}, 202),
        ("HEAD /ask?q=Hi", {}, 200),
        ("GET /ask/chat/stream", {}, 204),
        ("GET /ask/none", {}, 404),
        ("POST /ask", {"json": {}}, 400),
        ("GET /ask?q=Hi", {"headers": {"Origin": "https://evil.example"}}, 403),
        ("GET /ask?q=Hi", {"headers": {"Host": "evil.example"}}, 421),
        ("PUT /ask", {}, 405),
        ("GET /nowhere", {}, 404),
        ("OPTIONS /ask", {"headers": PREFLIGHT}, 200),
        ("OPTIONS /ask", {"headers": {**PREFLIGHT, "Origin": "https://evil.example"}}, 403),
        ("GET /healthz", {}, 200),
        ("GET /readyz", {}, 200),
        ("GET /openapi.json", {}, 200),
        ("GET /", {}, 200),
        ("GET /", {"headers": {"If-None-Match": "*"}}, 304),
        ("GET /ask.js", {}, 200),
        ("GET /ask-stream.js", {}, 200),
        ("GET /docs", {}, 200),
        ("GET /redoc", {}, 200),
        ("GET /docs/assets/swagger-ui.css", {}, 200),
        ("GET /docs/assets/none", {}, 404),
    ],
)
def test_every_response_has_the_headers_once_and_no_banner(
    service: RunningService,
    upstream: ScriptedUpstream,
    request_line: str,
    options: dict[str, object],
    status: int,
) -> None:
    upstream.answer(Say("Hi"), Finish())
    method, path = request_line.split()
    response = plain_http.request(method, service.url + path, timeout=20, **options)  # type: ignore[arg-type]
    assert response.status_code == status
    found = response.headers
    names = [name.lower() for name, _ in found.multi_items()]
    assert len(names) == len(set(names))
    assert found["x-content-type-options"] == "nosniff"
    assert found["referrer-policy"] == "no-referrer"
    assert found["cross-origin-resource-policy"] == "same-origin"
    assert "server" not in found
    policy = found["content-security-policy"]
    if path in ("/", "/docs", "/redoc") or path.startswith(("/docs/assets/swagger", "/openapi")):
        assert {"default-src 'none'", "frame-ancestors 'none'", "base-uri 'none'"} <= set(policy.split("; "))
        assert "unsafe-eval" not in policy
        assert "script-src 'self';" in policy
    else:
        assert policy == API_POLICY
    kept = {200: ("no-cache, no-transform", "no-cache", "no-store"), 304: ("no-cache",)}
    assert found["cache-control"] in kept.get(status, ("no-store",))


def test_an_upstreams_headers_are_not_passed_on(service: RunningService, upstream: ScriptedUpstream) -> None:
    upstream.answer(
        Refuse(429, headers={"Server": "canary", "x-ratelimit-limit": "7", "Set-Cookie": "a=canary"})
    )
    response = ask(service.url)
    assert response.status_code == 500
    assert not {"server", "set-cookie", "x-ratelimit-limit"} & set(response.headers)


def test_with_keys_the_refusal_has_them_too(upstream: ScriptedUpstream) -> None:
    env = {**QUICK, "OPENAI_BASE_URL": upstream.base_url, "CHAT_SSE_API_KEYS": "a:0123456789abcdef"}
    with serve(env) as service:
        response = ask(service.url)
    assert response.status_code == 401
    assert response.headers["content-security-policy"] == API_POLICY
    assert response.headers["cache-control"] == "no-store"
