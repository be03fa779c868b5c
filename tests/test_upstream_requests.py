"""What upstream is asked, in which words, and what a refusal costs: nothing, and no memory."""

import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from chat_sse.messages import Message, Question
from chat_sse.target import base_url_faults, body_faults, header_faults, split_base_url
from chat_sse.upstreams.openai.request_body import Dialect, RequestWriter, adapted, safety_identifier
from tests.conftest import QUICK
from tests.support.service import RunningService, ask, events, serve, text_of
from tests.support.upstream import Accept, Cut, Eof, Finish, Raw, Refuse, Say, ScriptedUpstream, Step, Wire


def refusing(upstream: ScriptedUpstream, *refusals: tuple[int, Any]) -> None:
    """Refuse so many calls, and answer the next."""
    for status, body in refusals:
        upstream.answer_next(Refuse(status, body))
    upstream.answer(Say("Hi"), Finish())


@pytest.fixture
def own_service(upstream: ScriptedUpstream) -> Iterator[RunningService]:
    """A service that has learned nothing yet."""
    with serve({**QUICK, "OPENAI_BASE_URL": upstream.base_url}) as running:
        yield running


def openai_error(message: str, **more: Any) -> dict[str, Any]:
    return {"error": {"message": message, "type": "invalid_request_error", **more}}


WORDS = [
    (400, openai_error("Unsupported parameter: 'max_tokens' is not supported with this model.")),
    (400, openai_error("Unknown name", param="max_tokens", code="unsupported_parameter")),
    (404, {"detail": "unexpected field max_tokens"}),
    (422, {"detail": [{"type": "extra_forbidden", "loc": ["body", "max_tokens"], "msg": "Extra inputs"}]}),
    (422, {"errors": {"max_tokens": ["This field is not permitted."]}}),
    (400, [{"error": {"code": 400, "message": 'Invalid JSON payload. Unknown name "max_tokens"'}}]),
    (400, b"max_tokens: unrecognized argument"),
]


@pytest.mark.parametrize(("status", "body"), WORDS)
def test_a_refused_cap_is_asked_for_in_its_other_word_and_remembered(
    own_service: RunningService, upstream: ScriptedUpstream, status: int, body: Any
) -> None:
    refusing(upstream, (status, body))
    assert text_of(events(ask(own_service.url))) == "Hi"
    assert text_of(events(ask(own_service.url))) == "Hi"
    sent = [call.body for call in upstream.calls]
    assert [("max_tokens" in body, "max_completion_tokens" in body) for body in sent] == [
        (True, False),
        (False, True),
        (False, True),
    ]
    assert sent[1]["max_completion_tokens"] == sent[0]["max_tokens"]
    assert upstream.paid_calls == 2


@pytest.mark.parametrize(
    ("before", "status", "message", "after"),
    [
        ("max_tokens", 400, "Use 'max_completion_tokens' instead of max_tokens.", "max_completion_tokens"),
        ("max_tokens", 404, "Argument not supported on this model: max_tokens", "max_completion_tokens"),
        ("max_tokens", 400, "max_tokens is deprecated, the maximum is ignored", "max_completion_tokens"),
        ("max_completion_tokens", 422, "Unknown field: max_completion_tokens", "max_tokens"),
        ("max_completion_tokens", 400, "Unrecognized request argument: max_completion_tokens", "max_tokens"),
    ],
)
def test_a_cap_is_swapped_in_both_directions(before: str, status: int, message: str, after: str) -> None:
    body = msgspec.json.encode(openai_error(message))
    assert adapted(Dialect(before), status, body) == Dialect(after)
    both = msgspec.json.encode(openai_error(f"{message} stream_options"))
    assert adapted(Dialect(before), status, both) == Dialect(after, stream_options=False)


def test_refused_stream_options_and_then_a_refused_cap_are_three_calls_and_one_paid(
    own_service: RunningService, upstream: ScriptedUpstream
) -> None:
    refusing(
        upstream,
        (422, {"message": {"detail": [{"type": "extra_forbidden", "loc": ["body", "stream_options"]}]}}),
        (400, openai_error("max_tokens is not supported", param="max_tokens")),
    )
    assert text_of(events(ask(own_service.url))) == "Hi"
    assert (len(upstream.calls), upstream.paid_calls) == (3, 1)
    last = upstream.calls[-1].body
    assert "stream_options" not in last
    assert "max_completion_tokens" in last


