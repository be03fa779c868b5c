"""The README's first command, in front of a real language model, read the way a person would."""

import shutil
import subprocess
import time
from collections.abc import Iterator

import msgspec
import pytest

from tests.support.service import RunningService, parse_sse, serve

QUESTION = {
    "messages": [{"role": "user", "content": "What is 2+2?"}],
    "temperature": 0,
    "max_output_tokens": 40,
}


@pytest.fixture(scope="module")
def embedded() -> Iterator[RunningService]:
    """A service with no key and no base URL."""
    with serve() as running:
        yield running


def curl(*arguments: str) -> subprocess.Popen[bytes]:
    program = shutil.which("curl")
    assert program is not None
    return subprocess.Popen([program, "--no-progress-meter", *arguments], stdout=subprocess.PIPE)


def test_the_embedded_model_answers_and_curl_shows_its_deltas_as_they_come(embedded: RunningService) -> None:
    assert "answers from the embedded model: smollm2-135m-instruct" in embedded.log()
    body = msgspec.json.encode(QUESTION).decode()
    with curl("-N", f"{embedded.url}/ask", "-H", "Content-Type: application/json", "-d", body) as reader:
        assert reader.stdout is not None
        arrivals = [(time.monotonic(), line) for line in reader.stdout]
    assert reader.returncode == 0
    found = [event for _, event in parse_sse(b"".join(line for _, line in arrivals))]
    text = "".join(event["content"] for event in found if event["type"] == "delta")
    assert "4" in text
    assert found[0] == {"type": "start", "id": found[0]["id"], "model": "smollm2-135m-instruct"}
    assert found[-1]["type"] == "done"
    assert found[-1]["finish_reason"] in ("stop", "length")
    usage = found[-1]["usage"]
    assert usage["completion_tokens"] >= len(found) - 2 > 1
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    assert len({round(at, 3) for at, line in arrivals if line.startswith(b"data:")}) > 2  # not all at once


def test_the_output_cap_is_upstreams_own_length(embedded: RunningService) -> None:
    body = msgspec.json.encode(QUESTION | {"max_output_tokens": 2}).decode()
    with curl("-N", f"{embedded.url}/ask", "-H", "Content-Type: application/json", "-d", body) as reader:
        assert reader.stdout is not None
        [*_, (_, last)] = parse_sse(reader.stdout.read())
    assert (last["type"], last["finish_reason"], last["usage"]["completion_tokens"]) == ("done", "length", 2)
