"""One answer as it arrives: when it is accepted, when it is over, and what is heard of it until then."""

import asyncio
from collections.abc import Sequence

import msgspec
import pytest

from chat_sse.errors import ChatError, UpstreamProtocol, UpstreamUnavailable
from chat_sse.events import Delta, Done
from chat_sse.upstreams.base import UpstreamEvent
from chat_sse.upstreams.openai.stream import CompletionStream
from tests.inside.upstreams.ears import Ear
from tests.support.network import network

EVENT_STREAM = {"content-type": "Text/Event-Stream; charset=utf-8"}
DONE = b"data: [DONE]\n\n"
COMMENT = b": hb\n\n"


def chunk(text: str | None = None, reason: str | None = None, name: str = "x") -> bytes:
    """Encode a chunk; another `name` makes it unlike the others."""
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": reason}
    return b"data: %s\n\n" % msgspec.json.encode({"choices": [choice], name: 0})


STOP = chunk(reason="stop")
END = Done(finish_reason="stop")


def stream(ear: Ear, **headers: str) -> CompletionStream:
    """An answer that is called an event stream, unless the headers say something else."""
    one = CompletionStream(ear)
    one.accept(headers or EVENT_STREAM)
    return one


def fault_of(one: CompletionStream) -> ChatError:
    fault = one.finished.exception()
    assert isinstance(fault, ChatError)
    return fault


# Accepting.


async def test_an_event_stream_is_accepted_with_its_head_and_ends_with_done() -> None:
    one = stream(ear := Ear())
    assert (ear.accepted, ear.active) == (1, 0)
    one.data(chunk("a"))
    one.data(COMMENT)
    assert (ear.active, one.finished.done()) == (1, False)
    one.data(chunk("b") + STOP + DONE)
    await one.finished
    assert ear.events == [Delta("a"), Delta("b"), END]
    one.data(chunk("c"))
    one.end(lost=True)
    one.settle(UpstreamUnavailable("late"))
    assert (one.finished.exception(), len(ear.events), ear.accepted) == (None, 3, 1)


async def test_what_is_compressed_unasked_is_a_fault() -> None:
    one = stream(ear := Ear(), **{"content-encoding": "gzip", **EVENT_STREAM})
    assert "compressed" in fault_of(one).details
    assert ear.accepted == 0
    one = stream(ear, **{"content-encoding": "identity", **EVENT_STREAM})
    assert (one.finished.done(), ear.accepted) == (False, 1)


@pytest.mark.parametrize("size", [1, 2, 1_000])
@pytest.mark.parametrize("before", [b"", b"\xef\xbb\xbf", b" \r\n\t"])
async def test_an_event_stream_under_another_name_is_known_by_its_first_line(
    size: int, before: bytes
) -> None:
    one = stream(ear := Ear(), server="x")
    body = before + chunk("a") + STOP + DONE
    for place in range(0, len(body), size):
        assert ear.accepted == (b"data:" in body[:place])
        one.data(body[place : place + size])
    await one.finished
    assert (ear.accepted, ear.events) == (1, [Delta("a"), END])
    assert ear.active > 0


