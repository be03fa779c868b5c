"""OpenAI's SDKs and what stands on them, against the real service: only their base URL is another one."""

import importlib.metadata
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
import yaml
from openai import APIError, BadRequestError, InternalServerError, OpenAI, RateLimitError, Stream
from openai.types.chat import ChatCompletionChunk

from tests.support import plain_http
from tests.support.long_answer import PATIENT
from tests.support.node import node, version
from tests.support.proxy import BadNetwork
from tests.support.service import HELLO, RunningService, serve
from tests.support.tables import FAULT, LENGTH, STOP, WHOLE, ClientTable
from tests.support.upstream import Cut, Finish, Hold, Refuse, Say, ScriptedUpstream, Silence

MESSAGES: Any = HELLO["messages"]
MODEL = "gpt-4o-mini"
ROW = f"openai {importlib.metadata.version('openai')} (Python)", 'OpenAI(base_url="…/v1")'


@pytest.fixture(scope="module")
def patient(upstream_port: int) -> Iterator[RunningService]:
    """A service that waits longer for a reader's return than this file's take."""
    with serve({**PATIENT, "OPENAI_BASE_URL": f"http://127.0.0.1:{upstream_port}/v1"}) as running:
        yield running


@pytest.fixture
def sdk(service: RunningService) -> Iterator[OpenAI]:
    with OpenAI(api_key="none", base_url=f"{service.url}/v1") as client:
        yield client


def text_of(stream: Stream[ChatCompletionChunk]) -> tuple[str, str | None]:
    """Read a stream as its users do: the text, and how it ended."""
    text, reason = "", None
    for chunk in stream:
        for choice in chunk.choices:
            text += choice.delta.content or ""
            reason = choice.finish_reason or reason
    return text, reason


def test_a_whole_answer_as_a_stream_and_as_one_body(
    sdk: OpenAI, upstream: ScriptedUpstream, client_table: ClientTable
) -> None:
    upstream.answer(Say("Hel"), Say("lo "), Say("🙂"), Finish())
    chunks = list(
        sdk.chat.completions.create(
            model=MODEL, messages=MESSAGES, stream=True, stream_options={"include_usage": True}
        )
    )
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks[:-1]) == "Hello 🙂"
    assert chunks[-2].choices[0].finish_reason == "stop"
    usage = chunks[-1].usage
    assert usage is not None
    body = sdk.chat.completions.create(model=MODEL, messages=MESSAGES)
    assert (body.choices[0].message.content, body.choices[0].finish_reason) == ("Hello 🙂", "stop")
    assert body.usage is not None
    assert body.usage.total_tokens == usage.total_tokens == 18
    assert [model.id for model in sdk.models.list()] == [MODEL]
    client_table.enter(*ROW, WHOLE, "finish_reason stop, usage where asked for; as one body too")


def test_an_answer_cut_by_the_limit(
    sdk: OpenAI, upstream: ScriptedUpstream, client_table: ClientTable
) -> None:
    upstream.answer(Say("Hello"), Finish("length"))
    stream = sdk.chat.completions.create(model=MODEL, messages=MESSAGES, stream=True, max_tokens=5)
    assert text_of(stream) == ("Hello", "length")
    assert upstream.calls[0].body["max_tokens"] == 5
    client_table.enter(*ROW, LENGTH, "finish_reason length")


def test_an_error_in_the_middle_is_raised(
    sdk: OpenAI, upstream: ScriptedUpstream, client_table: ClientTable
) -> None:
    upstream.answer(Say("Hel"), Cut())
    with pytest.raises(APIError, match="cut off before it was complete") as caught:
        text_of(sdk.chat.completions.create(model=MODEL, messages=MESSAGES, stream=True))
    assert caught.value.code == "upstream_protocol_error"
    client_table.enter(*ROW, FAULT, "APIError; the text so far stays")


def test_an_error_in_the_middle_of_one_body_is_not_asked_again(
    sdk: OpenAI, upstream: ScriptedUpstream
) -> None:
    upstream.answer(Say("Hel"), Cut())
    with pytest.raises(InternalServerError):
        sdk.chat.completions.create(model=MODEL, messages=MESSAGES)
    assert upstream.paid_calls == 1


