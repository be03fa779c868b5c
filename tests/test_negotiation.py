"""Which format a request gets: RFC 9110, 12.5.1."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chat_sse.errors import NotAcceptable
from chat_sse.formats import formats_at
from chat_sse.formats.base import Delivery, Format
from chat_sse.formats.negotiation import choose

DELIVERY = Delivery(
    heartbeat_seconds=1,
    send_timeout_seconds=1,
)
KINDS: tuple[Format, ...] = tuple(kind(DELIVERY) for kind in formats_at())
FORMATS = {kind.name: kind for kind in KINDS}
MEDIA_TYPES = ["text/event-stream", "text/plain", "application/json"]


def chosen(accept: str | None, *, default: str = "sse", wanted: str | None = None) -> str:
    return choose(KINDS, default=default, wanted=wanted, accept=accept).name


@pytest.mark.parametrize(
    ("accept", "name"),
    [
        (None, "sse"),
        ("", "sse"),
        ("*/*", "sse"),
        ("text/event-stream", "sse"),
        ("text/plain", "text"),
        ("TEXT/Plain; charset=utf-8", "text"),
        ("application/json", "json"),
        ("application/*", "json"),
        ("text/*", "sse"),
        ("text/plain;q=0.5, application/json", "json"),
        ("text/plain; q=0.5, application/json ;q=0.4", "text"),
        ("text/*;q=0.3, text/plain;q=0.7, */*;q=0.1", "text"),
        ("text/event-stream;q=0, */*", "text"),
        ("text/plain, */*", "sse"),
        ("application/json, text/plain, */*", "sse"),  # axios
        ("text/plain, */*;q=0.5", "text"),
        ("text/event-stream, */*", "sse"),
        ("application/json, text/event-stream", "sse"),
        ("text/html,application/xhtml+xml,application/xml;q=0.9,image/webp,*/*;q=0.8", "sse"),
        ("application/json, text/plain;q=nan", "json"),
        ("text/plain;q=0.9, application/json;q=0.5, text/plain;q=0.1", "text"),  # the highest of two
        ("text/plain;q=0.1, application/json;q=0.5, text/plain;q=0.9", "text"),
        ("q=1", "sse"),
    ],
)
def test_an_accept_header_gets_the_format_that_it_likes_best(accept: str | None, name: str) -> None:
    assert chosen(accept) == name


def test_a_stream_that_is_named_beside_anything_is_wanted() -> None:
    assert chosen("text/event-stream, */*", default="json") == "sse"


@pytest.mark.parametrize("default", FORMATS)
def test_who_asks_for_nothing_gets_the_default(default: str) -> None:
    assert chosen(None, default=default) == chosen("*/*", default=default) == default


@pytest.mark.parametrize("default", FORMATS)
def test_eventsource_gets_sse_whatever_the_default_is(default: str) -> None:
    assert chosen("text/event-stream", default=default) == "sse"


@pytest.mark.parametrize("accept", ["image/png", "text/html", "text/plain;q=0", "*/*;q=0", "x/*"])
def test_what_nothing_fits_is_refused_with_the_list_of_what_there_is(accept: str) -> None:
    with pytest.raises(NotAcceptable) as caught:
        chosen(accept)
    for kind in FORMATS.values():
        assert f"?format={kind.name} (Accept: {kind.media_type})" in caught.value.details


def test_an_unknown_name_is_refused_with_the_same_list() -> None:
    with pytest.raises(NotAcceptable, match=r"\?format=ai-sdk"):
        chosen("*/*", wanted="xml")


ranges = st.sampled_from([*MEDIA_TYPES, "text/*", "application/*", "*/*", "image/png"])
weights = st.sampled_from(["", ";q=0", ";q=0.001", "; q=0.5", ";q=1", ";q=1.000"])
headers = st.lists(st.tuples(ranges, weights).map("".join), min_size=1, max_size=5).map(", ".join)


@given(st.sampled_from(list(FORMATS)), st.one_of(headers, st.text(max_size=40)))
def test_the_name_in_the_url_wins_over_any_accept(wanted: str, accept: str) -> None:
    assert chosen(accept, wanted=wanted) == wanted


@given(headers, st.sampled_from(MEDIA_TYPES), st.sampled_from(list(FORMATS)))
def test_a_media_type_that_is_refused_by_name_is_never_sent(accept: str, refused: str, default: str) -> None:
    others = ", ".join(item for item in accept.split(", ") if not item.startswith(refused))
    try:
        name = chosen(f"{others}, {refused};q=0", default=default)
    except NotAcceptable:
        return
    assert FORMATS[name].media_type != refused


@given(headers, headers)
def test_what_is_asked_for_with_the_highest_weight_is_sent(others: str, more: str) -> None:
    lower = [item.split(";")[0] + ";q=0.5" for item in f"{others}, {more}".split(", ")]
    assert chosen(", ".join([*lower, "application/json;q=0.9"])) == "json"


@given(st.text(max_size=80), st.sampled_from(list(FORMATS)))
def test_no_header_is_too_strange_to_be_answered(accept: str, default: str) -> None:
    with suppress(NotAcceptable):
        assert chosen(accept, default=default) in FORMATS
