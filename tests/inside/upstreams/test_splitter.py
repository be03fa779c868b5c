"""From a byte stream to its events' data: where lines and events end, and errors outside of `data`."""

import pytest

from chat_sse.errors import UpstreamProtocol
from chat_sse.upstreams.openai.events import ErrorData, EventSplitter, NamedData

LONGEST = 17 * 1_048_576


def split(*pieces: bytes, cut_short: bool = False) -> list[bytes]:
    splitter = EventSplitter()
    found = [data for piece in pieces for data in splitter.feed(piece)]
    return found + list(splitter.end()) if cut_short else found


def bytewise(stream: bytes) -> list[bytes]:
    return [bytes([byte]) for byte in stream]


@pytest.mark.parametrize(
    "stream",
    [
        b"data: a\ndata: b\n\n",
        b"data: a\r\ndata: b\r\n\r\n",
        b"data: a\rdata: b\n\n",
        b"\ndata: a\ndata:b\n\n\n",
        b"data: a\rid: 7\rdata: b\r\r",
    ],
)
def test_an_event_of_two_lines_is_one_wherever_it_is_split(stream: bytes) -> None:
    assert split(stream) == [b"a\nb"]
    assert split(*bytewise(stream)) == [b"a\nb"]
    for place in range(len(stream)):
        assert split(stream[:place], stream[place:]) == [b"a\nb"]


def test_an_event_that_has_begun_goes_on_with_what_looks_like_another() -> None:
    assert split(b"data: a\n", b"data: b\n\n", b"data: c\n\n") == [b"a\nb", b"c"]
    assert split(b"data: ", b"data: b\n\n") == [b"data: b"]


def test_blank_lines_are_no_events() -> None:
    assert split(b"data: a\n\n\n", b"\n", b"data: b\n\n\n\ndata: c\n\n") == [b"a", b"b", b"c"]


@pytest.mark.parametrize(
    ("stream", "found"),
    [
        (b"event: ping\ndata: a\n\n", [NamedData(b"a")]),
        (b"event: ping\n\n", []),
        (b"event: Error\ndata: a\n\n", [ErrorData(b"a")]),
        (b"event: some_error \ndata: {}\n\n", [ErrorData(b"error")]),
        (b"event: error\n\n", [ErrorData(b"error")]),
        (b"error: a\ndata: b\n\n", [ErrorData(b"a"), b"b"]),
        (b'data: a\n{"b":\n1}\n\n', [b"a", b'{"b":\n1}']),
        (b'data: a\n["b",\n1]\n\n', [b"a", b'["b",\n1]']),
        (b'{"b":\n1}\ndata: a\ndata: c\n\n', [b"a\nc", b'{"b":\n1}']),
        (b'noise\nevent: error\n{"b":1}\ndata: a\n\n', [ErrorData(b"a"), b'{"b":1}']),
        (b"\xef\xbb\xbfid: 1\ndata: a\n\n", [b"a"]),
        (b"noise\n\n", []),
    ],
)
def test_data_is_found_and_named_in_every_form(stream: bytes, found: list[bytes]) -> None:
    assert split(stream) == found
    assert list(map(type, split(stream))) == list(map(type, found))
    assert split(stream[:-2], cut_short=True) == found


def test_a_line_of_json_is_told_at_once_and_once() -> None:
    splitter = EventSplitter()
    assert list(splitter.feed(b'{"error":1}\n')) == [b'{"error":1}\n']
    assert list(splitter.feed(b'["a",')) == []
    assert not splitter.is_at_rest
    assert list(splitter.feed(b'"b"]')) == []
    assert list(splitter.feed(b"\n")) == [b'["a","b"]\n']
    assert splitter.is_at_rest
    assert list(splitter.feed(b"data: a\n\n")) == [b"a"]
    assert list(splitter.end()) == []


def test_json_in_several_lines_waits_for_its_end() -> None:
    splitter = EventSplitter()
    assert list(splitter.feed(b"{\n")) == []
    assert list(splitter.feed(b'"a": 1\n')) == []
    assert list(splitter.feed(b"}\n")) == [b'{\n"a": 1\n}\n']


def test_a_line_of_json_is_looked_at_up_to_a_bound() -> None:
    line = b'{"a":"%s"}\n'
    empty = len(line % b"")
    assert split(line % (b"x" * (65_535 - empty))) != []
    assert split(line % (b"x" * (65_536 - empty))) == []
    assert len(split(line % (b"x" * (65_536 - empty)), b"\n")) == 1


def test_what_is_no_line_of_json_waits_for_its_blank_line() -> None:
    assert split(b"12\n") == []
    assert split(b"data: {}\n", b"\n") == [b"{}"]


def test_an_event_without_an_end_is_held_up_to_a_bound() -> None:
    splitter = EventSplitter()
    assert list(splitter.feed(b"x" * LONGEST)) == []
    with pytest.raises(UpstreamProtocol, match="without an end") as raised:
        list(splitter.feed(b"x"))
    assert not raised.value.retryable
    with pytest.raises(UpstreamProtocol):
        split(b"x" * (LONGEST + 1))
