"""One contract for all formats: what any of them makes of a log, however the log was read."""

import json
from collections.abc import Callable, Iterator, Sequence
from html import unescape
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chat_sse.errors import ChatError, Draining, InternalError, UpstreamProtocol, UpstreamTimeout
from chat_sse.events import (
    Delta,
    Done,
    Event,
    Failure,
    Reasoning,
    Start,
    Usage,
    decode_event,
    error_of,
    failure,
)
from chat_sse.formats import (
    FORMATS,
    ag_ui,
    ai_sdk,
    foreign_events,
    html_fragments,
    json_body,
    openai,
    sse,
    text,
)
from tests.support.service import parse_sse

ID = "8f3c"
USAGE = Usage(prompt_tokens=10, completion_tokens=8, total_tokens=18)


class Read(msgspec.Struct):
    """What a client of a format knows when its response is over."""

    text: str
    ends: list[str]
    """Each marker of an end: "whole", "stopped" or "failed"."""


def cut(entries: Sequence[bytes], sizes: Sequence[int]) -> Iterator[Sequence[bytes]]:
    """Hand entries over in batches, as a reader gets them."""
    rest = list(entries)
    for size in sizes:
        if batch := rest[:size]:
            yield batch
        rest = rest[size:]
    if rest:
        yield rest


def read_sse(batches: Iterator[Sequence[bytes]]) -> Read:
    encoder = sse.SseEncoder(ID, 0)
    body = b"".join(encoder.encode(batch) for batch in batches)
    events = [event for _, event in parse_sse(body)]
    ends = []
    for event in events:
        if event["type"] == "done":
            ends.append("stopped" if event["finish_reason"] == "cancelled" else "whole")
        elif event["type"] == "error":
            ends.append("failed")
    return Read("".join(event["content"] for event in events if event["type"] == "delta"), ends)


def read_text(batches: Iterator[Sequence[bytes]]) -> Read:
    body, ends = b"", []
    for batch in batches:
        piece, end = text.encode(batch)
        body += piece
        if end is not None:
            broken = "failed" if isinstance(end, Failure) else "stopped"
            ends.append("whole" if text.is_whole(end) else broken)
    return Read(body.decode(), ends)


def read_json(batches: Iterator[Sequence[bytes]]) -> Read:
    entries = [entry for batch in batches for entry in batch]
    try:
        answer = json_body.collect(entries)
    except ChatError:  # then there is no body that could hold the text
        return Read(
            "".join(e.content for e in map(decode_event, entries) if isinstance(e, Delta)), ["failed"]
        )
    return Read(answer.content, ["stopped" if answer.finish_reason == "cancelled" else "whole"])


def chunks_of(batches: Iterator[Sequence[bytes]]) -> list[dict[str, Any]]:
    encoder = ai_sdk.UiMessageEncoder()
    body = b"".join(encoder.encode(batch) for batch in batches).decode()
    *blocks, done, nothing = body.split("\n\n")
    assert (done, nothing) == ("data: [DONE]", "")
    assert all(block.startswith("data: {") and "\n" not in block for block in blocks)
    return [json.loads(block.removeprefix("data: ")) for block in blocks]


def read_ai_sdk(batches: Iterator[Sequence[bytes]]) -> Read:
    chunks = chunks_of(batches)
    kinds = {"finish": "whole", "abort": "stopped", "error": "failed"}
    return Read(
        "".join(chunk["delta"] for chunk in chunks if chunk["type"] == "text-delta"),
        [kinds[chunk["type"]] for chunk in chunks if chunk["type"] in kinds],
    )


def events_of_html(body: bytes) -> list[dict[str, str]]:
    """Read a stream's events as their fields."""
    *blocks, nothing = body.decode().split("\n\n")
    assert nothing == ""
    return [dict(line.split(": ", 1) for line in block.split("\n")) for block in blocks]


