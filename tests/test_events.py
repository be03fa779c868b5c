"""Ids, and the one body that errors and failures share."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chat_sse.errors import ChatError, UpstreamTimeout
from chat_sse.events import (
    Delta,
    Done,
    Event,
    Reasoning,
    Start,
    Terminal,
    event_id,
    failure,
    is_terminal,
    new_stream_id,
    parse_event_id,
)


@given(st.integers(0, 999_999_999))
def test_an_event_id_is_read_back_as_it_was_made(seq: int) -> None:
    stream_id = new_stream_id()
    assert parse_event_id(event_id(stream_id, seq)) == (stream_id, seq)


@pytest.mark.parametrize(
    "text",
    ["", "a", "a.", ".1", "a.-1", "a.01", "a.1.2", "a b.1", "a.1\n", "ä.1", "a" * 65 + ".1", "a.1234567890"],
)
def test_any_other_text_is_no_event_id(text: str) -> None:
    with pytest.raises(ValueError, match="not an event id"):
        parse_event_id(text)


@pytest.mark.parametrize(
    "event",
    [
        Start(id="a", model="m"),
        Delta('{"type":"done"'),
        Reasoning("r"),
        Done(finish_reason=None),
        failure(UpstreamTimeout(), "r"),
    ],
)
def test_an_entry_is_terminal_if_its_event_is(event: Event) -> None:
    assert is_terminal(msgspec.json.encode(event)) == isinstance(event, Terminal)


def test_a_failure_is_the_error_body_as_an_event() -> None:
    error = UpstreamTimeout("silence")
    body = msgspec.to_builtins(error.body("r1"))
    assert msgspec.to_builtins(failure(error, "r1")) == {"type": "error", **body}


def test_every_error_has_a_code_of_its_own_and_a_sentence_for_the_person() -> None:
    kinds = list(descendants(ChatError))
    codes = [kind.code for kind in kinds if hasattr(kind, "code")]
    assert len(codes) == len(set(codes))
    assert all(kind("x").body("r").content for kind in kinds if hasattr(kind, "code"))


def descendants(kind: type[ChatError]) -> list[type[ChatError]]:
    return [found for child in kind.__subclasses__() for found in (child, *descendants(child))]
