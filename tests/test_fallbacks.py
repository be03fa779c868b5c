"""Fallbacks: another model answers where the first one was not paid, and the stream says which."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from chat_sse.upstreams.fallback import REFUSALS
from tests.conftest import QUICK
from tests.support.service import HELLO, RunningService, ask, events, serve, text_of
from tests.support.upstream import (
    Chunk,
    Cut,
    Eof,
    Hold,
    Refuse,
    Reset,
    Say,
    ScriptedUpstream,
    Step,
)

NOW = {"x-should-retry": "false"}


@contextmanager
def two(folder: Path, first: str, second: str, **more: str) -> Iterator[RunningService]:
    """Serve a first model with the second as its fallback."""
    file = folder / "models.toml"
    file.write_text(
        f'[a]\nmodel = "real-a"\nbase_url = "{first}"\nfallbacks = ["b"]\n'
        f'[b]\nmodel = "real-b"\nbase_url = "{second}"\n'
    )
    with serve({**QUICK, "CHAT_SSE_MODELS_FILE": str(file), **more}) as service:
        yield service


@pytest.mark.parametrize("status", [400, 401, 402, 404, 429, 500, 503])
def test_a_refused_question_is_answered_by_the_fallback_and_paid_once(tmp_path: Path, status: int) -> None:
    with ScriptedUpstream() as first, ScriptedUpstream() as second:
        first.answer(Refuse(status, headers=NOW))
        with two(tmp_path, first.base_url, second.base_url) as service:
            found = events(ask(service.url))
        assert (found[0]["type"], found[0]["model"]) == ("start", "b")
        assert (text_of(found), found[-1]["finish_reason"]) == ("Hello there!", "stop")
        assert (len(first.calls), first.paid_calls, second.paid_calls) == (1, 0, 1)
        assert second.calls[0].body["model"] == "real-b"


def test_a_server_that_is_not_there_is_passed_over(tmp_path: Path, upstream: ScriptedUpstream) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        nobody = f"http://127.0.0.1:{probe.getsockname()[1]}/v1"
    with two(tmp_path, nobody, upstream.base_url) as service:
        assert events(ask(service.url))[0]["model"] == "b"
    assert upstream.paid_calls == 1


@pytest.mark.parametrize(
    "steps",
    [
        (Cut(),),
        (Reset(),),
        (Say("Hi"), Cut()),
        (Say("Hi"), Eof()),
        (Chunk({"error": {"message": "overloaded", "type": "server_error"}}), Eof()),
    ],
)
def test_a_call_that_may_be_paid_is_not_made_elsewhere(
    tmp_path: Path, steps: tuple[Step, ...], upstream: ScriptedUpstream
) -> None:
    with ScriptedUpstream() as first:
        first.answer(*steps)
        with two(tmp_path, first.base_url, upstream.base_url) as service:
            response = ask(service.url)
        assert response.status_code == 500 or events(response)[0]["model"] == "a"
        assert len(first.calls) == 1
    assert upstream.calls == []


def test_when_all_refuse_the_first_models_refusal_is_told(tmp_path: Path) -> None:
    with ScriptedUpstream() as first, ScriptedUpstream() as second:
        first.answer(Refuse(429, headers=NOW))
        second.answer(Refuse(401, headers=NOW))
        with two(tmp_path, first.base_url, second.base_url) as service:
            response = ask(service.url)
        assert (response.status_code, response.json()["error"]) == (500, "rate_limit_error")
        assert (len(first.calls), len(second.calls)) == (1, 1)


@pytest.mark.parametrize("fate", ["answers", "refuses"])
def test_the_start_waits_for_the_model_beyond_the_accept_wait(tmp_path: Path, fate: str) -> None:
    gate = threading.Event()
    with ScriptedUpstream() as first, ScriptedUpstream() as second:
        first.answer(Hold(gate), Refuse(503, headers=NOW))
        if fate == "refuses":
            second.answer(Refuse(401))
        with two(tmp_path, first.base_url, second.base_url, CHAT_SSE_ACCEPT_WAIT="0.2") as service:
            timer = threading.Timer(1.0, gate.set)
            timer.start()
            found = events(ask(service.url))
            timer.join()
    assert [event["type"] for event in found].count("start") == 1
    assert found[0]["type"] == "start"
    if fate == "answers":
        assert (found[0]["model"], found[-1]["type"]) == ("b", "done")
    else:
        assert (found[0]["model"], found[-1]["error"]) == ("a", "service_unavailable_error")


def test_fallback_models_need_no_file_and_need_not_be_on_the_allow_list(upstream: ScriptedUpstream) -> None:
    upstream.answer_next(Refuse(429, headers=NOW))
    upstream.answer_next(Refuse(429, headers=NOW))
    more = {"OPENAI_BASE_URL": upstream.base_url, "OPENAI_MODEL": "m", "CHAT_SSE_FALLBACK_MODELS": "m, n, o"}
    with serve({**QUICK, **more}) as service:
        assert events(ask(service.url))[0]["model"] == "o"
        assert ask(service.url, {**HELLO, "model": "o"}).status_code == 400
        assert events(ask(service.url))[0]["model"] == "m"
    assert [call.body["model"] for call in upstream.calls] == ["m", "n", "o", "m"]
    assert upstream.paid_calls == 2


def test_the_budget_counts_what_the_fallback_used(tmp_path: Path) -> None:
    with ScriptedUpstream() as first, ScriptedUpstream() as second:
        first.answer(Refuse(503, headers=NOW))
        budget = {"CHAT_SSE_TOKEN_BUDGET": "10000/day", "CHAT_SSE_MAX_OUTPUT_TOKENS": "4096"}
        with two(tmp_path, first.base_url, second.base_url, **budget) as service:
            left = [ask(service.url).headers["ratelimit"] for _ in range(2)]
        assert [call.body["max_tokens"] for call in second.calls] == [4096, 4096]
    assert left[0] != left[1]


def test_a_model_that_keeps_refusing_is_left_out(tmp_path: Path) -> None:
    with ScriptedUpstream() as first, ScriptedUpstream() as second:
        first.answer(Refuse(503, headers=NOW))
        with two(tmp_path, first.base_url, second.base_url) as service:
            for _ in range(REFUSALS + 3):
                assert events(ask(service.url))[0]["model"] == "b"
        assert (len(first.calls), second.paid_calls) == (REFUSALS, REFUSALS + 3)