def read_html(batches: Iterator[Sequence[bytes]]) -> Read:
    encoder = html_fragments.HtmlEncoder(ID, 0)
    found = events_of_html(b"".join(encoder.encode(batch) for batch in batches))
    text, ends = "", []
    for event in found:
        fragment = event["data"]
        if event.get("event") == "done":
            cancelled = 'data-finish-reason="cancelled"' in fragment
            ends.append("failed" if "data-error=" in fragment else "stopped" if cancelled else "whole")
        elif "event" not in event and not fragment.startswith(("<em", "<strong")):
            assert "<" not in fragment.replace("<br>", "")
            text += unescape(fragment.replace("<br>", "\n"))
    return Read(text, ends)


def read_ag_ui(batches: Iterator[Sequence[bytes]]) -> Read:
    encoder = ag_ui.AgUiEncoder(ID, -1, thread_id=None, run_id=None)
    blocks = b"".join(encoder.encode(batch) for batch in batches).decode().split("\n\n")
    assert blocks.pop() == ""
    found = [json.loads(block.partition("\n")[0].removeprefix("data: ")) for block in blocks]
    text = "".join(event["delta"] for event in found if event["type"] == "TEXT_MESSAGE_CONTENT")
    last = found[-1]
    if last["type"] == "RUN_ERROR":
        return Read(text, ["stopped" if last["code"] == "cancelled" else "failed"])
    assert last["type"] == "RUN_FINISHED"
    return Read(text, ["whole"])


def read_openai(batches: Iterator[Sequence[bytes]]) -> Read:
    encoder = openai.CompletionEncoder(ID, -1, created=1)
    encoder.ended = True  # as the response has it before the last piece
    *blocks, last, nothing = b"".join(encoder.encode(batch) for batch in batches).decode().split("\n\n")
    assert nothing == ""
    data = [block.partition("\n")[0].removeprefix("data: ") for block in (*blocks, last)]
    done = data[-1] == "[DONE]"
    assert encoder.ended == done  # or the connection is broken off
    chunks = [json.loads(text) for text in data[: -1 if done else None]]
    deltas = [choice["delta"] for chunk in chunks for choice in chunk.get("choices", [])]
    error = chunks[-1].get("error", {}).get("message")
    stopped = "stopped" if error == foreign_events.STOPPED else "failed"
    return Read("".join(delta.get("content", "") for delta in deltas), ["whole" if done else stopped])


def read_openai_body(batches: Iterator[Sequence[bytes]]) -> Read:
    entries = [entry for batch in batches for entry in batch]
    try:
        [choice] = openai.completion(entries, 1).choices
    except ChatError as exc:
        text = "".join(e.content for e in map(decode_event, entries) if isinstance(e, Delta))
        return Read(text, ["stopped" if exc.content == foreign_events.STOPPED else "failed"])
    return Read(choice.message.content, ["whole"])


READERS = {
    "sse": read_sse,
    "text": read_text,
    "json": read_json,
    "ai-sdk": read_ai_sdk,
    "html": read_html,
    "ag-ui": read_ag_ui,
    "openai": read_openai,
    "openai-body": read_openai_body,
}
every_format = pytest.mark.parametrize("read", READERS.values(), ids=READERS)


def test_every_format_has_a_reader_here() -> None:
    assert list(READERS) == [kind.name for kind in FORMATS]


# Any text that JSON can carry: no lone surrogates; line ends and U+2028 all the more.
pieces = st.text(
    st.one_of(st.characters(exclude_categories=["Cs"]), st.sampled_from("\n\r\u2028\u0085:🙂")), min_size=1
)
middles = st.lists(st.one_of(pieces.map(Delta), pieces.map(Reasoning)), max_size=12)
reasons = st.sampled_from(["stop", "length", "content_filter", "tool_calls", "cancelled", "odd", None])
endings = st.one_of(
    st.builds(Done, finish_reason=reasons, usage=st.sampled_from([USAGE, None])),
    st.sampled_from([failure(UpstreamTimeout("slow"), "r1"), failure(Draining(), "r2")]),
)
sizes = st.lists(st.integers(1, 4), max_size=8)