def test_an_answer_that_somebody_stops_is_an_error_and_no_whole_one(
    sdk: OpenAI, service: RunningService, upstream: ScriptedUpstream
) -> None:
    upstream.answer(Say("first"), Silence())
    stream = sdk.chat.completions.create(model=MODEL, messages=MESSAGES, stream=True)
    chunks = (next(stream), next(stream))
    assert chunks[1].choices[0].delta.content == "first"
    plain_http.delete(f"{service.url}/ask/{chunks[0].id}")
    with pytest.raises(APIError, match=r"The answer was stopped\."):
        next(stream)


def test_closing_the_stream_ends_the_upstream_call(
    sdk: OpenAI, upstream: ScriptedUpstream, client_table: ClientTable
) -> None:
    upstream.answer(Say("first"), Silence())
    stream = sdk.chat.completions.create(model=MODEL, messages=MESSAGES, stream=True)
    assert next(stream).choices[0].delta.role == "assistant"
    stream.close()
    assert upstream.calls[0].wait_gone(10)
    client_table.enter(*ROW, STOP, "upstream is cancelled after the grace")


@pytest.mark.parametrize("is_stream", [True, False])
def test_the_sdks_own_retry_after_a_lost_connection_attaches_by_the_key(
    patient: RunningService, upstream: ScriptedUpstream, is_stream: bool
) -> None:
    upstream.answer(Say("Hello"), Finish())
    with BadNetwork(patient.url) as network, OpenAI(api_key="none", base_url=f"{network.url}/v1") as sdk:
        network.cut_next(after=1)
        key = {"Idempotency-Key": f"sdk-{is_stream}"}
        answer: Any = sdk.chat.completions.create(
            model=MODEL, messages=MESSAGES, stream=is_stream, extra_headers=key
        )
        text = text_of(answer)[0] if is_stream else answer.choices[0].message.content
        network.wait_for_cuts(1)
    assert text == "Hello"
    assert upstream.paid_calls == 1


def test_a_cut_stream_is_an_error_and_is_read_on_by_its_last_id_for_one_paid_call(
    patient: RunningService, upstream: ScriptedUpstream
) -> None:
    gate = threading.Event()
    upstream.answer(Say("one "), Say("two "), Hold(gate), Say("three"), Finish())
    lines: list[str] = []
    with BadNetwork(patient.url) as network, OpenAI(api_key="none", base_url=f"{network.url}/v1") as sdk:
        network.cut_next(after=b'"two "', reset=False)  # within an event
        answers = sdk.chat.completions.with_streaming_response
        with (
            answers.create(model=MODEL, messages=MESSAGES, stream=True) as response,
            pytest.raises(httpx2.RemoteProtocolError),
        ):
            lines.extend(response.iter_lines())
        place = [line for line in lines if line.startswith("id: ")][-1].removeprefix("id: ")
        gate.set()
        rest = sdk.get(
            f"/chat/completions/{place.partition('.')[0]}",
            cast_to=ChatCompletionChunk,
            options={"headers": {"Last-Event-ID": place}},
            stream=True,
            stream_cls=Stream[ChatCompletionChunk],
        )
        assert text_of(rest) == ("two three", "stop")
    assert '"one "' in "".join(lines)
    assert upstream.paid_calls == 1


def test_refusals_are_the_sdks_own_exceptions(sdk: OpenAI, upstream: ScriptedUpstream) -> None:
    with pytest.raises(BadRequestError) as caught:
        sdk.chat.completions.create(model=MODEL, messages=MESSAGES, n=2)
    assert (caught.value.param, caught.value.code) == ("n", "invalid_request")
    assert upstream.calls == []
    upstream.answer(Refuse(429, headers={"Retry-After": "7"}))
    with pytest.raises(RateLimitError):
        sdk.with_options(max_retries=0).chat.completions.create(model=MODEL, messages=MESSAGES)


# Under Node.

node_clients = pytest.mark.parametrize("client", ["openai", "langchain"])
NODE_ROWS = {
    "openai": ("openai {} (Node)", 'new OpenAI({ baseURL: "…/v1" })', "openai"),
    "langchain": (
        "LangChain.js {}",
        'new ChatOpenAI({ configuration: { baseURL: "…/v1" } })',
        "@langchain/openai",
    ),
}


def row(client: str) -> tuple[str, str]:
    name, code, package = NODE_ROWS[client]
    return name.format(version(package)), code


def run(client: str, service: RunningService, how: str = "stream") -> dict[str, Any]:
    with node("openai.mjs", base=f"{service.url}/v1", model=MODEL, client=client, run=how) as process:
        return process.report()


