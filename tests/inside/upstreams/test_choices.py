"""Of a chunk with several choices, the answer is the first that has come."""

import msgspec

from chat_sse.events import Delta, Done, Event
from chat_sse.upstreams.openai.chunks import ChunkDecoder


def chunk(*choices: tuple[int, str, str | None]) -> bytes:
    body = {
        "choices": [
            {"index": index, "delta": {"content": content}, "finish_reason": reason}
            for index, content, reason in choices
        ]
    }
    return b"data: " + msgspec.json.encode(body) + b"\n\n"


def decoded(*chunks: bytes) -> list[Event]:
    decoder, events = ChunkDecoder(), list[Event]()
    for data in chunks:
        events += decoder.feed(data)
    return events + decoder.end()


def test_the_second_choice_is_no_part_of_the_answer_wherever_it_stands() -> None:
    assert decoded(
        chunk((0, "a", None), (1, "x", None)),
        chunk((1, "x", None), (0, "b", None)),
        chunk((1, "x", None)),
        chunk((1, "", "length")),
        chunk((0, "c", None)),
        chunk((0, "", "stop"), (1, "", "length")),
    ) == [Delta("a"), Delta("b"), Delta("c"), Done(finish_reason="stop")]


def test_an_answer_may_have_any_index_as_long_as_it_keeps_it() -> None:
    assert decoded(chunk((1, "a", None)), chunk((0, "x", None), (1, "b", None)), chunk((1, "", "stop"))) == [
        Delta("a"),
        Delta("b"),
        Done(finish_reason="stop"),
    ]