@st.composite
def logs(draw: st.DrawFn) -> list[Event]:
    return [Start(id=ID, model="m"), *draw(middles), draw(endings)]


def entries_of(events: Sequence[Event]) -> list[bytes]:
    return [msgspec.json.encode(event) for event in events]


@every_format
@given(events=logs(), batches=sizes)
def test_the_text_read_is_the_deltas_text_and_one_marker_tells_the_end(
    read: Callable[[Iterator[Sequence[bytes]]], Read], events: list[Event], batches: list[int]
) -> None:
    found = read(cut(entries_of(events), batches))
    assert found.text == "".join(event.content for event in events if isinstance(event, Delta))
    last = events[-1]
    if isinstance(last, Failure):
        assert found.ends == ["failed"]
    else:
        assert isinstance(last, Done)
        assert found.ends == ["stopped" if last.finish_reason == "cancelled" else "whole"]


@every_format
@given(events=logs(), one=sizes, other=sizes)
def test_how_a_log_was_read_makes_no_difference(
    read: Callable[[Iterator[Sequence[bytes]]], Read], events: list[Event], one: list[int], other: list[int]
) -> None:
    entries = entries_of(events)
    assert read(cut(entries, one)) == read(cut(entries, other))


# What the AI SDK's own schema does not say, but its client relies on.


@given(events=logs(), batches=sizes)
def test_every_part_of_a_ui_message_is_opened_before_it_grows_and_no_two_are_open(
    events: list[Event], batches: list[int]
) -> None:
    chunks = chunks_of(cut(entries_of(events), batches))
    assert [chunk["type"] for chunk in chunks[:2]] == ["start", "start-step"]
    is_open: tuple[str, str] | None = None
    used = set()
    for chunk in chunks[2:]:
        part, _, step = chunk["type"].partition("-")
        match step:
            case "start":
                assert is_open is None
                assert chunk["id"] not in used
                is_open = (part, chunk["id"])
                used.add(chunk["id"])
            case "delta":
                assert is_open == (part, chunk["id"])
            case "end":
                assert is_open == (part, chunk["id"])
                is_open = None
    whole = chunks[-1]["type"] == "finish"
    assert is_open is None or not whole
    assert [chunk["type"] for chunk in chunks].count("finish-step") == whole


def test_a_ui_message_stream_is_by_the_letter() -> None:
    events: list[Event] = [
        Start(id=ID, model="m"),
        Reasoning("Hm"),
        Delta("Hi"),
        Delta("!"),
        Done(finish_reason="content_filter", usage=USAGE),
    ]
    assert chunks_of(iter([entries_of(events)])) == [
        {"type": "start", "messageId": ID},
        {"type": "start-step"},
        {"type": "reasoning-start", "id": "1"},
        {"type": "reasoning-delta", "id": "1", "delta": "Hm"},
        {"type": "reasoning-end", "id": "1"},
        {"type": "text-start", "id": "2"},
        {"type": "text-delta", "id": "2", "delta": "Hi"},
        {"type": "text-delta", "id": "2", "delta": "!"},
        {"type": "text-end", "id": "2"},
        {"type": "finish-step"},
        {
            "type": "finish",
            "finishReason": "content-filter",
            "messageMetadata": {"usage": {"inputTokens": 10, "outputTokens": 8, "totalTokens": 18}},
        },
    ]


def test_a_failure_in_a_ui_message_stream_speaks_to_the_person() -> None:
    error = UpstreamProtocol("cut")
    [chunk] = chunks_of(iter([entries_of([failure(error, "r")])]))
    assert chunk == {"type": "error", "errorText": error.content}


# HTML fragments.


def html_of(events: Sequence[Event]) -> str:
    return html_fragments.HtmlEncoder(ID, 0).encode(entries_of(events)).decode()


