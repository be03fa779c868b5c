"""AG-UI's and OpenAI's streams, event by event."""

from typing import Any

import msgspec
import pytest

from chat_sse.errors import (
    ChatError,
    InternalError,
    InvalidRequest,
    NotFound,
    TooManyRequests,
    Unauthenticated,
    UpstreamProtocol,
    UpstreamRateLimit,
    UpstreamRejected,
    UpstreamUnavailable,
)
from chat_sse.events import Delta, Done, Event, Reasoning, Usage
from chat_sse.formats.ag_ui import AgUiFormat
from chat_sse.formats.base import Asked
from chat_sse.formats.openai import OpenAiBodyFormat, OpenAiFormat, completion, error_object
from tests.inside.formats.exchange import DELIVERY, END, FAILED, HI, KINDS, START, Exchange, sent
from tests.support.fakes import STOPPED

USAGE = Usage(prompt_tokens=1, completion_tokens=2, total_tokens=3)
MESSAGES = [{"role": "user", "content": "Hello!"}]


def told(exchange: Exchange) -> list[tuple[str | None, Any]]:
    """Return each event's id and data."""
    found = []
    for block in exchange.body.decode().split("\n\n")[:-1]:
        fields = dict(line.split(": ", 1) for line in block.split("\n"))
        data = fields["data"]
        found.append((fields.get("id"), data if data == "[DONE]" else msgspec.json.decode(data)))
    return found


def read(wire: str, **fields: Any) -> Asked:
    return KINDS[wire].read(msgspec.json.encode({"messages": MESSAGES, **fields}), allows_system=False)


# AG-UI.

REASONING, TEXT = {"messageId": "s-reasoning"}, {"messageId": "s"}


async def test_a_run_opens_and_closes_its_messages_in_their_order() -> None:
    asked = read("ag-ui", threadId="t", runId="r")
    end = Done(finish_reason="length", usage=USAGE)
    exchange = await sent(
        asked.format, START, Reasoning("h"), Reasoning("m"), HI, Delta("!"), Reasoning("o"), end
    )
    run = {"threadId": "t", "runId": "r"}
    usage = {"model": "m", "inputTokens": 1, "outputTokens": 2, "totalTokens": 3}
    finished = {"result": {"finishReason": "length"}, "usage": [usage]}
    reasons = {"type": "REASONING_MESSAGE_START", **REASONING, "role": "reasoning"}
    assert told(exchange) == [
        ("s.0", {"type": "RUN_STARTED", **run, "protocolVersion": "1.0"}),
        (None, {"type": "REASONING_START", **REASONING}),
        (None, reasons),
        ("s.1", {"type": "REASONING_MESSAGE_CONTENT", **REASONING, "delta": "h"}),
        ("s.2", {"type": "REASONING_MESSAGE_CONTENT", **REASONING, "delta": "m"}),
        (None, {"type": "REASONING_MESSAGE_END", **REASONING}),
        (None, {"type": "REASONING_END", **REASONING}),
        (None, {"type": "TEXT_MESSAGE_START", **TEXT, "role": "assistant"}),
        ("s.3", {"type": "TEXT_MESSAGE_CONTENT", **TEXT, "delta": "Hi"}),
        ("s.4", {"type": "TEXT_MESSAGE_CONTENT", **TEXT, "delta": "!"}),
        (None, {"type": "TEXT_MESSAGE_END", **TEXT}),
        (None, {"type": "REASONING_START", **REASONING}),
        (None, reasons),
        ("s.5", {"type": "REASONING_MESSAGE_CONTENT", **REASONING, "delta": "o"}),
        (None, {"type": "REASONING_MESSAGE_END", **REASONING}),
        (None, {"type": "REASONING_END", **REASONING}),
        ("s.6", {"type": "RUN_FINISHED", **run, **finished}),
    ]


async def test_a_run_without_ids_has_the_answers_and_one_without_a_word_has_no_message() -> None:
    exchange = await sent("ag-ui", START, END)
    run = {"threadId": "s", "runId": "s"}
    assert told(exchange) == [
        ("s.0", {"type": "RUN_STARTED", **run, "protocolVersion": "1.0"}),
        ("s.1", {"type": "RUN_FINISHED", **run, "result": {"finishReason": "stop"}}),
    ]


