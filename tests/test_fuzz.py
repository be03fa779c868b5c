"""Whatever is sent, from either side, is answered or refused in a way that is in the error tree."""

from collections.abc import Callable, Iterator
from contextlib import closing
from http.client import HTTPConnection
from string import ascii_letters
from typing import Any
from urllib.parse import quote, urlsplit

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from chat_sse.access.links import Links
from chat_sse.completions import decode_completion
from chat_sse.errors import InvalidRequest, PayloadTooLarge
from chat_sse.events import Delta, Done, event_id, parse_event_id
from chat_sse.messages import AskRequest, Question, decode_ask
from chat_sse.policy import Policy, admit
from chat_sse.run_agent_input import decode_run
from chat_sse.upstreams.openai.chunks import ChunkDecoder
from tests.conftest import QUICK
from tests.support.service import HELLO, RunningService, ask, events, serve, text_of
from tests.support.upstream import ScriptedUpstream

DEEP = b"[" * 100_000
MESSAGE = b'{"messages":[{"role":"user","content":"Hi"}],"id":'

POLICY = Policy(models=("gpt-4o-mini",), max_messages=3, max_chars=50, max_output_tokens=100)

# CompletionClient costs a service some milliseconds, where the pure parts cost microseconds.
over_http = settings(max_examples=60, derandomize=True, database=None)
pure = settings(max_examples=300, derandomize=True, database=None)

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


