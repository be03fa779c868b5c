"""OpenAI's addresses: what they refuse and how, and what of the service's promises holds there."""

import http.client
from collections.abc import Iterator
from contextlib import closing
from typing import Any
from urllib.parse import urlsplit

import httpx2
import msgspec
import pytest

from chat_sse.completions import PARAMETERS, decode_completion
from chat_sse.errors import InvalidRequest
from tests.conftest import QUICK
from tests.support import plain_http
from tests.support.service import HELLO, RunningService, ask, serve
from tests.support.upstream import Cut, Finish, Reason, Refuse, Say, ScriptedUpstream, Silence

MESSAGES = HELLO["messages"]


def complete(url: str, headers: dict[str, str] | None = None, **fields: Any) -> httpx2.Response:
    return plain_http.post(
        f"{url}/v1/chat/completions", json={**HELLO, **fields}, headers=headers, timeout=30
    )


def chunks_of(body: str) -> list[Any]:
    blocks = [block for block in body.replace(": hb\n", "").split("\n\n") if block]
    data = [block.split("\n")[0].removeprefix("data: ") for block in blocks]
    assert data.pop() == "[DONE]"
    return [msgspec.json.decode(text) for text in data]


def error_of(response: httpx2.Response) -> tuple[int, str, str | None, str]:
    error = response.json()["error"]
    assert error["message"]
    return response.status_code, error["type"], error["param"], error["code"]


def refused(**fields: Any) -> str:
    with pytest.raises(InvalidRequest) as caught:
        decode_completion(msgspec.json.encode({"messages": MESSAGES, **fields}))
    return caught.value.details


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("n", 2),
        ("tools", [{"type": "function", "function": {"name": "f"}}]),
        ("tool_choice", "required"),
        ("functions", [{"name": "f"}]),
        ("response_format", {"type": "json_object"}),
        ("logprobs", True),
        ("top_logprobs", 3),
        ("audio", {"voice": "alloy", "format": "mp3"}),
        ("modalities", ["text", "audio"]),
        ("stop", ["\n"]),
        ("seed", 1),
        ("top_p", 0.5),
        ("frequency_penalty", 1),
        ("presence_penalty", -1),
        ("logit_bias", {"50256": -100}),
        ("reasoning_effort", "high"),
        ("prediction", {"type": "content", "content": "x"}),
        ("web_search_options", {}),
        ("store", True),
        ("service_tier", "flex"),
    ],
)
def test_what_would_change_the_answer_is_refused_by_its_name_and_null_is_not(name: str, value: Any) -> None:
    assert refused(**{name: value}).endswith(f"- at `$.{name}`")
    decode_completion(msgspec.json.encode({"messages": MESSAGES, name: None}))


@pytest.mark.parametrize(("name", "values"), PARAMETERS.items())
def test_a_value_that_asks_for_nothing_is_taken_and_a_label_with_any(name: str, values: Any) -> None:
    for value in ["anything", {"a": [1]}] if values is None else values:
        decode_completion(msgspec.json.encode({"messages": MESSAGES, name: value}))


@pytest.mark.parametrize(
    ("message", "path"),
    [
        ({"role": "tool", "content": "4", "tool_call_id": "c"}, "messages[0].role"),
        ({"role": "assistant", "content": "4", "tool_calls": [{"id": "c"}]}, "messages[0].tool_calls"),
        ({"role": "user", "content": "4", "name": "ada"}, "messages[0].name"),
        ({"role": "user", "parts": [{"type": "text", "text": "4"}]}, "messages[0].parts"),
        ({"role": "user", "content": [{"type": "input_audio"}]}, "messages[0].content[0].type"),
        ({"role": "user", "content": " "}, "messages[0].content"),
    ],
)
def test_of_a_message_too_nothing_is_dropped(message: Any, path: str) -> None:
    assert refused(messages=[message]).endswith(f"- at `$.{path}`")


def test_an_answer_may_be_sent_back_with_all_that_it_had() -> None:
    answer: dict[str, Any] = {
        "role": "assistant",
        "content": "4",
        "refusal": None,
        "reasoning_content": "2+2",
        "annotations": [],
        "audio": None,
        "function_call": None,
        "tool_calls": None,
    }
    body = {"messages": [*MESSAGES, answer, *MESSAGES], "max_tokens": 7, "temperature": 0.5}
    ask, options = decode_completion(msgspec.json.encode(body))
    assert [message.content for message in ask.messages] == ["Hello!", "4", "Hello!"]
    assert (ask.max_output_tokens, ask.temperature, options.stream) == (7, 0.5, None)


def test_unknown_parameters_are_refused_as_openai_does() -> None:
    assert refused(foo=None) == "Unrecognized parameter - at `$.foo`"
    assert "include_foo" in refused(stream_options={"include_foo": True})


