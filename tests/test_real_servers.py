"""Real model servers behind the service: the embedded llama.cpp, and LiteLLM in front of the same model."""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from chat_sse.upstreams.local import LocalModel, start_local_model
from tests.bench.launch import Place
from tests.bench.servers import litellm
from tests.support import plain_http
from tests.support.service import RunningService, ask, events, parse_sse, serve, text_of

START_SECONDS = 150.0
LONG = {"messages": [{"role": "user", "content": "Write a long story about the sea."}]}
TOO_LONG = {"messages": [{"role": "user", "content": "word " * 6_000}]}  # the model holds 4,096 tokens


def children(pid: int) -> list[int]:
    """List the children of all threads of a process."""
    lists = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/children")]
    return [int(child) for text in lists for child in text.split()]


@pytest.fixture
def embedded() -> Iterator[RunningService]:
    with serve() as running:
        yield running


def test_the_embedded_server_answers_and_says_length(embedded: RunningService) -> None:
    found = events(ask(embedded.url, {**LONG, "max_output_tokens": 5}))
    assert text_of(found)
    assert found[-1]["finish_reason"] == "length"
    assert found[-1]["usage"]["completion_tokens"] == 5


def test_its_context_overflow_is_a_rejection_that_asking_again_cannot_mend(embedded: RunningService) -> None:
    response = ask(embedded.url, TOO_LONG)
    assert response.status_code == 500
    body = response.json()
    assert (body["error"], body["retryable"]) == ("invalid_request_error", False)
    assert "word" not in body["details"]


def test_its_death_in_mid_answer_is_an_error_and_never_a_whole_answer(embedded: RunningService) -> None:
    received = b""
    with plain_http.stream("POST", f"{embedded.url}/ask", json=LONG, timeout=30) as response:
        for data in response.iter_raw():
            received += data
            if b'"delta"' in received:
                for child in children(embedded.process.pid):
                    os.kill(child, signal.SIGKILL)
    end = parse_sse(received)[-1][1]
    assert (end["type"], end["error"], end["retryable"]) == ("error", "upstream_protocol_error", True)


@pytest.fixture(scope="module")
def model() -> Iterator[LocalModel]:
    with start_local_model() as running:
        yield running


@pytest.fixture(scope="module")
def gateway(model: LocalModel, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    """The service in front of a LiteLLM proxy in front of the embedded model."""
    folder = tmp_path_factory.mktemp("litellm")
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    place = Place(port=port, upstream=model.base_url.removesuffix("/v1"), folder=folder)
    prepare = litellm(install=True).prepare
    assert prepare is not None
    launch = prepare(place)
    config = folder / "litellm.json"
    config.write_text(config.read_text().replace('"bench"', f'"{model.api_key}"'))
    environ = {"PATH": os.environ["PATH"], "HOME": str(folder), **launch.environ}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(launch.command, env=environ, cwd=folder, stdout=log, stderr=log)
    try:
        _wait_until_ready(f"http://127.0.0.1:{port}", process, folder / "log")
        env = {
            "OPENAI_BASE_URL": f"http://127.0.0.1:{port}/v1",
            "OPENAI_API_KEY": launch.environ["LITELLM_MASTER_KEY"],
            "OPENAI_MODEL": "gpt-4o-mini",
        }
        with serve(env) as running:
            yield running
    finally:
        process.kill()
        process.wait(10)


def _wait_until_ready(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if plain_http.get(f"{url}/health/liveliness", timeout=2).status_code == 200:
                return
        except httpx2.TransportError:
            time.sleep(0.2)
    raise AssertionError(f"LiteLLM did not start:\n{log.read_text()[-2000:]}")


@pytest.mark.timeout(START_SECONDS * 2)
def test_litellm_answers_with_text_reason_and_usage(gateway: RunningService) -> None:
    found: list[dict[str, Any]] = events(ask(gateway.url, {**LONG, "max_output_tokens": 5}))
    assert text_of(found)
    assert found[-1]["type"] == "done"
    assert found[-1]["finish_reason"] == "length"


@pytest.mark.timeout(START_SECONDS * 2)
def test_litellms_errors_are_told_as_what_they_are(gateway: RunningService) -> None:
    body = ask(gateway.url, TOO_LONG).json()
    assert (body["error"], body["retryable"]) == ("invalid_request_error", False)
    assert "word" not in body["details"]