def nearly(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Objects with some of these fields, each as it should be or anything else."""
    return st.fixed_dictionaries({}, optional={name: kind | json_values for name, kind in fields.items()})


url = st.sampled_from(["https://example.org/a.png", "data:image/png;base64,AA==", "file:///etc/passwd", ""])
types = st.sampled_from(["text", "image_url", "file", "reasoning", "step-start", "source-url", "audio"])
content_part = nearly(type=types, text=st.text(max_size=60), image_url=nearly(url=url, detail=st.just("low")))
ui_part = nearly(type=types, text=st.text(max_size=60), mediaType=st.just("image/png"), url=url)
message = nearly(
    role=st.sampled_from(["user", "assistant", "system", "tool", "activity"]),
    content=st.text(max_size=60) | st.lists(content_part, max_size=3),
    parts=st.lists(ui_part, max_size=3),
    experimental_attachments=st.lists(nearly(contentType=st.just("image/png"), url=url), max_size=2),
)
body = nearly(
    messages=st.lists(message, max_size=4),
    model=st.just("gpt-4o-mini"),
    temperature=st.floats(0, 2),
    max_output_tokens=st.integers(1, 10**30),
    id=st.text(max_size=250),
    max_tokens=st.integers(1, 10**30),
    stream_options=nearly(include_usage=st.booleans()),
    n=st.integers(0, 2),
    tools=st.lists(json_values, max_size=1),
    threadId=st.text(max_size=250),
    runId=st.text(max_size=250),
    forwardedProps=nearly(model=st.just("gpt-4o-mini"), temperature=st.floats(0, 2)),
)


READERS: list[Callable[[bytes], AskRequest]] = [
    decode_ask,
    lambda sent: decode_completion(sent)[0],
    lambda sent: decode_run(sent)[0],
]


def check_asking(sent: bytes) -> None:
    for read in READERS:
        check_reading(read, sent)


def check_reading(read: Callable[[bytes], AskRequest], sent: bytes) -> None:
    try:
        question = admit(read(sent), POLICY)
    except (InvalidRequest, PayloadTooLarge):
        return
    assert 1 <= len(question.messages) <= POLICY.max_messages
    assert question.max_output_tokens <= POLICY.max_output_tokens
    again = msgspec.json.decode(msgspec.json.encode(question), type=Question)
    assert again == question


@given(st.binary(max_size=200))
@example(DEEP)
@example(MESSAGE + DEEP)
@example(MESSAGE + b"9" * 10_000 + b"}")
@example(MESSAGE + b'"\\ud800"}')
@pure
def test_any_bytes_are_a_question_or_a_refusal(sent: bytes) -> None:
    check_asking(sent)


@given(json_values | body)
@pure
def test_any_json_is_a_question_or_a_refusal(sent: Any) -> None:
    check_asking(msgspec.json.encode(sent))


@given(st.text() | st.from_regex(r"[\w.-]{0,70}[.][0-9]{0,12}\n?", fullmatch=True))
@pure
def test_any_text_is_an_event_id_that_is_written_the_same_or_is_none(text: str) -> None:
    try:
        stream_id, seq = parse_event_id(text)
    except ValueError:
        return
    assert event_id(stream_id, seq) == text


def event(delta: dict[str, str], finish_reason: str | None = None) -> bytes:
    chunk = {"choices": [{"index": 0, "delta": delta, "finish_reason": finish_reason}]}
    return b"data: %s\n\n" % msgspec.json.encode(chunk)


TEXT = "Grüße, 世界! 👋 and so on"
USAGE = b'data: {"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":2,"total_tokens":3}}\n\n'
STREAM = [*(event({"content": sign}) for sign in TEXT), event({}, "stop"), USAGE, b"data: [DONE]\n\n"]


def hear(*pieces: bytes) -> tuple[str, ChunkDecoder]:
    """Decode a stream, and check that exactly one verdict ends it."""
    decoder = ChunkDecoder()
    found = [happening for piece in pieces for happening in decoder.feed(piece)] + decoder.end()
    ends = [happening for happening in found if isinstance(happening, Done)]
    assert len(ends) + (decoder.fault is not None) == 1
    assert ends == found[-1:] or not ends
    assert decoder.feed(b"".join(STREAM)) == decoder.end() == []
    return "".join(happening.content for happening in found if isinstance(happening, Delta)), decoder


@given(st.integers(0, len(b"".join(STREAM))))
@pure
def test_of_a_stream_that_is_cut_anywhere_comes_a_prefix_and_a_truthful_end(end: int) -> None:
    text, decoder = hear(b"".join(STREAM)[:end])
    assert TEXT.startswith(text)
    assert decoder.fault is not None or (text == TEXT and decoder.finish_reason == "stop")


@given(st.integers(0, len(STREAM)), json_values.map(msgspec.json.encode) | st.binary(max_size=100))
@example(3, b'{"x":' + DEEP)
@example(3, b'{"choices":' + DEEP)
@pure
def test_what_stands_between_the_chunks_takes_nothing_from_the_text_before_it(
    place: int, sent: bytes
) -> None:
    text, _ = hear(*STREAM[:place], b"data: ", sent, b"\n\n", *STREAM[place:])
    assert text.startswith(TEXT[:place])


@given(st.integers(0, len(b"".join(STREAM)) - 1), st.integers(0, 255))
@pure
def test_a_byte_that_is_wrong_never_makes_two_ends_or_none(place: int, byte: int) -> None:
    stream = bytearray(b"".join(STREAM))
    stream[place] = byte
    hear(bytes(stream))


LINKS = Links("0123456789abcdef", life_seconds=60)
TOKEN = LINKS.token("8f3c1d5e9a7b4260", "alice")


@given(st.text() | st.text(ascii_letters + "._-=", max_size=200))
@pure
def test_no_text_whatever_is_a_link(text: str) -> None:
    assert LINKS.read(text) is None


@given(st.integers(0, len(TOKEN) - 1), st.sampled_from(ascii_letters + ".=\0ä"))
@pure
def test_a_link_with_one_other_sign_opens_no_other_answer(place: int, sign: str) -> None:
    link = LINKS.read(TOKEN[:place] + sign + TOKEN[place + 1 :])
    # The last sign of base64 has bits that say nothing.
    assert link is None or (link.answer, link.owner) == ("8f3c1d5e9a7b4260", "alice")


# Over HTTP.


@pytest.fixture(scope="module")
def service(upstream_port: int) -> Iterator[RunningService]:
    """A service whose upstream answers every question at once, and that is unharmed at the end."""
    with (
        ScriptedUpstream(port=upstream_port) as upstream,
        serve({**QUICK, "OPENAI_BASE_URL": upstream.base_url}) as running,
    ):
        yield running
        assert text_of(events(ask(running.url))) == "Hello there!"
        assert "status=500" not in running.log()
        assert "Traceback" not in running.log()
        assert "ERROR" not in running.log()


@pytest.fixture(scope="module")
def connection(service: RunningService) -> Iterator[HTTPConnection]:
    """One connection for all questions: it is opened again by itself."""
    address = urlsplit(service.url)
    with closing(HTTPConnection(address.hostname or "", address.port, timeout=10)) as opened:
        yield opened


@pytest.fixture(scope="module")
def answer_id(service: RunningService) -> str:
    """The id of an answer with five events that is over."""
    found = events(ask(service.url))
    assert [told["type"] for told in found] == ["start", "delta", "delta", "delta", "done"]
    stream_id: str = found[0]["id"]
    return stream_id


def send(
    connection: HTTPConnection, method: str, target: str, headers: dict[str, bytes], body: bytes | None = None
) -> int:
    """Send a request, read its whole answer, check an error's body, and give the status."""
    connection.putrequest(method, target, skip_accept_encoding=True)
    for name, value in headers.items():
        connection.putheader(name, value)
    if body is not None:
        connection.putheader("Content-Type", "application/json")
        connection.putheader("Content-Length", str(len(body)))
    connection.endheaders(body)
    response = connection.getresponse()
    content = response.read()
    if response.status >= 400:
        told = msgspec.json.decode(content)
        assert told["error"] != "internal_error"
        assert told["request_id"] == response.headers["x-request-id"]
    return response.status


# What a field's value may be made of (RFC 9110, 5.5), and the bytes beyond ASCII, which it once might.
field_values = st.binary(max_size=300).map(
    lambda data: bytes(byte for byte in data if byte >= 32 and byte != 127)
)
places = st.integers(-3, 12).map(str) | st.text(ascii_letters + "0123456789.-_ ", max_size=8)


@pytest.mark.parametrize("method", ["GET", "POST"])
@given(value=field_values)
@over_http
def test_any_last_event_id_is_a_place_or_none(
    connection: HTTPConnection, answer_id: str, method: str, value: bytes
) -> None:
    body = msgspec.json.encode(HELLO) if method == "POST" else None
    status = send(connection, method, "/ask", {"Last-Event-ID": value}, body)
    assert status in ((400, 404) if value.strip() else (400, 200))


@given(place=places)
@over_http
def test_any_place_in_an_answer_is_read_on_or_refused(
    connection: HTTPConnection, answer_id: str, place: str
) -> None:
    expected = {"0": 200, "1": 200, "2": 200, "3": 200, "4": 204}.get(place, 400)
    headers = {"Last-Event-ID": f"{answer_id}.{place}".rstrip().encode()}
    assert send(connection, "GET", f"/ask/{answer_id}", headers) == expected
    query = f"last_event_id={answer_id}.{quote(place)}"
    assert send(connection, "GET", f"/ask/{answer_id}?{query}", {}) == expected
    assert send(connection, "GET", f"/ask?{query}", {}) == expected


@given(
    pairs=st.dictionaries(
        st.sampled_from(["q", "messages", "id", "format", "last_event_id", "token", "x"]),
        st.binary(max_size=30)
        | st.sampled_from([b"sse", b"text", b"json", b"ai-sdk", b"html"])
        | (json_values | st.lists(message, max_size=2)).map(msgspec.json.encode),
    )
)
@example(pairs={"messages": b"[" * 15_000})
@over_http
def test_any_query_asks_or_is_refused(connection: HTTPConnection, pairs: dict[str, bytes]) -> None:
    query = "&".join(f"{name}={quote(value)}" for name, value in pairs.items())
    assert send(connection, "GET", f"/ask?{query}", {}) in (200, 400, 404, 406, 413, 422)


@given(query=st.text(ascii_letters + "%&=;+#?/0123456789", max_size=60))
@over_http
def test_a_query_that_is_none_is_refused(connection: HTTPConnection, query: str) -> None:
    assert send(connection, "GET", f"/ask?{query}", {}) in (200, 400, 404, 406, 422)


@given(key=field_values, accept=field_values, prefer=field_values)
@over_http
def test_any_key_and_preference_is_taken_or_refused(
    connection: HTTPConnection, key: bytes, accept: bytes, prefer: bytes
) -> None:
    headers = {"Idempotency-Key": key, "Accept": accept, "Prefer": prefer, "X-Request-Id": prefer}
    status = send(connection, "POST", "/ask", headers, msgspec.json.encode(HELLO))
    assert status in ((200, 202, 406) if 0 < len(key.strip()) <= 255 else (400, 406))


@given(path=st.binary(max_size=40))
@over_http
def test_any_path_is_found_or_not(connection: HTTPConnection, path: bytes) -> None:
    found = (204, 404, 405) if path.strip(b"/") else (400, 405)  # slashes alone: `/ask` without a question
    for method in ("GET", "DELETE"):
        assert send(connection, method, f"/ask/{quote(path)}", {}) in found