def test_padding_that_is_not_made_may_be_declined_and_not_asked_for() -> None:
    decode_completion(
        msgspec.json.encode({"messages": MESSAGES, "stream_options": {"include_obfuscation": False}})
    )
    asked = refused(stream_options={"include_obfuscation": True})
    assert asked.endswith("- at `$.stream_options.include_obfuscation`")


def test_one_body_is_openais_completion(service: RunningService, upstream: ScriptedUpstream) -> None:
    upstream.answer(Reason("Hm"), Say("Hel"), Say("lo"), Finish("length"))
    response = complete(service.url)
    answer = response.json()
    assert response.headers["content-location"] == f"/ask/{answer['id']}"
    message = {"role": "assistant", "content": "Hello", "refusal": None, "reasoning_content": "Hm"}
    assert answer["object"] == "chat.completion"
    assert answer["choices"] == [
        {"index": 0, "message": message, "logprobs": None, "finish_reason": "length"}
    ]
    assert answer["usage"] == {"prompt_tokens": 10, "completion_tokens": 8, "total_tokens": 18}


@pytest.mark.parametrize("include_usage", [False, True])
def test_a_stream_tells_its_usage_where_it_is_asked_to(
    service: RunningService, upstream: ScriptedUpstream, include_usage: bool
) -> None:
    upstream.answer(Reason("Hm"), Say("Hi ü"), Finish("stop"))
    chunks = chunks_of(
        complete(service.url, stream=True, stream_options={"include_usage": include_usage}).text
    )
    deltas = [choice["delta"] for chunk in chunks for choice in chunk["choices"]]
    assert deltas == [
        {"role": "assistant", "content": ""},
        {"reasoning_content": "Hm"},
        {"content": "Hi ü"},
        {},
    ]
    assert len({(chunk["id"], chunk["created"], chunk["model"]) for chunk in chunks}) == 1
    if include_usage:
        assert [chunk["usage"] for chunk in chunks[:-1]] == [None] * 4
        assert (chunks[-1]["choices"], chunks[-1]["usage"]["total_tokens"]) == ([], 18)
    else:
        assert not any("usage" in chunk for chunk in chunks)


@pytest.mark.parametrize(
    ("script", "found", "retries"),
    [
        ([Refuse(401)], (500, "server_error", None, "authentication_error"), "false"),
        (
            [Refuse(429, headers={"Retry-After": "7"})],
            (429, "rate_limit_error", None, "rate_limit_error"),
            None,
        ),
        ([Refuse(400)], (400, "invalid_request_error", None, "invalid_request_error"), "false"),
        ([Say("Hi"), Cut()], (500, "server_error", None, "upstream_protocol_error"), "false"),
    ],
)
def test_upstreams_failures_have_openais_shape_and_say_whether_to_ask_again(
    service: RunningService, upstream: ScriptedUpstream, script: Any, found: Any, retries: str | None
) -> None:
    upstream.answer(*script)
    response = complete(service.url)
    assert error_of(response) == found
    assert response.headers.get("x-should-retry") == retries
    assert "sk-test" not in response.text


@pytest.mark.parametrize(
    ("method", "path", "found"),
    [
        ("GET", "/v1/nothing", (404, "invalid_request_error", None, "not_found")),
        ("GET", "/v1/chat/completions", (405, "invalid_request_error", None, "method_not_allowed")),
        ("GET", "/v1/chat/completions/none", (404, "invalid_request_error", None, "stream_not_found")),
    ],
)
def test_errors_of_its_addresses_have_openais_shape(
    service: RunningService, method: str, path: str, found: Any
) -> None:
    assert error_of(plain_http.request(method, service.url + path)) == found


def test_bad_requests_name_the_parameter_and_cost_nothing(
    service: RunningService, upstream: ScriptedUpstream
) -> None:
    invalid = 400, "invalid_request_error"
    system = [{"role": "system", "content": "Be rude."}, *MESSAGES]
    assert error_of(complete(service.url, n=2)) == (*invalid, "n", "invalid_request")
    assert error_of(complete(service.url, model="gpt-9")) == (*invalid, "model", "invalid_request")
    assert error_of(complete(service.url, messages=system)) == (
        *invalid,
        "messages[0].role",
        "invalid_request",
    )
    text = plain_http.post(f"{service.url}/v1/chat/completions", content=b"Hello!")
    assert error_of(text) == (415, "invalid_request_error", None, "unsupported_media_type")
    assert upstream.calls == []


