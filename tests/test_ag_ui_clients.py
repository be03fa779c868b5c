"""AG-UI's own client under Node, and its Python package's types, against the real service."""

import importlib.metadata
import json
from typing import Any

import pytest
from ag_ui.core import Event, RunAgentInput, UserMessage
from pydantic import TypeAdapter

from tests.support import plain_http
from tests.support.node import node, version
from tests.support.service import RunningService
from tests.support.streams import streaming
from tests.support.tables import FAULT, LENGTH, STOP, WHOLE, ClientTable
from tests.support.upstream import Cut, Finish, Reason, Say, ScriptedUpstream, Silence

HTTP_AGENT = f"@ag-ui/client {version('@ag-ui/client')}", 'new HttpAgent({ url: "…/ask?format=ag-ui" })'
PYTHON = (
    f"ag-ui-protocol {importlib.metadata.version('ag-ui-protocol')}",
    'post("…/ask?format=ag-ui", RunAgentInput(…))',
)

decode = TypeAdapter[Any](Event).validate_json


def run(service: RunningService, how: str = "whole", **order: Any) -> dict[str, Any]:
    with node("ag_ui.mjs", url=f"{service.url}/ask?format=ag-ui", run=how, threadId="t1", **order) as agent:
        return agent.report()


def test_http_agent_shows_a_whole_answer_and_asks_on_with_its_reasoning_in_the_history(
    service: RunningService, upstream: ScriptedUpstream, client_table: ClientTable
) -> None:
    upstream.answer(Reason("Hm"), Say("Hel"), Say("lo "), Reason("m"), Say("🙂"), Finish())
    url = f"{service.url}/ask?format=ag-ui"
    with node("ag_ui.mjs", url=url, run="whole", threadId="t1", then="And then?") as agent:
        got, again = agent.report(), agent.report()
    assert (got["outcome"], got["reason"], got["thrown"]) == ("success", "stop", None)
    assert got["messages"] == [["user", "Hello!"], ["reasoning", "Hmm"], ["assistant", "Hello 🙂"]]
    assert got["usage"] == [{"model": "gpt-4o-mini", "inputTokens": 10, "outputTokens": 8, "totalTokens": 18}]
    assert again["outcome"] == "success"
    assert [message["content"] for message in upstream.calls[1].body["messages"]] == [
        "Hello!",
        "Hello 🙂",
        "And then?",
    ]
    client_table.enter(*HTTP_AGENT, WHOLE, "RUN_FINISHED, result.finishReason stop, usage")


def test_http_agent_is_told_that_the_limit_has_cut_an_answer(
    service: RunningService, upstream: ScriptedUpstream, client_table: ClientTable
) -> None:
    upstream.answer(Say("Hello"), Finish("length"))
    got = run(service)
    assert (got["messages"][-1], got["reason"]) == (["assistant", "Hello"], "length")
    client_table.enter(*HTTP_AGENT, LENGTH, "RUN_FINISHED, result.finishReason length")


def test_http_agent_is_told_of_an_error_in_the_middle(
    service: RunningService, upstream: ScriptedUpstream, client_table: ClientTable
) -> None:
    upstream.answer(Say("Hel"), Cut())
    got = run(service)
    assert got["error"]["code"] == "upstream_protocol_error"
    assert (got["messages"][-1], got["outcome"]) == (["assistant", "Hel"], None)
    assert got["types"][-1] == "RUN_ERROR"
    client_table.enter(*HTTP_AGENT, FAULT, "RUN_ERROR; the text so far stays")


def test_aborting_an_http_agent_ends_the_upstream_call(
    service: RunningService, upstream: ScriptedUpstream, client_table: ClientTable
) -> None:
    upstream.answer(Say("first"), Silence())
    got = run(service, "stop")
    assert got["messages"][-1] == ["assistant", "first"]
    assert upstream.calls[0].wait_gone(10)
    client_table.enter(*HTTP_AGENT, STOP, "upstream is cancelled after the grace")


def test_the_same_run_again_is_the_same_answer_for_one_paid_call(
    service: RunningService, upstream: ScriptedUpstream
) -> None:
    upstream.answer(Say("Hello"), Finish())
    first, again = run(service, runId="run-again"), run(service, runId="run-again")
    assert first == again
    assert first["messages"][-1] == ["assistant", "Hello"]
    other = run(service, runId="run-again", content="Another question")
    assert (other["thrown"]["status"], upstream.paid_calls) == (422, 1)


def test_http_agent_throws_what_is_refused_before_the_run(
    service: RunningService, upstream: ScriptedUpstream
) -> None:
    got = run(service, tools=[{"name": "f", "description": "", "parameters": {}}])
    assert got["thrown"]["status"] == 400
    assert "at `$.tools`" in got["thrown"]["message"]
    assert upstream.calls == []


# Python.


def request_of(run_id: str, **fields: Any) -> dict[str, Any]:
    asked = RunAgentInput(
        **{
            "thread_id": "t1",
            "run_id": run_id,
            "messages": [UserMessage(id="m1", content="Hello!")],
            **fields,
        }
    )
    sent: dict[str, Any] = json.loads(asked.model_dump_json(by_alias=True))
    return sent


def post(service: RunningService, run_id: str) -> list[tuple[str | None, Any]]:
    """Run, and give each event as the package's types have it, with its id if it has one."""
    response = plain_http.post(f"{service.url}/ask?format=ag-ui", json=request_of(run_id), timeout=30)
    assert response.status_code == 200, response.text
    return events_of(response.text)


def events_of(body: str) -> list[tuple[str | None, Any]]:
    blocks = [block.partition("\n") for block in body.replace(": hb\n", "").split("\n\n") if block]
    return [
        (place.removeprefix("id: ") or None, decode(data.removeprefix("data: "))) for data, _, place in blocks
    ]


