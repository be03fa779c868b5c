"""Which pages may call, and what they may see."""

from typing import cast

import httpx2
import pytest
from starlette.testclient import TestClient

from chat_sse.app import create_app
from chat_sse.messages import Question
from chat_sse.settings import Settings
from chat_sse.upstreams.base import Listener, Upstream
from tests.support.service import HELLO, RunningService, ask
from tests.support.upstream import ScriptedUpstream

PAGE = "http://localhost:3000"


def test_the_allowed_origin_may_call_and_see_our_headers(
    service: RunningService, upstream: ScriptedUpstream
) -> None:
    response = ask(service.url, headers={"Origin": PAGE})
    assert response.headers["access-control-allow-origin"] == PAGE
    exposed = response.headers["access-control-expose-headers"].split(", ")
    assert {"Content-Location", "Location", "X-Request-Id", "Retry-After"} <= set(exposed)


def test_a_preflight_allows_our_methods_and_headers(service: RunningService) -> None:
    wanted = ["authorization", "content-type", "idempotency-key", "last-event-id", "prefer", "x-request-id"]
    wanted += ["user-agent", "cache-control", "pragma", "x-requested-with"]  # of browsers and their libraries
    wanted += ["traceparent", "tracestate", "baggage", "sentry-trace"]  # of tracing
    response = httpx2.options(
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


@pytest.mark.parametrize("body", [HELLO, {"messages": []}])
def test_errors_have_the_headers_too(
    service: RunningService, upstream: ScriptedUpstream, body: object
) -> None:
    response = ask(service.url, body, headers={"Origin": PAGE})
    assert response.headers["access-control-allow-origin"] == PAGE


def test_another_origin_is_told_nothing(service: RunningService) -> None:
    response = httpx2.get(f"{service.url}/healthz", headers={"Origin": "https://evil.example"})
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