def test_words_that_do_not_help_are_forgotten_and_the_refusal_is_told(
    own_service: RunningService, upstream: ScriptedUpstream
) -> None:
    upstream.answer(Refuse(400, openai_error("max_tokens and max_completion_tokens are not supported")))
    response = ask(own_service.url)
    assert (response.status_code, response.json()["error"]) == (500, "invalid_request_error")
    assert (len(upstream.calls), upstream.paid_calls) == (2, 0)
    upstream.answer(Say("Hi"), Finish())
    events(ask(own_service.url))
    assert "max_tokens" in upstream.calls[-1].body


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (400, openai_error("max_tokens is too large: 9. This model supports at most 4 completion tokens")),
        (400, openai_error("maximum context length is 4096 tokens; reduce the messages or max_tokens")),
        (400, openai_error("This model takes up to 4096 max_tokens")),
        (400, openai_error("max_tokens must be at most 4 instead of 9")),
        (422, {"detail": [{"loc": ["body", "max_tokens"], "msg": "Input should be less than 9"}]}),
        (429, openai_error("Rate limit: lower max_tokens", code="rate_limit_exceeded")),
        (401, openai_error("max_tokens")),
        (422, {"detail": [{"loc": ["body", "messages"], "input": {"max_tokens": 1, "stream_options": {}}}]}),
        (500, openai_error("max_tokens is not supported")),
        (400, openai_error("bad image")),
    ],
)
def test_a_refusal_that_is_not_about_words_changes_none(status: int, body: Any) -> None:
    assert adapted(Dialect("max_tokens"), status, msgspec.json.encode(body)) is None


@pytest.mark.parametrize(
    ("written", "base", "query"),
    [
        ("https://h/v1", "https://h/v1", ""),
        ("https://h/v1/", "https://h/v1", ""),
        ("https://h/v1/chat/completions", "https://h/v1", ""),
        ("https://h/v1/chat/completions/", "https://h/v1", ""),
        (
            "https://h/o/d/x/chat/completions?api-version=2024-10-21",
            "https://h/o/d/x",
            "api-version=2024-10-21",
        ),
        ("https://h/v1?api-version=1&a=b%2Bc", "https://h/v1", "api-version=1&a=b%2Bc"),
        ("https://h", "https://h", ""),
    ],
)
def test_a_base_url_is_split_from_its_query_and_endpoint(written: str, base: str, query: str) -> None:
    assert split_base_url(written) == (base, query)
    assert not [*base_url_faults("X", written)]


@pytest.mark.parametrize(
    "url",
    [
        "h/v1",
        "ftp://h/v1",
        "https://",
        "https://h:port/v1",
        "https://h/v1#canary",
        "https://<canary>.openai.azure.com/openai/v1",
        "https://YOUR-RESOURCE.openai.azure.com/openai/v1",
        "https://h/v1/responses",
        "https://h/v1/completions",
        "https://h/v1/models?x=1",
        "https://h/v1/chat",
        "https://api.openai.com",
        "https://api.openai.com/",
    ],
)
def test_a_base_url_that_cannot_be_right_is_a_fault_that_does_not_quote_it(url: str) -> None:
    faults = [*base_url_faults("OPENAI_BASE_URL", url)]
    assert len(faults) == 1
    assert faults[0].startswith("OPENAI_BASE_URL ")
    assert "canary" not in faults[0]


@pytest.mark.parametrize(
    "body",
    [
        {"messages": []},
        {"stream": False},
        {"N": 2},
        {"model": "m"},
        {"stream_options": {}},
        {"max_tokens": 4097},
        {"max_completion_tokens": None},
        {"max_tokens": 1.5},
        {"max_tokens": True},
        {"max_output_tokens": 0},
        {"Max_Tokens": 1},
    ],
)
def test_a_body_cannot_override_what_the_service_guarantees(body: dict[str, Any]) -> None:
    assert len([*body_faults("X", body, 4096)]) == 1


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "a"},
        {"content-length": "1"},
        {"Accept-Encoding": "gzip"},
        {"X-A": "a\r\nX-B: canary"},
        {"X A": "a"},
        {"X-A": "café"},
        {"X-A": "1", "x-a": "2"},
        {"": "a"},
    ],
)
def test_headers_that_would_break_a_request_are_a_fault(headers: dict[str, str]) -> None:
    faults = [*header_faults("X", headers)]
    assert len(faults) == 1
    assert "canary" not in faults[0]