@pytest.mark.parametrize(
    ("end", "message", "code"),
    [(STOPPED, "The answer was stopped.", "cancelled"), (FAILED, FAILED.content, FAILED.error)],
)
async def test_a_run_that_is_not_whole_ends_with_an_error(end: Event, message: str, code: str) -> None:
    exchange = await sent("ag-ui", START, HI, end)
    assert told(exchange)[-1] == ("s.2", {"type": "RUN_ERROR", "message": message, "code": code})


def test_a_runs_id_is_its_key() -> None:
    assert read("ag-ui", threadId="t", runId="r").key == "r"
    assert read("ag-ui").key is None


# OpenAI.


def chunk(delta: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"index": 0, "delta": delta, "logprobs": None, "finish_reason": None, **more}


async def choices(asked: Asked, *events: Event) -> list[tuple[str | None, Any]]:
    """Return of each event its id and its one choice, its usage, or what it is instead."""
    found = []
    for event_id, data in told(await sent(asked.format, *events)):
        if isinstance(data, dict) and "choices" in data:
            assert (data["id"], data["object"], data["model"]) == ("s", "chat.completion.chunk", "m")
            found.append((event_id, *(data["choices"] or [data["usage"]])))
        else:
            found.append((event_id, data))
    return found


async def test_a_completion_is_a_chunk_an_event_and_ends_with_done() -> None:
    end = Done(finish_reason="length", usage=USAGE)
    expected = [
        ("s.0", chunk({"role": "assistant", "content": ""})),
        ("s.1", chunk({"reasoning_content": "hm"})),
        ("s.2", chunk({"content": "Hi"})),
        (None, chunk({}, finish_reason="length")),
        ("s.3", "[DONE]"),
    ]
    assert await choices(read("openai", stream=True), START, Reasoning("hm"), HI, end) == expected
    tells = read("openai", stream=True, stream_options={"include_usage": True})
    usage = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}
    found = await choices(tells, START, Reasoning("hm"), HI, end)
    assert found == [*expected[:-1], (None, usage), expected[-1]]
    first = told(await sent(tells.format, START, END))
    assert first[0][1]["usage"] is None
    assert len(first) == 3  # upstream told no usage
    for silent in ({"include_usage": False}, {}):
        assert await choices(read("openai", stream=True, stream_options=silent), START, HI, end) == [
            *(expected[0], ("s.1", expected[2][1]), (None, expected[3][1]), ("s.2", "[DONE]")),
        ]


async def test_an_end_without_a_reason_is_a_stop() -> None:
    [*_, last, _] = await choices(read("openai", stream=True), START, HI, Done(finish_reason=None))
    assert last == (None, chunk({}, finish_reason="stop"))
    entries = [msgspec.json.encode(event) for event in (START, HI, Done(finish_reason=None))]
    assert completion(entries, 1).choices[0].finish_reason == "stop"


@pytest.mark.parametrize(
    ("end", "code"), [(STOPPED, "internal_error"), (FAILED, FAILED.error)], ids=["stopped", "failed"]
)
async def test_a_completion_that_is_not_whole_is_broken_off_behind_its_error(end: Event, code: str) -> None:
    exchange = await sent("openai", START, HI, end)
    event_id, last = told(exchange)[-1]
    assert (event_id, last["error"]["code"], exchange.is_whole) == ("s.2", code, False)
    with pytest.raises(ChatError) as caught:
        completion([msgspec.json.encode(event) for event in (START, HI, end)], 1)
    assert caught.value.code == code
    assert caught.value.retryable is (end is FAILED)


async def test_a_whole_body_has_what_a_stream_tells() -> None:
    end = Done(finish_reason="length", usage=USAGE)
    exchange = await sent(read("openai").format, START, Reasoning("hm"), HI, end)
    body = msgspec.json.decode(exchange.body)
    assert (body["id"], body["object"], body["model"]) == ("s", "chat.completion", "m")
    assert body["usage"] == {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}
    [choice] = body["choices"]
    assert (choice["message"]["content"], choice["message"]["reasoning_content"]) == ("Hi", "hm")
    assert choice["finish_reason"] == "length"
    without = msgspec.json.decode((await sent(read("openai").format, START, HI, END)).body)
    assert "usage" not in without
    assert "reasoning_content" not in without["choices"][0]["message"]