def test_an_html_stream_is_by_the_letter() -> None:
    events: list[Event] = [
        Start(id=ID, model='m"<'),
        Reasoning("a < b"),
        Delta("<b>\n & \"'"),
        Done(finish_reason="stop", usage=USAGE),
    ]
    assert html_of(events) == (
        "retry: 2000\n"
        f'event: start\ndata: <span data-answer="{ID}" data-model="m&quot;&lt;"></span>\nid: {ID}.0\n\n'
        f"event: reasoning\ndata: a &lt; b\nid: {ID}.1\n\n"
        f"data: &lt;b&gt;<br> &amp; &quot;&#x27;\nid: {ID}.2\n\n"
        f'event: done\ndata: <span data-finish-reason="stop"></span>\nid: {ID}.3\n\n'
    )


@pytest.mark.parametrize("reason", ["length", "content_filter", "cancelled"])
def test_an_answer_that_was_cut_says_so_in_its_text_before_its_end(reason: str) -> None:
    note, done = events_of_html(
        html_of([Start(id=ID, model="m"), Delta("Hi"), Done(finish_reason=reason)]).encode()
    )[2:]
    assert set(note) == {"data"}  # unnamed, so that every page shows it; without an id: it comes with the end
    assert note["data"].startswith('<em role="status">')
    assert done["data"] == f'<span data-finish-reason="{reason}"></span>'


def test_a_failure_in_html_is_an_alert_and_then_the_end() -> None:
    error = UpstreamProtocol("cut", content='<img src="x">')
    note, done = events_of_html(html_of([Start(id=ID, model="m"), failure(error, "r")]).encode())[1:]
    assert note["data"] == '<strong role="alert">&lt;img src=&quot;x&quot;&gt;</strong>'
    assert done["data"] == '<span data-error="upstream_protocol_error"></span>'


def test_a_fault_of_one_reading_of_html_has_no_id_to_resume_behind() -> None:
    encoder = html_fragments.HtmlEncoder(ID, 3)
    found = events_of_html(encoder.encode_fault(msgspec.json.encode(failure(Draining(), "r"))))
    assert [event.get("event") for event in found] == [None, "done"]
    assert not any("id" in event for event in found)


# The JSON body.


def test_a_json_body_is_the_message_and_how_it_came_about() -> None:
    events: list[Event] = [
        Start(id=ID, model="m"),
        Delta("H"),
        Delta("i"),
        Done(finish_reason="length", usage=USAGE),
    ]
    assert msgspec.to_builtins(json_body.collect(entries_of(events))) == {
        "role": "assistant",
        "content": "Hi",
        "finish_reason": "length",
        "usage": {"prompt_tokens": 10, "completion_tokens": 8, "total_tokens": 18},
        "id": ID,
        "model": "m",
    }


def test_a_json_body_has_the_reasoning_where_there_was_some() -> None:
    events: list[Event] = [
        Start(id=ID, model="m"),
        Reasoning("a"),
        Reasoning("b"),
        Done(finish_reason="stop"),
    ]
    answer = json_body.collect(entries_of(events))
    assert (answer.reasoning, answer.content, answer.usage) == ("ab", "", None)


# From a code in a log back to an error with its status.


def kinds_below(base: type[ChatError]) -> list[type[ChatError]]:
    return [kind for sub in base.__subclasses__() for kind in (sub, *kinds_below(sub))]


@pytest.mark.parametrize("kind", [kind for kind in kinds_below(ChatError) if "code" in vars(kind)])
def test_a_failure_tells_the_same_error_that_it_was_made_of(kind: type[ChatError]) -> None:
    error = error_of(failure(kind("why", retryable=True), "r"))
    assert (type(error), error.status, error.details, error.retryable) == (kind, kind.status, "why", True)


def test_a_code_of_a_newer_version_is_an_internal_error() -> None:
    body = msgspec.structs.replace(failure(Draining(), "r"), error="newer")
    assert isinstance(error_of(body), InternalError)
