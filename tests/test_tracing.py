"""Traces, as a collector gets them."""

import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.conftest import QUICK
from tests.support import plain_http
from tests.support.collector import Collector
from tests.support.service import HELLO, RunningService, ask, events, serve
from tests.support.streams import asking
from tests.support.upstream import Finish, Pause, Refuse, Say, ScriptedUpstream, Silence

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
ABOVE = "00f067aa0ba902b7"
NOW = {"x-should-retry": "false"}


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with Collector() as running:
        yield running


@pytest.fixture(scope="module")
def service(upstream_port: int, collector: Collector) -> Iterator[RunningService]:
    env = {
        **QUICK,
        "OPENAI_BASE_URL": f"http://127.0.0.1:{upstream_port}/v1",
        "CHAT_SSE_TRACES": "true",
        "CHAT_SSE_FALLBACK_MODELS": "second",
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
        "OTEL_BSP_SCHEDULE_DELAY": "100",
    }
    with serve(env) as running:
        yield running


def test_a_question_is_a_server_span_and_its_paid_call_a_client_span_within_the_callers_trace(
    service: RunningService, upstream: ScriptedUpstream, collector: Collector
) -> None:
    upstream.answer(Pause(0.1), Say("canary-answer"), Finish("length"))
    headers = {"traceparent": f"00-{TRACE}-{ABOVE}-01", "X-Request-Id": "asked"}
    question = {"messages": [{"role": "user", "content": "canary-question"}], "temperature": 0.5}
    usage = events(ask(service.url, question, headers=headers))[-1]["usage"]
    server = collector.wait_for(lambda span: span.attributes.get("chat_sse.request_id") == "asked")
    assert (server.trace, server.parent, server.kind, server.name) == (TRACE, ABOVE, "server", "POST /ask")
    assert server.attributes["http.route"] == "/ask"
    assert server.attributes["http.response.status_code"] == 200
    client = collector.wait_for(lambda span: span.parent == server.id)
    assert (client.trace, client.kind, client.name) == (TRACE, "client", "chat gpt-4o-mini")
    told = client.attributes
    assert (told["gen_ai.operation.name"], told["gen_ai.provider.name"]) == ("chat", "openai")
    assert (told["gen_ai.request.model"], told["gen_ai.response.model"]) == ("gpt-4o-mini",) * 2
    assert (told["gen_ai.request.stream"], told["gen_ai.request.temperature"]) == (True, 0.5)
    assert told["gen_ai.response.finish_reasons"] == ["length"]
    assert told["gen_ai.usage.input_tokens"] == usage["prompt_tokens"]
    assert told["gen_ai.usage.output_tokens"] == usage["completion_tokens"]
    assert 0.05 < told["gen_ai.response.time_to_first_chunk"] <= client.seconds
    assert (client.events, client.is_error) == (["accepted", "first chunk"], False)
    [call] = upstream.calls
    assert call.headers["traceparent"] == f"00-{TRACE}-{client.id}-01"
    assert collector.resources[0]["service.name"] == "chat-sse"


def test_a_failed_call_has_its_code_and_a_fallback_shows(
    service: RunningService, upstream: ScriptedUpstream, collector: Collector
) -> None:
    upstream.answer_next(Refuse(500, headers=NOW))
    upstream.answer(Say("Hi"), Finish())
    ask(service.url)
    answered = collector.wait_for(lambda span: "fallback" in span.events)
    assert answered.attributes["gen_ai.response.model"] == "second"
    upstream.answer(Refuse(401, headers=NOW))
    ask(service.url)
    failed = collector.wait_for(lambda span: span.is_error and span.kind == "client")
    assert failed.attributes["error.type"] == "authentication_error"
    server = collector.wait_for(lambda span: span.id == failed.parent)
    assert (server.attributes["http.response.status_code"], server.is_error) == (500, True)
    assert server.attributes["error.type"] == "authentication_error"


def test_stops_and_resumes_are_events(
    service: RunningService, upstream: ScriptedUpstream, collector: Collector
) -> None:
    upstream.answer(Say("Hi"), Silence())
    with asking(service) as stream:
        stream.wait_for(b"Hi")
        plain_http.delete(f"{service.url}/ask/{stream.id}")
    plain_http.get(f"{service.url}/ask/{stream.id}", headers={"Last-Event-ID": f"{stream.id}.0"})
    stopped = collector.wait_for(lambda span: span.kind == "client" and "stop" in span.events)
    assert stopped.attributes["gen_ai.response.finish_reasons"] == ["cancelled"]
    assert not stopped.is_error
    assert collector.wait_for(lambda span: span.name == "DELETE /ask/{stream_id}").events == ["stop"]
    assert collector.wait_for(lambda span: span.name == "GET /ask/{stream_id}").events == ["resume"]


def test_no_span_holds_content_a_key_or_an_address(
    service: RunningService, upstream: ScriptedUpstream, collector: Collector
) -> None:
    upstream.answer(Say("canary-answer"), Finish())
    plain_http.get(f"{service.url}/ask", params={"q": "canary-question", "id": "canary-id"}, timeout=30)
    ask(service.url, HELLO, headers={"X-Request-Id": "last", "baggage": "canary=1", "tracestate": "canary=1"})
    collector.wait_for(lambda span: span.attributes.get("chat_sse.request_id") == "last")
    for span in collector.spans:
        assert "canary" not in repr((span.name, span.attributes, span.events))
        assert "127.0.0.1" not in repr(span.attributes)


def test_the_last_spans_are_sent_at_the_exit_and_a_collector_that_is_away_holds_nothing_up(
    upstream: ScriptedUpstream,
) -> None:
    env = {**QUICK, "OPENAI_BASE_URL": upstream.base_url, "CHAT_SSE_TRACES": "true"}
    with Collector() as collector:
        with serve({**env, "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url}) as service:
            ask(service.url)
            assert service.terminate() == 0
        assert {span.kind for span in collector.spans} == {"server", "client"}
    with serve({**env, "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url}) as service:
        assert ask(service.url).status_code == 200
        assert service.terminate() == 0


def test_without_the_setting_nothing_of_the_library_is_loaded_and_no_header_is_sent(
    upstream: ScriptedUpstream,
) -> None:
    code = (
        "import sys; from chat_sse.app import create_app; from chat_sse.settings import Settings;"
        "create_app(Settings(openai_api_key='none')); assert 'opentelemetry' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=30)
    with serve({**QUICK, "OPENAI_BASE_URL": upstream.base_url}) as service:
        ask(service.url, headers={"traceparent": f"00-{TRACE}-{ABOVE}-01"})
    assert "traceparent" not in upstream.calls[0].headers