@node_clients
def test_under_node_a_whole_answer_as_a_stream_and_as_one_body(
    service: RunningService, upstream: ScriptedUpstream, client_table: ClientTable, client: str
) -> None:
    upstream.answer(Say("Hel"), Say("lo "), Say("🙂"), Finish())
    whole = {"text": "Hello 🙂", "reason": "stop", "usage": 18, "error": None}
    assert run(client, service) == run(client, service, "body") == whole
    assert upstream.paid_calls == 2
    client_table.enter(*row(client), WHOLE, "finish_reason stop, usage; as one body too")


@node_clients
def test_under_node_an_answer_cut_by_the_limit(
    service: RunningService, upstream: ScriptedUpstream, client_table: ClientTable, client: str
) -> None:
    upstream.answer(Say("Hello"), Finish("length"))
    got = run(client, service)
    assert (got["text"], got["reason"]) == ("Hello", "length")
    client_table.enter(*row(client), LENGTH, "finish_reason length")


@node_clients
def test_under_node_an_error_in_the_middle_is_thrown_and_never_asked_again(
    service: RunningService, upstream: ScriptedUpstream, client_table: ClientTable, client: str
) -> None:
    upstream.answer(Say("Hel"), Cut())
    got, body = run(client, service), run(client, service, "body")
    assert got["text"] == "Hel"
    assert "cut off before it was complete" in got["error"]["message"]
    assert "cut off before it was complete" in body["error"]["message"]
    assert upstream.paid_calls == 2
    client_table.enter(*row(client), FAULT, f"{got['error']['name']}; the text so far stays")


@node_clients
def test_under_node_aborting_ends_the_upstream_call(
    service: RunningService, upstream: ScriptedUpstream, client_table: ClientTable, client: str
) -> None:
    upstream.answer(Say("first"), Silence())
    got = run(client, service, "stop")
    assert got["text"] == "first"
    assert upstream.calls[0].wait_gone(10)
    client_table.enter(*row(client), STOP, "upstream is cancelled after the grace")


# In the terminal.

LLM = f"llm {importlib.metadata.version('llm')}", 'api_base: "…/v1" in extra-openai-models.yaml'


@contextmanager
def llm(service: RunningService, folder: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Run the program `llm`, which knows the service as one more model of OpenAI's kind."""
    model = {"model_id": "ours", "model_name": MODEL, "api_base": f"{service.url}/v1"}
    (folder / "extra-openai-models.yaml").write_text(yaml.safe_dump([model]))
    # Without plugins: the embedded model's package is one that needs what is not installed here.
    env = {"LLM_USER_PATH": str(folder), "LLM_LOAD_PLUGINS": "", "PYTHONUNBUFFERED": "1", "PATH": ""}
    command = [sys.executable, "-m", "llm", *arguments, "--model", "ours"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, env=env, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def test_llm_shows_answers_and_tells_an_error_in_the_middle(
    service: RunningService, upstream: ScriptedUpstream, client_table: ClientTable, tmp_path: Path
) -> None:
    upstream.answer_next(Say("Hel"), Say("lo 🙂"), Finish())
    upstream.answer_next(Say("Too long"), Finish("length"))
    upstream.answer(Say("Hal"), Cut())
    with llm(service, tmp_path, "chat") as process:
        out, err = process.communicate("one\ntwo\nthree\n", timeout=30)
    assert [said.strip() for said in out.split("\n> ")[1:]] == ["Hello 🙂", "Too long", "Hal"]
    assert "cut off before it was complete" in err
    assert (process.returncode, upstream.paid_calls) == (1, 3)
    assert len(upstream.calls[2].body["messages"]) == 5
    client_table.enter(*LLM, WHOLE, "the text")
    client_table.enter(*LLM, LENGTH, "the text; it does not tell why it ended")
    client_table.enter(*LLM, FAULT, "the text so far, the error, exit code 1")


def test_interrupting_llm_ends_the_upstream_call(
    service: RunningService, upstream: ScriptedUpstream, client_table: ClientTable, tmp_path: Path
) -> None:
    upstream.answer(Say("first"), Silence())
    with llm(service, tmp_path, "prompt", "Hello!", "--no-log") as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.close()
        assert process.stdout.read(5) == "first"
        process.send_signal(signal.SIGINT)
        assert upstream.calls[0].wait_gone(10)
        process.wait(10)
    client_table.enter(*LLM, STOP, "the text so far; upstream is cancelled after the grace")
