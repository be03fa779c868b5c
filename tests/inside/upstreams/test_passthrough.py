"""Which text may stand between a delta's bytes without being parsed, and what is padding."""

import msgspec
import pytest

from chat_sse.events import Delta
from chat_sse.upstreams.openai.passthrough import Passthrough, derive

PLAIN = b'data: {"choices":[{"delta":{"content":"%s"}}]}\n\n'
PADDED = b'data: {"choices":[{"delta":{"content":"%s"}}],"p":"%s"}\n\n'


def derived(*events: bytes) -> Passthrough:
    known: Passthrough | None = None
    for data in events:
        known = derive(data, Delta("a"), known)
    assert known is not None
    return known


@pytest.mark.parametrize("text", [b"", b'"', b"\\", b"\\\\\\", b"\x80", b"\xe2\x82", b"\x1f", b"\\u0041"])
def test_what_our_encoder_would_not_write_is_no_text(text: bytes) -> None:
    assert derived(PLAIN % b"a").entry(PLAIN % text) is None
    padded = derived(PADDED % (b"a", b"x"), PADDED % (b"a", b"yy"))
    assert padded.entry(PADDED % (text, b"x")) is None
    assert text == b"" or padded.entry(PADDED % (b"a", text)) is None


@pytest.mark.parametrize("text", ["b", " ", "~\x7f", "\n", '"', "\\", "€", "\x80", "b\u2028"])
def test_what_it_would_write_is_one(text: str) -> None:
    inside, entry = msgspec.json.encode(text)[1:-1], msgspec.json.encode(Delta(text))
    plain = derived(PLAIN % b"a")
    assert not plain.served
    assert plain.entry(PLAIN % inside) == entry
    assert plain.served
    if text == '"':
        return  # the next quote is taken for the text's end where padding follows
    for padding in (b"", inside):
        padded = derived(PADDED % (b"a", b"x"), PADDED % (b"a", b"yy"))
        assert not padded.served
        assert padded.entry(PADDED % (inside, padding)) == entry
        assert padded.served