def test_a_body_asks_for_its_form() -> None:
    assert isinstance(read("openai", stream=True).format, OpenAiFormat)
    assert isinstance(read("openai").format, OpenAiBodyFormat)
    assert isinstance(read("openai-body", stream=True).format, OpenAiFormat)


# All.


@pytest.mark.parametrize("wire", ["ag-ui", "openai"])
async def test_who_comes_back_gets_what_follows_and_what_was_not_complete_once_more(wire: str) -> None:
    events = START, HI, Delta("!"), END
    whole = told(await sent(wire, *events))
    resumed = told(await sent(wire, *events, after=1))
    for _, data in (*whole, *resumed):
        if isinstance(data, dict):
            data.pop("created", None)
    assert resumed == whole[[event_id for event_id, _ in whole].index("s.1") + 1 :]


@pytest.mark.parametrize("wire", ["ag-ui", "openai"])
async def test_an_error_of_one_reading_has_no_number(wire: str) -> None:
    exchange = Exchange(wire, error=InternalError("gone"))
    exchange.log.append([START, HI])
    await exchange.run()
    [*_, (event_id, last)] = told(exchange)
    assert event_id is None
    assert (last.get("code") or last["error"]["code"]) == "internal_error"


@pytest.mark.parametrize(
    ("wire", "resumable", "has_ids", "replays", "reads_body", "is_sequential"),
    [
        ("ag-ui", True, True, True, True, True),
        ("openai", True, True, True, True, True),
        ("openai-body", True, False, False, True, False),
    ],
)
def test_what_each_can_do(
    wire: str, *, resumable: bool, has_ids: bool, replays: bool, reads_body: bool, is_sequential: bool
) -> None:
    fmt = KINDS[wire]
    assert (fmt.resumable, fmt.has_ids, fmt.replays) == (resumable, has_ids, replays)
    assert (fmt.reads_body, fmt.is_sequential) == (reads_body, is_sequential)


@pytest.mark.parametrize(
    ("error", "status", "kind", "param"),
    [
        (InvalidRequest("Expected `int` - at `$.max_tokens`"), 400, "invalid_request_error", "max_tokens"),
        (Unauthenticated("no key"), 401, "authentication_error", None),
        (NotFound("there"), 404, "invalid_request_error", None),
        (TooManyRequests("limit: 1"), 429, "rate_limit_error", None),
        (UpstreamRateLimit("slowly"), 429, "rate_limit_error", None),
        (UpstreamRejected("no"), 400, "invalid_request_error", None),
        (UpstreamUnavailable("down"), 503, "server_error", None),
        (InternalError("oh"), 500, "server_error", None),
    ],
)
def test_errors_are_openais(error: ChatError, status: int, kind: str, param: str | None) -> None:
    refusal = OpenAiFormat.refusal(error, "r")
    told = error_object(error).error
    assert refusal.body == error_object(error)
    assert (refusal.status, told.type, told.param, told.code) == (status, kind, param, error.code)
    is_clients = kind == "invalid_request_error"
    assert told.message == ((error.details or error.content) if is_clients else error.content)
    again = error.retryable and not error.may_cost
    assert refusal.headers == ({} if again else {"x-should-retry": "false"})


def test_sdks_are_told_not_to_pay_twice() -> None:
    paid = UpstreamProtocol("cut", may_cost=True)
    assert OpenAiFormat.refusal(paid, "r").headers == {"x-should-retry": "false"}
    assert error_object(InvalidRequest()).error.message == InvalidRequest().content


@pytest.mark.parametrize("kind", [AgUiFormat, OpenAiFormat, OpenAiBodyFormat])
def test_the_documents_example_is_a_whole_answer(
    kind: type[AgUiFormat | OpenAiFormat | OpenAiBodyFormat],
) -> None:
    end = Done(finish_reason="stop", usage=USAGE)
    example = str(kind.example([msgspec.json.encode(event) for event in (START, HI, end)]))
    assert "Hi" in example
    assert "stop" in example
    assert ("s.0" if kind is not OpenAiBodyFormat else "'id': 's'") in example
    assert "usage" in example.lower() if kind is not OpenAiFormat else "usage" not in example
    assert kind(DELIVERY).respond_to_head().status_code == 200
