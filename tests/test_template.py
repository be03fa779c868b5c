"""The short way for a delta: what goes it is what the decoder hears, and nearly every delta does."""

import asyncio
from collections.abc import Sequence
from typing import Any

import httptools
import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from chat_sse.events import Delta, Reasoning
from chat_sse.upstreams.base import UpstreamEvent
from chat_sse.upstreams.http.connection import whole_chunk
from chat_sse.upstreams.openai.chunks import ChunkDecoder
from chat_sse.upstreams.openai.passthrough import derive
from chat_sse.upstreams.openai.stream import LESSONS, CompletionStream

HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
DONE = b"data: [DONE]\n\n"

thorough = settings(max_examples=5 * settings().max_examples, derandomize=True, database=None)

encode = msgspec.json.encode


class Ear:
    """A listener that keeps the entries it would append, and counts those that came the short way."""

    def __init__(self) -> None:
        self.entries: list[bytes] = []
        self.short = 0

    def on_model(self, model: str | None) -> None:
        """Is not called here."""

    def on_accepted(self) -> None:
        """Is not called here."""

    def on_events(self, events: Sequence[UpstreamEvent]) -> None:
        self.entries += map(encode, events)

    def on_activity(self) -> None:
        pass

    def on_entry(self, entry: bytes) -> None:
        self.entries.append(entry)
        self.short += 1


def hear(pieces: Sequence[bytes]) -> tuple[Ear, str | None]:
    """Hear an answer as it is heard in the service; tells the fault's code too."""

    async def listen() -> tuple[Ear, str | None]:
        ear = Ear()
        stream = CompletionStream(ear)
        stream.accept({"content-type": "text/event-stream"})
        for piece in pieces:
            stream.data(piece)
        stream.end(lost=False)
        fault = stream.finished.exception()
        return ear, getattr(fault, "code", None)

    return asyncio.run(listen())


def decode(pieces: Sequence[bytes]) -> tuple[list[bytes], str | None]:
    """Decode every piece."""
    decoder = ChunkDecoder()
    found = [event for piece in pieces for event in decoder.feed(piece)] + decoder.end()
    return [encode(event) for event in found], decoder.fault.code if decoder.fault else None


def piece(chunk: Any) -> bytes:
    return b"data: %s\n\n" % encode(chunk)


def openai(text: str, **more: Any) -> dict[str, Any]:
    """A chunk as OpenAI sends it."""
    choice = {"index": 0, "delta": {"content": text}, "logprobs": None, "finish_reason": None}
    chunk = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 17, "model": "gpt-4o-mini"}
    return {**chunk, "choices": [choice], "usage": None, **more}


NO_TOKENS = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
WORDS = ("Grüße", ", ", "世界", "! ", "and", " so", " on", " \u2028", "👋", "~text~", "]}", "data: x")
ESCAPED = ("\n\n", '"', "\\", "\t", "\b\f\r")
FINISH = piece({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})

