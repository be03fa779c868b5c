"""Replies that real model servers send, each played to the running service."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import msgspec
import pytest

from tests.conftest import QUICK
from tests.support.replay import Replay, replaying
from tests.support.service import RunningService, ask, parse_sse, serve

CASES: list[dict[str, Any]] = msgspec.json.decode(
    (Path(__file__).parent / "cases" / "upstreams.json").read_bytes()
)


@pytest.fixture(scope="module")
def replay() -> Iterator[Replay]:
    with replaying() as server:
        yield server


@pytest.fixture(scope="module")
def service(replay: Replay) -> Iterator[RunningService]:
    with serve({**QUICK, "OPENAI_BASE_URL": replay.url}) as running:
        yield running


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_a_reply_from_the_field_is_told_truthfully(
    case: dict[str, Any], replay: Replay, service: RunningService
) -> None:
    replay.play(case)
    if settings := case.get("settings"):
        with serve({**QUICK, "OPENAI_BASE_URL": replay.url, **settings}) as running:
            judge(case, running, replay)
    else:
        judge(case, service, replay)


def judge(case: dict[str, Any], service: RunningService, replay: Replay) -> None:
    """Ask, and compare what came with what the case expects."""
    expected = case["expect"]
    began = time.monotonic()
    response = ask(service.url)
    assert time.monotonic() - began < expected.get("within_seconds", 30)
    assert response.status_code == expected.get("status_out", 200), response.text
    if "retry_after" in expected:
        assert response.headers["Retry-After"] == str(expected["retry_after"])
    end = response.json() if response.status_code != 200 else judge_events(expected, response)
    wanted = dict(expected["end"])
    if response.status_code != 200:
        wanted.pop("type", None)
    assert {name: end[name] for name in wanted} == wanted
    assert expected.get("details_has", "") in end.get("details", "")
    if "paid_calls" in expected:
        assert replay.paid == expected["paid_calls"]


def judge_events(expected: dict[str, Any], response: httpx2.Response) -> dict[str, Any]:
    """Compare the deltas, and return the terminal event."""
    *before, end = [event for _, event in parse_sse(response.content)]
    text = "".join(event["content"] for event in before if event["type"] == "delta")
    reasoning = "".join(event["content"] for event in before if event["type"] == "reasoning")
    assert text == expected.get("text", text)
    assert len(text) == expected.get("text_length", len(text))
    assert reasoning == expected.get("reasoning", reasoning)
    return end