@pytest.mark.parametrize("size", [1, 1_000])
async def test_a_whole_completion_is_accepted_at_its_end(size: int) -> None:
    one = stream(ear := Ear(), server="x")
    body = b' \n{"choices": [{"message": {"content": "a"}, "finish_reason": "stop"}]}'
    for place in range(0, len(body), size):
        one.data(body[place : place + size])
    assert (ear.accepted, ear.active, ear.events) == (0, -(-len(body) // size), [])
    one.end(lost=False)
    await one.finished
    assert (ear.accepted, ear.events) == (1, [Delta("a"), END])


@pytest.mark.parametrize("body", [b"<html>", b" \n<", b"x", b"dada", b"\xef\xbb\xbfOops"])
async def test_what_is_neither_is_no_completion_at_once(body: bytes) -> None:
    one = stream(ear := Ear(), server="x")
    one.data(body)
    assert "no chat completion" in fault_of(one).details
    assert ear.accepted == 0


async def test_a_body_without_a_word_is_no_completion() -> None:
    one = stream(ear := Ear(), server="x")
    one.end(lost=False)
    assert "no chat completion" in fault_of(one).details
    assert ear.accepted == 0


async def test_a_body_that_is_no_event_stream_is_held_up_to_a_bound() -> None:
    one = stream(ear := Ear(), server="x")
    one.data(b"{" + b" " * (17 * 1_048_576 - 1))
    assert not one.finished.done()
    one.data(b" ")
    fault = fault_of(one)
    assert (type(fault), fault.retryable, ear.accepted) == (UpstreamProtocol, False, 0)
    assert "endless" in fault.details


# How it ends.


async def test_a_connection_that_breaks_is_told_as_one() -> None:
    one = stream(Ear())
    one.data(chunk("a"))
    one.end(lost=True)
    assert "broke" in fault_of(one).details
    one = stream(Ear())
    one.end(lost=False)
    assert "closed the stream" in fault_of(one).details


async def test_an_error_that_was_told_is_the_answers_even_if_the_connection_breaks() -> None:
    one = stream(ear := Ear())
    one.data(chunk("a") + b'event: error\ndata: {"code":500}')
    one.end(lost=True)
    assert isinstance(fault_of(one), UpstreamUnavailable)
    assert ear.events == [Delta("a")]
    one = stream(ear := Ear())
    one.data(chunk("a") + b'data: {"error":{"code":500}}\n\n')
    assert isinstance(fault_of(one), UpstreamUnavailable)
    assert ear.events == [Delta("a")]


@pytest.mark.parametrize("pieces", [[chunk("a") + STOP], [chunk("a"), STOP]])
async def test_an_end_without_done_is_believed_after_five_seconds_of_silence(pieces: list[bytes]) -> None:
    one = stream(ear := Ear())
    for piece in pieces:
        one.data(piece)
    await asyncio.sleep(3)
    one.data(COMMENT)
    await asyncio.sleep(1.9)
    assert not one.finished.done()
    await asyncio.sleep(0.2)
    await one.finished
    assert ear.events == [Delta("a"), END]


async def test_an_end_that_was_revoked_is_waited_for_anew() -> None:
    one, loop = stream(ear := Ear()), asyncio.get_running_loop()
    one.data(chunk("a") + STOP)
    await asyncio.sleep(3)
    one.data(chunk("b"))
    await asyncio.sleep(100)
    assert not one.finished.done()
    one.data(STOP)
    await asyncio.sleep(3)
    one.data(COMMENT)  # after one that was wrong, silence must be silence
    began = loop.time()
    await one.finished
    assert (loop.time() - began, ear.events) == (5, [Delta("a"), Delta("b"), END])


async def test_no_timer_is_left_of_an_answer_that_is_over() -> None:
    one = stream(Ear())
    one.data(STOP)
    one.data(DONE)
    await one.finished
    assert network().timers() == []


# What the listener raises.


class Deaf(Ear):
    """Raises instead of hearing, from a moment on."""

    def __init__(self, moment: str) -> None:
        super().__init__()
        self.moment = moment

    def on_accepted(self) -> None:
        super().on_accepted()
        if self.moment == "accepted":
            raise ZeroDivisionError

    def on_events(self, events: Sequence[UpstreamEvent]) -> None:
        super().on_events(events)
        if self.moment == "events":
            raise ZeroDivisionError

    def on_entry(self, entry: bytes) -> None:
        super().on_entry(entry)
        if self.moment == "entry":
            raise ZeroDivisionError


@pytest.mark.parametrize(("moment", "heard"), [("accepted", 0), ("events", 1), ("entry", 2)])
async def test_what_a_listener_raises_ends_the_answer_and_nothing_more_is_heard(
    moment: str, heard: int
) -> None:
    one = stream(ear := Deaf(moment))
    for text in "abcd":
        one.data(chunk(text))
    one.end(lost=False)
    with pytest.raises(ZeroDivisionError):
        await one.finished
    assert len(ear.events) == heard


# The short way.


def heard(*pieces: bytes) -> Ear:
    one = stream(ear := Ear())
    for piece in pieces:
        one.data(piece)
    one.settle(None)
    one.finished.exception()  # or the loop reports a fault that nobody has asked for
    return ear


async def test_the_second_delta_takes_the_short_way_but_for_a_half_or_a_doubtful_one() -> None:
    a, b = chunk("a"), chunk("b")
    assert heard(a, b, b).short == 2
    assert heard(a, b"data: ", b).short == 0
    assert heard(a, COMMENT, b).short == 1
    assert heard(a, STOP, b, b).short == 1
    assert heard(a + b, b).short == 0
    assert heard(a + b, a, b).short == 1
    assert heard(a, STOP, b, STOP + DONE, b).events == [Delta("a"), Delta("b"), END]


@pytest.mark.parametrize(("unlike", "short"), [(8, 1), (9, 0)])
async def test_eight_lessons_in_vain_are_the_last(unlike: int, short: int) -> None:
    chunks = [chunk("a", name=f"x{number}") for number in range(unlike)]
    assert heard(*chunks, chunks[-1]).short == short


async def test_a_lesson_that_served_gives_eight_more() -> None:
    chunks = [chunk("a", name=f"x{number}") for number in range(17)]
    assert heard(*chunks[:8], chunks[7], *chunks[8:16], chunks[15]).short == 2
    assert heard(*chunks[:8], chunks[7], *chunks[8:17], chunks[16]).short == 1