# What upstreams repeat, and how many of the deltas cannot be taken the short way.
STREAMS: dict[str, tuple[list[dict[str, Any]], int]] = {
    "OpenAI's": ([openai(word) for word in WORDS], 1),
    "OpenAI's, padded": (
        [openai(word, obfuscation="aB3xY9kLmN0p"[index:]) for index, word in enumerate(WORDS)],
        2,
    ),
    "padded, as a proxy writes it": ([openai(word, p="abc" * index) for index, word in enumerate(WORDS)], 2),
    "reasoning, and then text": (
        [{"choices": [{"delta": {"reasoning_content": word}}]} for word in WORDS]
        + [{"choices": [{"delta": {"content": word}}]} for word in WORDS],
        2,
    ),
    "told anew each second": (
        [openai("word", created=index // 2) for index in range(6 * LESSONS)],
        3 * LESSONS,
    ),
    "with the text elsewhere as well, once": (
        [{"note": "Grüße", "choices": [{"delta": {"content": word}}]} for word in WORDS],
        2,
    ),
}


@pytest.mark.parametrize("name", STREAMS)
def test_nearly_all_deltas_of_a_stream_go_the_short_way(name: str) -> None:
    chunks, decoded = STREAMS[name]
    pieces = [*map(piece, chunks), FINISH, DONE]
    ear, fault = hear(pieces)
    assert (ear.entries, fault) == decode(pieces)
    assert ear.short == len(chunks) - decoded


def test_escapes_that_we_write_too_go_the_short_way_and_others_are_decoded() -> None:
    ours = [openai(text) for text in (*ESCAPED, "a\\nb", 'a\n"b"', "\\\\", "ü\t")]
    others = [rb"\u00fc", rb"\/", rb"\u0000", rb"\ud83d\udc4b", rb"\u000a"]
    pieces = [piece(chunk) for chunk in [openai("a"), *ours]]
    pieces += [piece(openai("b")).replace(b'"b"', b'"%s"' % text) for text in others]
    ear, fault = hear([*pieces, piece(openai("c")), FINISH, DONE])
    assert (ear.entries, fault) == decode([*pieces, piece(openai("c")), FINISH, DONE])
    assert ear.short == len(ours) + 1


@pytest.mark.parametrize(
    "unlike",
    [
        b'data: {"choices":[{"delta":{"content":"b"},"finish_reason":"stop"}]}\n\n',
        b'data: {"choices":[{"delta":{"content":"b"}}],"usage":%s}\n\n' % encode(NO_TOKENS),
        b'data: {"choices":[{"delta":{"content":"b"}}],"error":{"type":"server_error"}}\n\n',
        b'data: {"choices":[{"delta":{"content":"b","content":"c"}}]}\n\n',
        b'data: {"choices":[{"delta":{"content":"b"}}]}\n\ndata: {"choices":[{"delta":{"content":"c"}}]}\n\n',
        b'data: {"choices":[{"delta":{"content":"\xff"}}]}\n\n',
        b'data: {"choices":[{"delta":{"content":"\xed\xa0\x80"}}]}\n\n',
        b'data: {"choices":[{"delta":{"content":"a\x01b"}}]}\n\n',
        b'data: {"choices":[{"delta":{"content":"a\nb"}}]}\n\n',
        b'data: {"choices":[{"delta":{"content":"a\\"}}]}\n\n',
        b'data: {"choices":[{"delta":{"content":""}}]}\n\n',
        b'data: {"choices":[{"delta":{"content":"b"}}]}\n',
        b'data: {"choices":[{"delta":{"content":"',
        b"",
        b"\n\n",
        DONE,
    ],
)
def test_a_piece_that_is_not_like_the_others_is_heard_as_if_there_were_none(unlike: bytes) -> None:
    usual = b'data: {"choices":[{"delta":{"content":"a"}}]}\n\n'
    pieces = [usual, usual, unlike, usual, usual, FINISH, DONE]
    ear, fault = hear(pieces)
    assert ear.short > 0
    assert (ear.entries, fault) == decode(pieces)


PADDED = b'data: {"choices":[{"delta":{"content":"a"}}],"p":"%s"}\n\n'


@pytest.mark.parametrize(
    "unlike",
    [
        PADDED % b'b","error":{"type":"server_error"},"q":"b',
        PADDED % b'b","choices":[],"q":"b',
        PADDED % b'b\\","error":"b',
        PADDED % b"b\\",
        PADDED % b"\xff",
        PADDED % b"b\nb",
        b'data: {"choices":[{"delta":{"content":"a"}}],"p":"}\n\n',
        b'data: {"choices":[{"delta":{"content":"a"}}],"p":"',
        b'data: {"choices":[{"delta":{"content":"a"}}],"p":"}\n\n"}\n\n',
    ],
)
def test_padding_that_is_more_than_padding_is_decoded(unlike: bytes) -> None:
    pieces = [*(PADDED % padding for padding in (b"x", b"yy", b"")), unlike, PADDED % b"z", FINISH, DONE]
    ear, fault = hear(pieces)
    assert ear.short > 0
    assert (ear.entries, fault) == decode(pieces)


@pytest.mark.parametrize(
    "chunk",
    [
        {"choices": [{"delta": {"content": "a"}, "finish_reason": "stop"}]},
        {"choices": [{"delta": {"content": "a"}}], "usage": NO_TOKENS},
        {"choices": [{"delta": {"content": "a", "reasoning": "b"}}]},
        {"choices": [{"delta": {"content": "a"}}, {"delta": {"content": "b"}}]},
        {"a": 1, "choices": [{"delta": {"content": "a"}}]},
    ],
)
def test_nothing_is_learnt_from_a_chunk_that_says_more_than_a_text_or_says_it_twice(chunk: Any) -> None:
    assert derive(piece(chunk), Delta("a"), None) is None


def test_nothing_is_learnt_from_a_text_that_came_with_other_events() -> None:
    assert derive(piece(openai("")) + piece(openai("a")), Delta("a"), None) is None


def test_a_field_that_counts_is_never_taken_for_padding() -> None:
    # Alike but for a string behind the text: the first two of a server that tells a reason in each chunk.
    first, second = (
        {"choices": [{"delta": {"content": "a"}, "finish_reason": reason}]} for reason in ("", "length")
    )
    passthrough = derive(piece(first), Delta("a"), None)
    assert passthrough is not None
    assert derive(piece(second), Delta("a"), passthrough) is None


def test_what_differs_as_a_name_is_never_taken_for_padding() -> None:
    passthrough = derive(piece(openai("a", x1="")), Delta("a"), None)
    other = derive(piece(openai("b", x2="")), Delta("b"), passthrough)
    assert passthrough is not None
    assert other is not None
    assert other.entry(piece(openai("c", x2=""))) == encode(Delta("c"))
    assert other.entry(piece(openai("c", error=""))) is None


def test_a_server_whose_chunks_are_never_alike_is_not_learnt_from_for_ever() -> None:
    chunks = [openai("a", **{f"x{index}": index}) for index in range(LESSONS + 1)]
    ear, _ = hear([*map(piece, [*chunks, chunks[-1], chunks[-1]]), FINISH, DONE])
    assert ear.short == 0


texts = st.text(st.characters(codec="utf-8"), max_size=12) | st.sampled_from([*WORDS, *ESCAPED])
shapes = st.sampled_from(
    [
        openai,
        lambda text: openai(text, obfuscation=text[::-1]),
        lambda text: openai(text, obfuscation="padding"),
        lambda text: openai(text, created=18),
        lambda text: {"choices": [{"delta": {"content": text}}]},
        lambda text: {"choices": [{"delta": {"reasoning": text}}]},
        lambda text: {"choices": [{"delta": {"content": text}, "finish_reason": text}]},
        lambda text: {"choices": [{"delta": {"content": "a", "refusal": text}}]},
        lambda text: {text: "a", "choices": [{"delta": {"content": "a"}}]},
        lambda text: {"choices": [{"index": 1, "delta": {"content": text}}]},
    ]
)
good = st.builds(lambda shape, text: piece(shape(text)), shapes, texts)
odd = st.binary(max_size=30) | st.sampled_from([b"\r\n", b"data: ", b": hb\n", b"\xef\xbb\xbf", DONE, FINISH])


@given(st.lists(good | good | good | odd, max_size=12), st.lists(st.integers(0, 4000), max_size=6))
@example([piece(openai("a")), piece(openai("b")) + b"data: ", piece(openai("c"))], [])
@thorough
def test_whatever_arrives_however_it_is_cut_is_heard_as_the_decoder_hears_it(
    pieces: list[bytes], cuts: list[int]
) -> None:
    stream = b"".join(pieces)
    for cut in cuts:  # a piece that a network has cut in two
        at = cut % (len(pieces) or 1)
        pieces[at : at + 1] = [pieces[at][: cut % 97], pieces[at][cut % 97 :]] if pieces else []
    assert b"".join(pieces) == stream
    ear, fault = hear(pieces)
    assert (ear.entries, fault) == decode(pieces)


@given(texts, texts, st.binary(max_size=40), st.integers(0, 400))
@thorough
def test_a_wrong_byte_makes_no_text_that_the_decoder_does_not_read(
    first: str, second: str, wrong: bytes, place: int
) -> None:
    sound = piece(openai(second, obfuscation="a"))
    place %= len(sound)
    broken = sound[:place] + wrong + sound[place + len(wrong) :]
    pieces = [piece(openai("b", obfuscation="c")), piece(openai(first, obfuscation="d")), broken]
    ear, fault = hear(pieces)
    assert (ear.entries, fault) == decode(pieces)


def test_reasoning_is_not_told_as_text() -> None:
    chunk = {"choices": [{"delta": {"reasoning": "a"}}]}
    passthrough = derive(piece(chunk), Reasoning("a"), None)
    assert passthrough is not None
    assert passthrough.entry(piece({"choices": [{"delta": {"reasoning": "b"}}]})) == encode(Reasoning("b"))
    assert passthrough.entry(piece({"choices": [{"delta": {"content": "b"}}]})) is None


# The chunks of the wire.


class Parsed:
    """What httptools makes of bytes behind a head."""

    def __init__(self, data: bytes) -> None:
        self.body, self.chunks, self.is_over, self.is_broken = b"", 0, False, False
        parser = httptools.HttpResponseParser(self)
        parser.feed_data(HEAD)
        try:
            parser.feed_data(data)
        except httptools.HttpParserError:
            self.is_broken = True

    def on_body(self, data: bytes) -> None:
        self.body += data

    def on_chunk_complete(self) -> None:
        self.chunks += 1

    def on_message_complete(self) -> None:
        self.is_over = True


sizes = st.builds(
    lambda size, form: (form % size).encode(), st.integers(0, 40), st.sampled_from(["%x", "%X"])
)
sizes |= st.sampled_from([b"", b"+5", b"0x5", b" 5", b"5 ", b"05", b"5;a=b", b"1_0", b"-1", b"zz"])
chunk_likes = st.builds(
    lambda size, content, ends: b"%s%s%s%s" % (size, ends[0], content, ends[1]),
    sizes,
    st.binary(max_size=40) | st.sampled_from([b"\r\n", b"a\r\n5\r\nb", b"5\r\nhello\r\n"]),
    st.tuples(*[st.sampled_from([b"\r\n", b"\r\n", b"\n", b"\r", b""])] * 2),
)


@given(chunk_likes | st.binary(max_size=60))
@example(b"5\r\nhello\r\n")
@example(b"5\r\nhello\r\n5\r\nhello\r\n")
@example(b"0\r\n\r\n")
@thorough
def test_what_is_taken_for_one_whole_chunk_is_one_to_the_parser(data: bytes) -> None:
    if content := whole_chunk(data):
        parsed = Parsed(data)
        assert not parsed.is_broken
        assert (parsed.body, parsed.chunks, parsed.is_over) == (content, 1, False)


@given(st.binary(min_size=1, max_size=5000), st.sampled_from(["%x", "%X"]))
@thorough
def test_every_chunk_as_servers_write_it_is_taken(content: bytes, form: str) -> None:
    assert whole_chunk(b"%s\r\n%s\r\n" % ((form % len(content)).encode(), content)) == content