def question(**more: Any) -> Question:
    return Question(messages=[Message(role="user", content="Hi")], model="m", max_output_tokens=100, **more)


def test_the_operators_cap_lowers_the_services_and_never_raises_it() -> None:
    for cap, expected in ((10, 10), (1000, 100)):
        writer = RequestWriter("http://h/v1", extra={"max_completion_tokens": cap, "top_p": 0.5})
        sent = msgspec.json.decode(writer.body(question(temperature=1.0), writer.dialect("m")))
        assert (sent["max_tokens"], sent["top_p"], sent["temperature"]) == (expected, 0.5, 1.0)
        assert "max_completion_tokens" not in sent


@pytest.mark.parametrize(
    ("base_url", "expected"),
    [
        ("https://api.openai.com/v1", True),
        ("https://eu.api.openai.com/v1", True),
        ("https://x.openai.azure.com/openai/v1", False),
        ("https://api.openai.com.example/v1", False),
        ("https://notopenai.com/v1", False),
        ("http://127.0.0.1/v1", False),
    ],
)
def test_only_openais_own_hosts_are_told_a_keyed_hash_of_the_client(base_url: str, expected: bool) -> None:
    asked = question(client="203.0.113.7")
    writer = RequestWriter(base_url, identifier_key=b"k" * 32)
    body = writer.body(asked, writer.dialect("m"))
    assert (safety_identifier(b"k" * 32, "203.0.113.7").encode() in body) is expected
    assert b"203.0.113.7" not in body
    silent = RequestWriter(base_url)
    assert b"safety_identifier" not in silent.body(asked, silent.dialect("m"))


def test_a_safety_identifier_depends_on_the_key_and_the_client_and_fits() -> None:
    found = {safety_identifier(key, client) for key in (b"a", b"b") for client in ("web", "app")}
    assert len(found) == 4
    assert {len(one) for one in found} == {64}
    assert safety_identifier(b"a", "web") == safety_identifier(b"a", "web")


def test_the_operators_body_headers_and_query_reach_upstream(upstream: ScriptedUpstream) -> None:
    more = {
        "OPENAI_BASE_URL": f"{upstream.base_url}/chat/completions?api-version=preview&x=a%2Bb",
        "CHAT_SSE_REQUEST_BODY": '{"reasoning_effort":"low","provider":{"sort":"price"},"max_tokens":5}',
        "CHAT_SSE_REQUEST_HEADERS": '{"X-Team":"canary-header","authorization":"Token canary-token"}',
    }
    with serve({**QUICK, **more}) as service:
        upstream.answer_next(Refuse(401, {"error": {"message": "no canary-header here"}}))
        refused = ask(service.url)
        events(ask(service.url))
        assert "canary" not in service.log() + refused.text
    call = upstream.calls[-1]
    assert (call.body["reasoning_effort"], call.body["provider"]) == ("low", {"sort": "price"})
    assert call.body["max_tokens"] == 5
    assert (call.headers["x-team"], call.headers["authorization"]) == ("canary-header", "Token canary-token")
    assert call.path == "/v1/chat/completions"
    assert call.target.endswith("/v1/chat/completions?api-version=preview&x=a%2Bb")
    assert upstream.paid_calls == 1


@pytest.mark.parametrize("sent", ["7.66", "inf", "nan", "-5", "9" * 5000, "1e999"])
def test_upstreams_wait_never_breaks_its_refusal(
    own_service: RunningService, upstream: ScriptedUpstream, sent: str
) -> None:
    upstream.answer(Refuse(429, headers={"retry-after": sent, "x-should-retry": "false"}))
    response = ask(own_service.url)
    assert (response.status_code, response.json()["error"]) == (500, "rate_limit_error")
    assert response.headers.get("retry-after", "8") == "8"


def bomb(coding: str) -> bytes:
    packed = (
        gzip.compress(b"\0" * 400_000_000, 9) if coding == "gzip" else zlib.compress(b"\0" * 400_000_000, 9)
    )
    return gzip.compress(packed, 9)


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
def test_an_error_body_compressed_twice_is_told_and_costs_no_memory(
    own_service: RunningService, upstream: ScriptedUpstream, coding: str
) -> None:
    upstream.answer(
        Refuse(400, bomb(coding), {"content-encoding": f"{coding}, gzip", "content-type": "application/json"})
    )
    before = memory(own_service)
    response = ask(own_service.url)
    assert (response.status_code, response.json()["error"]) == (500, "invalid_request_error")
    assert memory(own_service) - before < 30_000_000
    assert upstream.paid_calls == 0


