"""POST /ask: the straight path."""

from tests.support.service import RunningService, ask, events, parse_sse, text_of
from tests.support.upstream import Finish, Reason, Say, ScriptedUpstream


def test_each_delta_of_upstream_is_one_event_between_start_and_done(
    service: RunningService, upstream: ScriptedUpstream
) -> None:
    upstream.answer(Say("Hel"), Say("lo"), Say("!"), Finish("stop"))
    response = ask(service.url)
    pairs = parse_sse(response.content)
    stream_id = pairs[0][1]["id"]
    assert [event for _, event in pairs] == [
        {"type": "start", "id": stream_id, "model": "gpt-4o-mini"},
        {"type": "delta", "content": "Hel"},
        {"type": "delta", "content": "lo"},
        {"type": "delta", "content": "!"},
        {
            "type": "done",
            "finish_reason": "stop",
            "usage": {"prompt_tokens": 10, "completion_tokens": 8, "total_tokens": 18},
        },
    ]
    assert [event_id for event_id, _ in pairs] == [f"{stream_id}.{seq}" for seq in range(5)]
    assert response.content.startswith(b"retry: 2000\ndata: ")
    assert response.content.endswith(f"}}\nid: {stream_id}.4\n\n".encode())
    assert response.headers["content-location"] == f"/ask/{stream_id}"
    assert upstream.paid_calls == 1


def test_reasoning_is_carried_as_events_of_its_own(
    service: RunningService, upstream: ScriptedUpstream
) -> None:
    upstream.answer(Reason("Hmm"), Say("42"), Finish("stop"))
    found = events(ask(service.url))
    assert {"type": "reasoning", "content": "Hmm"} in found
    assert text_of(found) == "42"
