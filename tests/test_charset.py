"""Every client reads the same text, whichever charset it assumes and wherever it breaks lines."""

import importlib.metadata
import json
from collections.abc import Iterable
from typing import Any

import httpx
import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st

from chat_sse.events import as_ascii
from chat_sse.formats import formats_at
from tests.support import plain_http
from tests.support.readme import README
from tests.support.service import HELLO, RunningService
from tests.support.tables import Matrix
from tests.support.upstream import Finish, Reason, Reset, Say, ScriptedUpstream

PIECES = (
    "Caf\u00e9 ",
    "\u00c5land ",
    "\u4e16\u754c ",
    "\U0001f642 ",
    "a\u2028b",
    "c\u2029",
    "\x85d",
    '\\"\\u00e9"',
)
TEXT = "".join(PIECES)
VERSION = importlib.metadata.version("requests")
ACCEPTS = (None, "*/*", "text/event-stream")


def text_of(lines: Iterable[str]) -> str:
    """Join the deltas among a stream's lines."""
    events = [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: ")]
    return "".join(event["content"] for event in events if event["type"] == "delta")


def headers(accept: str | None) -> dict[str, str]:
    return {} if accept is None else {"Accept": accept}


@pytest.mark.parametrize("accept", ACCEPTS)
def test_requests_reads_the_text_though_it_assumes_latin_1(
    service: RunningService, upstream: ScriptedUpstream, accept: str | None, matrix: Matrix
) -> None:
    upstream.answer(*map(Say, PIECES), Finish())
    with requests.post(
        f"{service.url}/ask", json=HELLO, headers=headers(accept), stream=True, timeout=30
    ) as response:
        assert response.headers["content-type"] == "text/event-stream"
        assert response.encoding == "ISO-8859-1"
        assert text_of(map(str, response.iter_lines(decode_unicode=True))) == TEXT
    matrix.record(f"requests {VERSION}", "whole answer", upstream.paid_calls)


@pytest.mark.parametrize("accept", ACCEPTS)
def test_httpx_reads_the_text_though_it_breaks_lines_where_unicode_does(
    service: RunningService, upstream: ScriptedUpstream, accept: str | None
) -> None:
    upstream.answer(*map(Say, PIECES), Finish())
    with httpx.stream(
        "POST", f"{service.url}/ask", json=HELLO, headers=headers(accept), timeout=30
    ) as response:
        assert response.headers["content-type"] == "text/event-stream"
        assert text_of(response.iter_lines()) == TEXT


@pytest.mark.parametrize("fmt", ["sse", "ai-sdk"])
@pytest.mark.parametrize("end", [Finish(), Reset()])
def test_an_event_streams_json_is_ascii(
    service: RunningService, upstream: ScriptedUpstream, fmt: str, end: Any
) -> None:
    upstream.answer(Reason("\u00fcber"), *map(Say, PIECES), end)
    response = plain_http.post(f"{service.url}/ask?format={fmt}", json=HELLO, timeout=30)
    assert response.status_code == 200
    assert response.content.isascii()


@pytest.mark.parametrize("fmt", [kind.name for kind in formats_at()])
def test_head_says_what_get_says(service: RunningService, upstream: ScriptedUpstream, fmt: str) -> None:
    url = f"{service.url}/ask?q=Hi&format={fmt}"
    head, got = plain_http.head(url), plain_http.get(url, timeout=30)
    told = ("content-type", "cache-control", "x-accel-buffering", "vary", "x-vercel-ai-ui-message-stream")
    assert [head.headers.get(name) for name in told] == [got.headers.get(name) for name in told]
    assert upstream.paid_calls == 1


@given(st.text())
def test_what_is_escaped_is_the_same_json(text: str) -> None:
    entry = json.dumps({"type": "delta", "content": text}, ensure_ascii=False).encode(errors="replace")
    assert as_ascii(entry).isascii()
    assert json.loads(as_ascii(entry)) == json.loads(entry)


def test_the_readme_names_the_version_that_is_tested() -> None:
    [row] = [line for line in README.split("\n") if line.startswith("| `requests` |")]
    assert row.endswith(f"| {VERSION} |")
