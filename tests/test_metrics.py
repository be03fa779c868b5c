"""Metrics: what Prometheus is told, on a port of its own."""

import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.conftest import QUICK
from tests.support import plain_http
from tests.support.metrics import Metrics
from tests.support.readme import README
from tests.support.redis_server import RedisServer
from tests.support.service import HELLO, RunningService, ask, events, refused_start, serve, until, workers_of
from tests.support.streams import asking, attaching
from tests.support.upstream import Finish, Hold, Pause, Refuse, Reset, Say, ScriptedUpstream, Silence

ON = {**QUICK, "CHAT_SSE_METRICS_PORT": "0", "CHAT_SSE_IDLE_TIMEOUT": "30"}
CALL = "gen_ai_client_inference"
# Nobody's name, address or id: of each label there are as many values as models, codes and parts.
LABELS = {
    *("gen_ai_operation_name", "gen_ai_provider_name", "gen_ai_request_model", "gen_ai_response_model"),
    *("error", "error_type", "finish_reason", "le", "model", "outcome", "part", "status"),
}


@pytest.fixture(scope="module")
def service(upstream_port: int) -> Iterator[RunningService]:
    with serve({**ON, "OPENAI_BASE_URL": f"http://127.0.0.1:{upstream_port}/v1"}) as running:
        yield running


@pytest.fixture
def metrics(service: RunningService) -> Metrics:
    return Metrics(service)


def test_an_answer_is_counted_with_its_times_and_tokens(
    service: RunningService, upstream: ScriptedUpstream, metrics: Metrics
) -> None:
    upstream.answer(Pause(0.1), Say("a"), Say("b"), Pause(0.1), Say("c"), Finish("length"))
    usage = events(ask(service.url))[-1]["usage"]
    metrics.wait_for(1, "chat_sse_answers_total", model="gpt-4o-mini", outcome="done", finish_reason="length")
    call = {
        "gen_ai_operation_name": "chat",
        "gen_ai_provider_name": "openai",
        "gen_ai_request_model": "gpt-4o-mini",
        "gen_ai_response_model": "gpt-4o-mini",
    }
    for name in ("duration", "time_to_first_chunk", "time_per_output_chunk"):
        assert metrics.value(f"{CALL}_{name}_seconds_count", **call) == 1
    first = metrics.value(f"{CALL}_time_to_first_chunk_seconds_sum")
    whole = metrics.value(f"{CALL}_duration_seconds_sum")
    assert 0.09 < first < whole
    assert whole > 0.19
    assert metrics.value(f"{CALL}_time_per_output_chunk_seconds_sum") == pytest.approx((whole - first) / 2)
    assert metrics.value(f"{CALL}_usage_input_tokens_total") == usage["prompt_tokens"]
    assert metrics.value(f"{CALL}_usage_output_tokens_total") == usage["completion_tokens"]


def test_what_upstream_calls_a_reason_makes_no_label_of_its_own(
    service: RunningService, upstream: ScriptedUpstream, metrics: Metrics
) -> None:
    for number in range(3):
        upstream.answer(Say("a"), Finish(f"reason {number}"))
        ask(service.url)
    metrics.wait_for(3, "chat_sse_answers_total", finish_reason="other")


def test_stopped_abandoned_and_failed_answers_are_told_apart(
    service: RunningService, upstream: ScriptedUpstream, metrics: Metrics
) -> None:
    upstream.answer(Say("a"), Silence())
    with asking(service) as stream:
        stream.wait_for(b"a")
        plain_http.delete(f"{service.url}/ask/{stream.id}")
    metrics.wait_for(1, "chat_sse_answers_total", outcome="cancelled", finish_reason="cancelled")
    assert metrics.value("chat_sse_estimated_tokens_total", model="gpt-4o-mini") > 0
    with asking(service) as stream:
        stream.wait_for(b"a")
    metrics.wait_for(1, "chat_sse_answers_total", outcome="abandoned")
    upstream.answer(Say("a"), Reset())
    ask(service.url)
    metrics.wait_for(1, "chat_sse_answers_total", outcome="error", error="upstream_protocol_error")
    assert metrics.value(f"{CALL}_duration_seconds_count", error_type="upstream_protocol_error") == 1


def test_open_answers_and_readers_are_seen_while_they_are_there(
    service: RunningService, upstream: ScriptedUpstream, metrics: Metrics
) -> None:
    gate = threading.Event()
    upstream.answer(Say("a"), Hold(gate), Say("b"), Finish())
    with asking(service) as stream, asking(service) as another:
        stream.wait_for(b"a"), another.wait_for(b"a")
        with attaching(service, stream.id) as second:
            metrics.wait_for(2, "chat_sse_running_answers")
            metrics.wait_for(3, "chat_sse_readers")
            gate.set()
            second.last_event(), another.last_event()
        resumed = {"Last-Event-ID": f"{stream.id}.1"}
        assert plain_http.get(f"{service.url}/ask/{stream.id}", headers=resumed).status_code == 200
    metrics.wait_for(1, "chat_sse_resumes_total")
    metrics.wait_for(0, "chat_sse_running_answers")
    metrics.wait_for(0, "chat_sse_readers")