def test_each_event_is_one_of_the_protocols_and_belongs_to_its_run(
    service: RunningService, upstream: ScriptedUpstream, client_table: ClientTable
) -> None:
    upstream.answer(Reason("Hm"), Say("Hi"), Finish("length"))
    events = [event for _, event in post(service, "typed")]
    assert [event.type.value for event in events] == [
        "RUN_STARTED",
        "REASONING_START",
        "REASONING_MESSAGE_START",
        "REASONING_MESSAGE_CONTENT",
        "REASONING_MESSAGE_END",
        "REASONING_END",
        "TEXT_MESSAGE_START",
        "TEXT_MESSAGE_CONTENT",
        "TEXT_MESSAGE_END",
        "RUN_FINISHED",
    ]
    assert [(event.thread_id, event.run_id) for event in (events[0], events[-1])] == [("t1", "typed")] * 2
    assert not any(event.model_extra for event in events)
    assert (events[0].protocol_version, events[-1].usage[0].total_tokens) == ("1.0", 18)
    client_table.enter(*PYTHON, WHOLE, "each event is of its types")
    client_table.enter(*PYTHON, LENGTH, "result.finishReason length")


def test_what_failed_and_what_was_stopped_is_a_run_error(
    service: RunningService, upstream: ScriptedUpstream, client_table: ClientTable
) -> None:
    upstream.answer_next(Say("Hel"), Cut())
    upstream.answer(Say("first"), Silence())
    assert post(service, "fails")[-1][1].code == "upstream_protocol_error"
    with streaming("POST", f"{service.url}/ask?format=ag-ui", json=request_of("stops")) as stream:
        stream.wait_for(b"first")
        plain_http.delete(f"{service.url}/ask/{stream.id}")
        last = events_of(stream.whole().decode())[-1][1]
    assert (last.type.value, last.code, last.message) == ("RUN_ERROR", "cancelled", "The answer was stopped.")
    client_table.enter(*PYTHON, FAULT, "RUN_ERROR, code upstream_protocol_error")
    client_table.enter(*PYTHON, STOP, "RUN_ERROR, code cancelled")


def test_a_client_that_can_resumes_after_any_id_for_one_paid_call(
    service: RunningService, upstream: ScriptedUpstream
) -> None:
    upstream.answer(Reason("Hm"), Say("Hel"), Say("lo"), Finish())
    whole = post(service, "resumes")
    places = [place for place, _ in whole if place]
    assert [place.partition(".")[2] for place in places] == ["0", "1", "2", "3", "4"]
    stream_id = places[0].partition(".")[0]
    url = f"{service.url}/ask/{stream_id}?format=ag-ui"
    for place in places[:-1]:
        rest = events_of(plain_http.get(url, headers={"Last-Event-ID": place}, timeout=30).text)
        expected = whole[[place for place, _ in whole].index(place) + 1 :]
        assert [event.type for _, event in rest] == [event.type for _, event in expected]
    assert upstream.paid_calls == 1


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"state": {"a": 1}}, "state"),
        ({"tools": [{"name": "f", "description": "", "parameters": {}}]}, "tools"),
        ({"context": [{"description": "d", "value": "v"}]}, "context"),
        ({"resume": [{"interruptId": "i", "status": "resolved"}]}, "resume"),
        ({"forwardedProps": {"model": "gpt-9"}}, "model"),
        ({"messages": [{"id": "1", "role": "tool", "content": "4", "toolCallId": "c"}]}, "messages[0].role"),
        (
            {"messages": [{"id": "1", "role": "assistant", "toolCalls": [{"id": "c"}]}]},
            "messages[0].toolCalls",
        ),
        ({"messages": [{"id": "1", "role": "user", "content": {}}]}, "messages[0].content"),
        (
            {"messages": [{"id": "1", "role": "user", "content": [{"type": "audio", "source": {}}]}]},
            "messages[0].content[0].type",
        ),
        ({"messages": [{"id": "1", "role": "system", "content": "Be rude."}]}, "messages[0].role"),
    ],
)
def test_what_is_asked_for_and_not_offered_is_a_clear_error(
    service: RunningService, upstream: ScriptedUpstream, fields: dict[str, Any], path: str
) -> None:
    body = {**request_of("refused"), **fields}
    response = plain_http.post(f"{service.url}/ask?format=ag-ui", json=body, timeout=30)
    assert (response.status_code, response.json()["error"]) == (400, "invalid_request")
    assert response.json()["details"].endswith(f"- at `$.{path}`")
    assert upstream.calls == []


def test_pictures_and_options_reach_upstream(service: RunningService, upstream: ScriptedUpstream) -> None:
    upstream.answer(Say("A pixel"), Finish())
    parts = [
        {"type": "text", "text": "What is it?"},
        {"type": "image", "source": {"type": "data", "value": "iVBORw0KGgo=", "mimeType": "image/png"}},
        {"type": "image", "source": {"type": "url", "value": "https://example.org/a.png"}},
    ]
    messages = [
        {"id": "1", "role": "activity", "activityType": "PLAN", "content": {"steps": []}},
        {"id": "2", "role": "user", "content": parts},
    ]
    body = {**request_of("picture"), "messages": messages, "forwardedProps": {"temperature": 0.5, "more": 1}}
    assert plain_http.post(f"{service.url}/ask?format=ag-ui", json=body, timeout=30).status_code == 200
    sent = upstream.calls[0].body
    urls = ["data:image/png;base64,iVBORw0KGgo=", "https://example.org/a.png"]
    pictures = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
    assert sent["messages"] == [{"role": "user", "content": [parts[0], *pictures]}]
    assert sent["temperature"] == 0.5
