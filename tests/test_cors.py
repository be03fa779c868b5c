"""Which pages may call, and what they may see."""

from typing import cast

import pytest
from starlette.testclient import TestClient

from chat_sse.app import create_app
from chat_sse.messages import Question
from chat_sse.settings import Settings
from chat_sse.upstreams.base import Listener, Upstream
from tests.support import plain_http
from tests.support.service import HELLO, RunningService, ask
from tests.support.upstream import ScriptedUpstream

PAGE = "http://localhost:3000"


def test_the_allowed_origin_may_call_and_see_our_headers(
    service: RunningService, upstream: ScriptedUpstream
) -> None:
    response = ask(service.url, headers={"Origin": PAGE})
    assert response.headers["access-control-allow-origin"] == PAGE
    exposed = response.headers["access-control-expose-headers"].split(", ")
    assert {"Content-Location", "Location", "X-Request-Id", "Retry-After", "X-Should-Retry"} <= set(exposed)


def test_a_preflight_allows_our_methods_and_headers(service: RunningService) -> None:
    wanted = ["authorization", "content-type", "idempotency-key", "last-event-id", "prefer", "x-request-id"]
    wanted += ["user-agent", "cache-control", "pragma", "x-requested-with"]  # of browsers and their libraries
    wanted += [f"x-stainless-{name}" for name in ("arch", "lang", "os", "package-version", "runtime")]
    wanted += [
        f"x-stainless-{name}" for name in ("helper-method", "retry-count", "runtime-version", "timeout")
    ]
    wanted += ["openai-organization", "openai-project"]
    wanted += ["traceparent", "tracestate", "baggage", "sentry-trace"]  # of tracing
    response = plain_http.options(
        f"{service.url}/ask",
        headers={
            "Origin": PAGE,
            "Access-Control-Request-Method": "DELETE",
            "Access-Control-Request-Headers": ",".join(wanted),
        },
    )
    assert response.status_code == 200
    assert "DELETE" in response.headers["access-control-allow-methods"]
    assert set(wanted) <= set(response.headers["access-control-allow-headers"].lower().split(", "))


REFUSED = {
    "the origin": (
        {"Origin": "https://evil.example"},
        (403, "forbidden_origin", "the page's origin https://evil.example is not in ALLOWED_ORIGIN"),
    ),
    "the method": (
        {"Access-Control-Request-Method": "PUT"},
        (400, "invalid_request", "pages may not use the method PUT"),
    ),
    "two headers": (
        {"Access-Control-Request-Headers": "content-type,x-mine, x-other"},
        (400, "invalid_request", "pages may not send the headers x-mine, x-other"),
    ),
    "a private network": (
        {"Access-Control-Request-Private-Network": "true"},
        (400, "invalid_request", "pages may not be sent to a private network by a public site"),
    ),
}


@pytest.mark.parametrize("headers", REFUSED)
def test_a_refused_preflight_says_in_its_body_and_in_the_log_what_it_was(
    service: RunningService, headers: str
) -> None:
    more, (status, code, details) = REFUSED[headers]
    wanted = {"Origin": PAGE, "Access-Control-Request-Method": "POST", "X-Request-Id": f"r-{code}", **more}
    response = plain_http.options(f"{service.url}/ask", headers=wanted)
    body = response.json()
    assert (response.status_code, body["error"], body["details"]) == (status, code, details)
    assert body["request_id"] == response.headers["x-request-id"] == f"r-{code}"
    assert response.headers["content-type"] == "application/json"
    assert "Access-Control-Request-Headers" in response.headers["vary"]
    allowed = response.headers.get("access-control-allow-origin")
    assert allowed == (None if code == "forbidden_origin" else PAGE)
    service.wait_for_log(f"preflight.refused.*{details}.*request_id=r-{code}")


def test_what_a_refusal_repeats_is_bounded_and_forges_no_line_of_the_log(service: RunningService) -> None:
    hostile = "https://" + "x" * 3000
    wanted = {"Origin": hostile, "Access-Control-Request-Method": "POST"}
    response = plain_http.options(f"{service.url}/ask", headers=wanted)
    assert response.status_code == 403
    assert len(response.content) < 1000
    assert "x" * 300 not in service.log()


@pytest.mark.parametrize("body", [HELLO, {"messages": []}])
def test_errors_have_the_headers_too(
    service: RunningService, upstream: ScriptedUpstream, body: object
) -> None:
    response = ask(service.url, body, headers={"Origin": PAGE})
    assert response.headers["access-control-allow-origin"] == PAGE


def test_another_origin_is_told_nothing(service: RunningService) -> None:
    response = plain_http.get(f"{service.url}/healthz", headers={"Origin": "https://evil.example"})
    assert "access-control-allow-origin" not in response.headers


class BrokenUpstream:
    """An upstream with a bug of ours in it."""

    name = "broken"
    models: tuple[str, ...] = ()

    async def answer(self, _: Question, __: Listener) -> None:
        raise KeyError("canary: an internal detail")

    async def aclose(self) -> None:
        pass


def test_a_bug_of_ours_is_a_500_with_cors_headers_and_no_internals() -> None:
    app = create_app(Settings(), upstream=cast("Upstream", BrokenUpstream()))
    with TestClient(app) as client:
        response = client.post("/ask", json=HELLO, headers={"Origin": PAGE})
    assert response.status_code == 500
    assert response.headers["access-control-allow-origin"] == PAGE
    assert response.json()["error"] == "internal_error"
    assert "canary" not in response.text
