"""A format that is one file and one line is negotiated, served and documented; on any server of ASGI."""

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from chat_sse.formats import formats_at
from tests.conftest import QUICK
from tests.support import plain_http
from tests.support.service import HELLO, parse_sse, serve, serve_under_uvicorn
from tests.support.upstream import Finish, Say, ScriptedUpstream, Silence


@pytest.fixture(scope="module", params=["h11", "httptools"])
def url(
    request: pytest.FixtureRequest, upstream_port: int, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """The service with the toy format, under plain uvicorn."""
    env = {**QUICK, "OPENAI_BASE_URL": f"http://127.0.0.1:{upstream_port}/v1"}
    arguments = ("--factory", "--http", request.param)
    with serve_under_uvicorn(
        "tests.support.toy_format:create_app", tmp_path_factory.mktemp("toy"), env, *arguments
    ) as running:
        yield running.url
        assert "Traceback" not in running.log()


def test_it_is_negotiated_and_served(url: str, upstream: ScriptedUpstream) -> None:
    upstream.answer(Say("Hel"), Say("lo"), Finish())
    by_name = plain_http.post(f"{url}/ask?format=shout", json=HELLO, timeout=30)
    by_type = plain_http.post(f"{url}/ask", json=HELLO, headers={"Accept": "text/x-shout"}, timeout=30)
    assert (by_name.text, by_type.text) == ("HELLO", "HELLO")
    assert by_type.headers["content-type"].startswith("text/x-shout")
    refusal = plain_http.post(f"{url}/ask?format=none", json=HELLO, timeout=30)
    assert "?format=shout (Accept: text/x-shout)" in refusal.json()["details"]


def test_it_is_documented(url: str) -> None:
    document = plain_http.get(f"{url}/openapi.json").json()
    assert "shout" in document["components"]["parameters"]["Format"]["schema"]["enum"]
    content = document["paths"]["/ask"]["post"]["responses"]["200"]["content"]
    assert content["text/x-shout"] == {"schema": {"type": "string"}, "example": "HELLO THERE!"}


@pytest.mark.parametrize("fmt", ["sse", "ai-sdk", "html", "shout"])
def test_a_client_that_leaves_is_noticed_by_any_server(
    url: str, upstream: ScriptedUpstream, fmt: str
) -> None:
    upstream.answer(Say("first"), Silence())
    with plain_http.stream("POST", f"{url}/ask?format={fmt}", json=HELLO, timeout=30) as response:
        seen = b""
        for piece in response.iter_raw():
            seen += piece
            if b"first" in seen.lower():
                break
    assert upstream.calls[0].wait_gone(3)  # before the idle timeout


def test_an_event_stream_is_the_same_under_any_server(url: str, upstream: ScriptedUpstream) -> None:
    upstream.answer(Say("Hi"), Finish())
    response = plain_http.post(f"{url}/ask", json=HELLO, timeout=30)
    assert response.headers["content-type"] == "text/event-stream"
    assert [event["type"] for _, event in parse_sse(response.content)] == ["start", "delta", "done"]


def test_a_default_format_that_does_not_exist_ends_the_start_with_2_and_the_names() -> None:
    command = [sys.executable, "-m", "chat_sse"]
    env = {"PATH": os.environ["PATH"], "OPENAI_API_KEY": "none", "CHAT_SSE_DEFAULT_FORMAT": "canary"}
    ended = subprocess.run(command, env=env, capture_output=True, text=True, timeout=30, check=False)
    assert ended.returncode == 2
    names = ", ".join(kind.name for kind in formats_at())
    assert ended.stderr == f"chat-sse: CHAT_SSE_DEFAULT_FORMAT must be one of {names}\n"


def test_a_default_format_is_named_in_any_case(upstream: ScriptedUpstream) -> None:
    upstream.answer(Say("Hi"), Finish())
    env = {**QUICK, "OPENAI_BASE_URL": upstream.base_url, "CHAT_SSE_DEFAULT_FORMAT": "Text"}
    with serve(env) as service:
        assert plain_http.post(f"{service.url}/ask", json=HELLO, timeout=30).text == "Hi"