def memory(service: RunningService) -> int:
    """Return the most memory that the process has had, in bytes."""
    with Path(f"/proc/{service.process.pid}/status").open() as status:
        [line] = [line for line in status if line.startswith("VmHWM")]
    return int(line.split()[1]) * 1024


@pytest.mark.parametrize("way", ["direct", "proxy"])
def test_error_headers_that_are_not_ascii_are_no_fault_of_ours(upstream: ScriptedUpstream, way: str) -> None:
    head = (
        b"HTTP/1.1 500 caf\xe9\r\nX-Server: caf\xe9 \xff\r\nRetry-After: inf\r\nx-should-retry: false\r\n"
        b"Content-Encoding: gzip, gzip\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n"
    )
    packed = gzip.compress(gzip.compress(b'{"error":{"type":"server_error"}}'))
    upstream.answer(*wire(head + packed))
    proxy = {"HTTP_PROXY": f"http://127.0.0.1:{upstream.port}"} if way == "proxy" else {}
    with serve({**QUICK, "OPENAI_BASE_URL": upstream.base_url, **proxy}) as service:
        response = ask(service.url)
    assert (response.status_code, response.json()["error"]) == (500, "service_unavailable_error")
    assert way == "proxy" or "server_error" in response.json()["details"]
    assert upstream.paid_calls <= 1


def test_a_refusal_through_a_proxy_is_told_as_one_without_it_is(upstream: ScriptedUpstream) -> None:
    head = b"HTTP/1.1 429 No\r\nX-Server: caf\xe9\r\nRetry-After: 7.66\r\nContent-Encoding: gzip, gzip\r\n"
    packed = gzip.compress(gzip.compress(b'{"error":{"message":"Slow down"}}'))
    upstream.answer(Wire(head + b"Content-Length: %d\r\n\r\n" % len(packed) + packed), Cut())
    with serve(
        {**QUICK, "OPENAI_BASE_URL": upstream.base_url, "HTTP_PROXY": f"http://127.0.0.1:{upstream.port}"}
    ) as service:
        response = ask(service.url)
        upstream.answer_next(Refuse(422, openai_error("max_tokens: extra inputs are not permitted")))
        upstream.answer(Say("Hi"), Finish())
        assert text_of(events(ask(service.url))) == "Hi"
    assert (response.json()["error"], response.headers["retry-after"]) == ("rate_limit_error", "8")
    assert response.json()["details"] == "upstream answered 429: Slow down"
    assert len(upstream.calls) == 3


def test_openais_own_host_is_told_who_asks_through_a_proxy_too(upstream: ScriptedUpstream) -> None:
    more = {"HTTP_PROXY": f"http://127.0.0.1:{upstream.port}", "CHAT_SSE_SECRET_KEY": "s" * 32}
    for flag in ("true", "false"):
        environ = {**QUICK, **more, "OPENAI_BASE_URL": "http://api.openai.com/v1"}
        with serve({**environ, "CHAT_SSE_SAFETY_IDENTIFIER": flag}) as service:
            events(ask(service.url))
    told, untold = (call.body.get("safety_identifier") for call in upstream.calls)
    assert (told, untold) == (safety_identifier(b"s" * 32, "127.0.0.1"), None)


def wire(data: bytes) -> tuple[Step, ...]:
    return Wire(data), Cut()


def test_an_endless_error_body_is_told_within_its_bound(
    own_service: RunningService, upstream: ScriptedUpstream
) -> None:
    upstream.answer(Accept(status=400), *(Raw(b" " * 10_000) for _ in range(10)), Eof())
    response = ask(own_service.url)
    assert (response.status_code, response.json()["error"]) == (500, "invalid_request_error")


def test_every_2xx_with_an_event_stream_is_an_answer(
    own_service: RunningService, upstream: ScriptedUpstream
) -> None:
    upstream.answer(Accept(status=201), Say("Hi"), Finish())
    assert text_of(events(ask(own_service.url))) == "Hi"
    assert upstream.paid_calls == 1
