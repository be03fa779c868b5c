"""What the log says, and what it never says."""

import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import msgspec
import pytest

from tests.conftest import QUICK
from tests.support import plain_http
from tests.support.service import RunningService, ask, events, parse_sse, serve, serve_under_uvicorn
from tests.support.streams import asking, streaming
from tests.support.upstream import Finish, Hold, Refuse, Reset, Say, ScriptedUpstream, Silence


def test_an_answer_is_one_line_with_its_outcome(service: RunningService, upstream: ScriptedUpstream) -> None:
    upstream.answer(Say("Hi"), Finish("length"))
    stream_id = events(ask(service.url))[0]["id"]
    line = service.wait_for_log(f"answer.ended id={stream_id}.*")
    told = dict(field.split("=") for field in line.split()[1:])
    assert (told["principal"], told["model"], told["answered_by"]) == ("anonymous", *("gpt-4o-mini",) * 2)
    assert (told["outcome"], told["finish_reason"], told["events"]) == ("done", "length", "3")
    assert 0 < float(told["first_event_seconds"]) <= float(told["seconds"])
    usage = events(ask(service.url))[-1]["usage"]
    assert (told["usage"], told["tokens"]) == ("told", str(usage["total_tokens"]))
    assert told["input_tokens"] == str(usage["prompt_tokens"])
    assert told["output_tokens"] == str(usage["completion_tokens"])
    assert (told["readers"], told["resumes"]) == ("1", "0")


def test_an_answers_line_tells_who_came_back_and_that_its_cost_is_a_guess(
    service: RunningService, upstream: ScriptedUpstream
) -> None:
    upstream.answer(Say("Hi"), Silence())
    with asking(service) as stream:
        stream.wait_for(b"Hi")
        resumed = {"Last-Event-ID": f"{stream.id}.1"}
        with streaming("GET", f"{service.url}/ask/{stream.id}", headers=resumed):
            plain_http.delete(f"{service.url}/ask/{stream.id}")
            stream.last_event()
    line = service.wait_for_log(f"answer.ended id={stream.id}.*")
    assert re.search(r" outcome=cancelled finish_reason=cancelled .* usage=estimated tokens=[1-9]\d* ", line)
    assert line.endswith(" readers=2 resumes=1")


def test_a_refused_requests_line_has_the_errors_code(
    service: RunningService, upstream: ScriptedUpstream
) -> None:
    upstream.answer(Refuse(401))
    ask(service.url)
    assert re.search(
        r" outcome=error error=authentication_error details='.*' .* usage=none tokens=0 ",
        service.wait_for_log("answer.ended .*authentication_error.*"),
    )
    service.wait_for_log("request method=POST path=/ask status=500 error=authentication_error ")
    plain_http.get(f"{service.url}/nowhere")
    service.wait_for_log("request method=GET path=/nowhere status=404 error=not_found ")


def test_a_path_cannot_write_a_line_of_its_own(service: RunningService) -> None:
    plain_http.get(f"{service.url}/ask/%0A2026-11-23T00:00:00%20ERROR%20forged{'x' * 5000}")
    line = service.wait_for_log("request method=GET path=/ask/%0A.*")
    assert len(line) < 400
    assert not re.search(r"^2026-11-23T00:00:00 ERROR forged", service.log(), re.MULTILINE)


def test_neither_keys_nor_prompts_nor_answers_are_logged_at_debug(
    upstream: ScriptedUpstream, upstream_port: int
) -> None:
    env = {
        **QUICK,
        "OPENAI_BASE_URL": upstream.base_url,
        "CHAT_SSE_LOG_LEVEL": "debug",
        "OPENAI_LOG": "debug",
    }
    canary = {"messages": [{"role": "user", "content": "canary-prompt"}]}
    with serve(env) as service:
        for steps in ((Say("canary-answer"), Finish()), (Refuse(401),), (Say("canary-answer"), Reset())):
            upstream.answer(*steps)
            ask(service.url, canary)
        plain_http.get(f"{service.url}/ask", params={"q": "canary-prompt"}, timeout=30)
        ask(service.url, {"messages": [{"role": "canary-prompt", "content": "canary-prompt"}]})
        service.wait_for_log(r"(?s)(?:INFO request .*){5}")  # a line is written after its response
        log = service.log()
    assert log.count("INFO request ") == 5
    assert "canary" not in log


@pytest.mark.parametrize("workers", ["1", "2"])
def test_where_no_terminal_reads_the_log_every_line_is_json(upstream: ScriptedUpstream, workers: str) -> None:
    env = {**QUICK, "OPENAI_BASE_URL": upstream.base_url, "CHAT_SSE_LOG_FORMAT": ""}
    with serve(env, "--workers", workers) as service:
        ask(service.url)
        service.wait_for_log('"event":"request"')
        service.wait_for_log('"event":"answer.ended"')
        logged = {record["event"]: record for record in map(msgspec.json.decode, service.log().splitlines())}
    assert set(logged) - {"redis.up"} == {"service.started", "answer.ended", "request"}
    assert (logged["request"]["path"], logged["request"]["status"]) == ("/ask", 200)
    assert (logged["answer.ended"]["model"], logged["answer.ended"]["readers"]) == ("gpt-4o-mini", 1)
    assert logged["service.started"]["about"][0].endswith(service.url)


def test_a_terminal_gets_text(upstream: ScriptedUpstream) -> None:
    ours, theirs = os.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "chat_sse"],
        env={"PATH": os.environ["PATH"], "OPENAI_BASE_URL": upstream.base_url, "CHAT_SSE_PORT": "0"},
        stderr=theirs,
    )
    try:
        said = b""
        while b"CHAT_SSE_ALLOWED_HOSTS" not in said:
            said += os.read(ours, 4096)
        assert said.startswith(b"chat-sse ")
        url = re.search(rb"on (http://\S+)", said)
        assert url is not None
        plain_http.get(f"{url[1].decode()}/nowhere")
        assert b" INFO request method=GET path=/nowhere " in os.read(ours, 4096)
    finally:
        process.kill()
        process.wait(10)
        os.close(ours)
        os.close(theirs)


def test_under_plain_uvicorn_it_serves_drains_and_keeps_questions_out_of_the_access_log(
    upstream: ScriptedUpstream, tmp_path: Path
) -> None:
    gate = threading.Event()
    upstream.answer(Say("first"), Hold(gate), Finish())
    env = {**QUICK, "OPENAI_BASE_URL": upstream.base_url, "CHAT_SSE_SHUTDOWN_GRACE": "0.5"}
    with serve_under_uvicorn("chat_sse.app:create_app", tmp_path, env, "--factory") as service:
        with plain_http.stream("GET", f"{service.url}/ask", params={"q": "canary"}, timeout=30) as response:
            pieces = response.iter_raw()
            seen = b""
            while b"first" not in seen:
                seen += next(pieces)
            service.process.send_signal(signal.SIGTERM)
            seen += b"".join(pieces)
        gate.set()
        service.process.wait(20)
        assert parse_sse(seen)[-1][1]["error"] == "server_draining"
        assert "canary" not in service.log()
        assert '"GET /ask HTTP/1.1" 200' in service.log()
