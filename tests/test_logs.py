"""What the log says, and what it never says."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx2
import msgspec

from tests.conftest import QUICK
from tests.support.service import RunningService, ask, events, parse_sse, serve
from tests.support.upstream import Finish, Hold, Refuse, Reset, Say, ScriptedUpstream


def test_an_answer_is_one_line_with_its_outcome(service: RunningService, upstream: ScriptedUpstream) -> None:
    upstream.answer(Say("Hi"), Finish("length"))
    stream_id = events(ask(service.url))[0]["id"]
    line = service.wait_for_log(f"answer.ended id={stream_id}.*")
    assert "model=gpt-4o-mini finish_reason=length" in line
    assert re.search(r"bytes=\d+ seconds=[\d.]+$", line)


def test_a_path_cannot_write_a_line_of_its_own(service: RunningService) -> None:
    httpx2.get(f"{service.url}/ask/%0A2026-11-23T00:00:00%20ERROR%20forged{'x' * 5000}")
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
        httpx2.get(f"{service.url}/ask", params={"q": "canary-prompt"}, timeout=30)
        ask(service.url, {"messages": [{"role": "canary-prompt", "content": "canary-prompt"}]})
        service.wait_for_log(r"(?s)(?:INFO request .*){5}")  # a line is written after its response
        log = service.log()
    assert log.count("INFO request ") == 5
    assert "canary" not in log


def test_json_lines_are_json(upstream: ScriptedUpstream) -> None:
    env = {**QUICK, "OPENAI_BASE_URL": upstream.base_url, "CHAT_SSE_LOG_FORMAT": "json"}
    with serve(env) as service:
        ask(service.url)
        service.wait_for_log('"event":"request"')
        service.wait_for_log('"event":"answer.ended"')
        lines = [line for line in service.log().splitlines() if line.startswith("{")]
    logged = {record["event"]: record for record in map(msgspec.json.decode, lines)}
    assert set(logged) == {"answer.ended", "request"}
    assert (logged["request"]["path"], logged["request"]["status"]) == ("/ask", 200)


def test_under_plain_uvicorn_it_serves_drains_and_keeps_questions_out_of_the_access_log(
    upstream: ScriptedUpstream, tmp_path: Path
) -> None:
    gate = threading.Event()
    upstream.answer(Say("first"), Hold(gate), Finish())
    env = {**QUICK, "OPENAI_BASE_URL": upstream.base_url, "CHAT_SSE_SHUTDOWN_GRACE": "0.5"}
    arguments = ["chat_sse.app:create_app", "--factory", "--port", "0"]
    log = tmp_path / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "uvicorn", *arguments],
            env={"PATH": os.environ["PATH"], "PYTHONPATH": str(Path.cwd()), **env},
            cwd=tmp_path,
            stderr=output,
            stdout=output,
        )
    try:
        url = wait_for(log, r"http://127\.0\.0\.1:\d+")
        with httpx2.stream("GET", f"{url}/ask", params={"q": "canary"}, timeout=30) as response:
            pieces = response.iter_raw()
            seen = b""
            while b"first" not in seen:
                seen += next(pieces)
            process.send_signal(signal.SIGTERM)
            seen += b"".join(pieces)
        gate.set()
        process.wait(20)
        assert parse_sse(seen)[-1][1]["error"] == "server_draining"
        assert "canary" not in log.read_text()
        assert '"GET /ask HTTP/1.1" 200' in log.read_text()
    finally:
        process.kill()
        process.wait(10)


def wait_for(file: Path, pattern: str) -> str:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if match := re.search(pattern, file.read_text()):
            return match[0]
        time.sleep(0.02)
    raise AssertionError(file.read_text())