def test_refusals_and_retries_are_counted_by_their_codes(
    upstream: ScriptedUpstream, service: RunningService, metrics: Metrics
) -> None:
    ask(service.url, {"messages": []})
    metrics.wait_for(1, "chat_sse_requests_total", status="400", error="invalid_request")
    upstream.answer_next(Refuse(503))
    upstream.answer(Say("a"), Finish())
    ask(service.url)
    metrics.wait_for(1, "chat_sse_upstream_retries_total")
    limited = {**ON, "OPENAI_BASE_URL": upstream.base_url, "CHAT_SSE_RATE_LIMIT": "1/hour"}
    with serve(limited) as strict:
        assert [ask(strict.url).status_code for _ in range(3)] == [200, 429, 429]
        Metrics(strict).wait_for(2, "chat_sse_requests_total", status="429", error="too_many_requests")


def test_a_model_that_is_left_out_shows(tmp_path: Path, upstream: ScriptedUpstream) -> None:
    with ScriptedUpstream() as broken, ExitStack() as stack:
        broken.answer(Refuse(500, headers={"x-should-retry": "false"}))
        file = tmp_path / "models.toml"
        file.write_text(
            f'[a]\nbase_url = "{broken.base_url}"\nfallbacks = ["b"]\n[b]\nbase_url = "{upstream.base_url}"\n'
        )
        service = stack.enter_context(serve({**ON, "CHAT_SSE_MODELS_FILE": str(file)}))
        metrics = Metrics(service)
        metrics.wait_for(0, "chat_sse_upstream_breaker_open", model="a")
        for _ in range(4):
            ask(service.url)
        metrics.wait_for(1, "chat_sse_upstream_breaker_open", model="a")
        assert metrics.value("chat_sse_upstream_breaker_open", model="b") == 0
        assert metrics.value("chat_sse_upstream_fallbacks_total", model="a") == 3
        answered = {"gen_ai_request_model": "a", "gen_ai_response_model": "b"}
        assert metrics.value(f"{CALL}_duration_seconds_count", **answered) == 4


def test_several_workers_are_one_service_and_what_a_killed_one_counted_stays(
    upstream: ScriptedUpstream,
) -> None:
    gate = threading.Event()
    upstream.answer(Say("a"), Finish())
    with (
        RedisServer() as redis,
        serve(
            {**ON, "OPENAI_BASE_URL": upstream.base_url, "CHAT_SSE_REDIS_URL": redis.url}, "--workers", "2"
        ) as service,
    ):
        metrics = Metrics(service)
        for _ in range(12):  # each over a connection of its own, which the kernel gives to either worker
            ask(service.url)
        metrics.wait_for(12, "chat_sse_answers_total", outcome="done")
        metrics.wait_for(1, "chat_sse_redis_up")
        until(lambda: metrics.value("chat_sse_redis_round_trips_total") > 12)
        upstream.answer(Say("a"), Hold(gate), Finish())
        with ExitStack() as stack:
            for _ in range(8):
                stack.enter_context(asking(service)).wait_for(b"a")
            metrics.wait_for(8, "chat_sse_running_answers")
            for worker in workers_of(service):
                os.kill(worker, signal.SIGKILL)
            metrics.wait_for(0, "chat_sse_running_answers")
        gate.set()
        assert metrics.value("chat_sse_answers_total", outcome="done") == 12
        assert {label for sample in metrics.samples() for label in sample.labels} <= LABELS


def test_the_readme_lists_every_metric(tmp_path: Path, upstream: ScriptedUpstream) -> None:
    rows = re.findall(r"^\| (`(?:gen_ai|chat_sse)_[^|]*) \|", README, re.MULTILINE)
    listed = {name for row in rows for name in re.findall("`(.*?)`", row)}
    file = tmp_path / "models.toml"
    file.write_text(f'[a]\nbase_url = "{upstream.base_url}"\nfallbacks = ["b"]\n[b]\n')
    with RedisServer() as redis:
        more = {"OPENAI_BASE_URL": upstream.base_url, "CHAT_SSE_MODELS_FILE": str(file)}
        with serve({**ON, **more, "CHAT_SSE_REDIS_URL": redis.url}) as service:
            metrics = Metrics(service)
            ask(service.url)
            metrics.wait_for(1, "chat_sse_redis_up")
            families = text_string_to_metric_families(plain_http.get(metrics.url).text)
    assert {family.name for family in families} == listed


def test_no_label_holds_a_person(upstream: ScriptedUpstream) -> None:
    secret = "canary-secret-0123456789"
    with serve(
        {**ON, "OPENAI_BASE_URL": upstream.base_url, "CHAT_SSE_API_KEYS": f"canary:{secret}"}
    ) as service:
        ask(service.url, {**HELLO, "id": "canary-chat"}, headers={"Authorization": f"Bearer {secret}"})
        ask(service.url, headers={"Authorization": "Bearer canary-wrong"})
        metrics = Metrics(service)
        metrics.wait_for(1, "chat_sse_requests_total", status="401", error="unauthenticated")
        page = plain_http.get(metrics.url).text
    assert "canary" not in page
    assert "127.0.0.1" not in page


def test_they_are_on_their_own_port_alone(service: RunningService, metrics: Metrics) -> None:
    assert plain_http.get(f"{service.url}/metrics").status_code == 404
    assert metrics.url.startswith("http://127.0.0.1:")


def test_a_port_that_is_taken_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        said = refused_start({"CHAT_SSE_METRICS_PORT": port, "CHAT_SSE_LOG_FORMAT": "text"}, exit_code=3)
    assert f"metrics.unavailable port={port} reason='Address already in use'" in said


def test_without_the_setting_nothing_of_the_library_is_loaded() -> None:
    code = (
        "import sys; from chat_sse.app import create_app; from chat_sse.settings import Settings;"
        "create_app(Settings(openai_api_key='none')); assert 'prometheus_client' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=30)