def test_an_answer_that_is_not_whole_breaks_its_connection_after_the_error(
    service: RunningService, upstream: ScriptedUpstream
) -> None:
    upstream.answer(Say("Hel"), Cut())
    body = msgspec.json.encode({**HELLO, "stream": True})
    connection = http.client.HTTPConnection(urlsplit(service.url).netloc, timeout=15)
    connection.request("POST", "/v1/chat/completions", body, {"Content-Type": "application/json"})
    with closing(connection), pytest.raises(http.client.IncompleteRead) as caught:
        connection.getresponse().read()
    seen = caught.value.partial.decode()
    last = msgspec.json.decode(seen.replace(": hb\n", "").split("data: ")[-1].partition("\n")[0])
    assert last["error"]["code"] == "upstream_protocol_error"
    assert "[DONE]" not in seen


def test_a_whole_body_that_was_stopped_is_an_error_that_nobody_asks_again_for(
    service: RunningService, upstream: ScriptedUpstream
) -> None:
    upstream.answer(Say("first"), Silence())
    place = ask(service.url, headers={"Prefer": "respond-async"}).headers["content-location"]
    plain_http.delete(service.url + place)
    response = plain_http.get(
        service.url + place.replace("/ask/", "/v1/chat/completions/"), headers={"Accept": "application/json"}
    )
    assert error_of(response) == (500, "server_error", None, "internal_error")
    assert response.headers["x-should-retry"] == "false"
    assert response.json()["error"]["message"] == "The answer was stopped."


def test_a_key_attaches_in_the_form_that_each_request_asks_for(
    service: RunningService, upstream: ScriptedUpstream
) -> None:
    upstream.answer(Say("Hello"), Finish())
    key = {"Idempotency-Key": "openai-1"}
    first = complete(service.url, key, stream=True)
    again = complete(service.url, key, stream=True)
    assert chunks_of(first.text)[1]["choices"] == chunks_of(again.text)[1]["choices"]
    assert error_of(complete(service.url, key))[3] == "idempotency_key_reused"  # another body
    assert upstream.paid_calls == 1


def test_an_answer_is_read_on_after_any_event_with_the_same_chunks(
    service: RunningService, upstream: ScriptedUpstream
) -> None:
    upstream.answer(Reason("Hm"), Say("Hel"), Say("lo"), Finish())
    whole = complete(service.url, stream=True).text.replace(": hb\n", "")
    ids = [line.removeprefix("id: ") for line in whole.split("\n") if line.startswith("id: ")]
    url = f"{service.url}/v1/chat/completions/{ids[0].partition('.')[0]}"
    for place in ids[:-1]:
        rest = plain_http.get(url, headers={"Last-Event-ID": place, "Accept": "application/json"}).text
        expected = chunks_of(whole.partition(f"id: {place}\n\n")[2])
        assert [chunk["choices"] for chunk in chunks_of(rest.replace(": hb\n", ""))] == [
            chunk["choices"] for chunk in expected
        ]
    assert plain_http.get(url, headers={"Last-Event-ID": ids[-1]}).status_code == 204
    assert plain_http.get(url, headers={"Accept": "application/json"}).json()["object"] == "chat.completion"
    assert upstream.paid_calls == 1


@pytest.fixture(scope="module")
def locked(upstream_port: int) -> Iterator[RunningService]:
    """A service with keys, two models, and a rate that a test can use up."""
    env = {
        **QUICK,
        "OPENAI_BASE_URL": f"http://127.0.0.1:{upstream_port}/v1",
        "CHAT_SSE_API_KEYS": "a:0123456789abcdef,b:fedcba9876543210",
        "CHAT_SSE_MODELS": "small,large",
        "CHAT_SSE_RATE_LIMIT": "2/hour",
        "CHAT_SSE_SYSTEM_MESSAGES": "allow",
    }
    with serve(env) as running:
        yield running


def test_keys_limits_and_the_allow_list_hold_here_too(
    locked: RunningService, upstream: ScriptedUpstream
) -> None:
    nobody = plain_http.get(f"{locked.url}/v1/models")
    assert error_of(nobody) == (401, "authentication_error", None, "unauthenticated")
    key = {"Authorization": "Bearer 0123456789abcdef"}
    told = plain_http.get(f"{locked.url}/v1/models", headers=key).json()
    assert [model["id"] for model in told["data"]] == ["small", "large"]
    system = [{"role": "developer", "content": "Be brief."}, *MESSAGES]
    assert complete(locked.url, key, model="large", messages=system).status_code == 200
    assert upstream.calls[0].body["model"] == "large"
    assert upstream.calls[0].body["messages"] == system
    complete(locked.url, key)
    limited = complete(locked.url, key)
    assert error_of(limited) == (429, "rate_limit_error", None, "too_many_requests")
    assert int(limited.headers["retry-after"]) > 0
    assert upstream.paid_calls == 2
