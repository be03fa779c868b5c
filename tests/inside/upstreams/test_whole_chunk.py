"""Which data is one chunk of the wire, neither less nor more."""

import pytest

from chat_sse.upstreams.http.connection import whole_chunk


@pytest.mark.parametrize(
    ("data", "content"),
    [
        (b"3\r\nabc\r\n", b"abc"),
        (b"a\r\n0123456789\r\n", b"0123456789"),
        (b"A\r\n0123456789\r\n", b"0123456789"),
        (b"10\r\n0123456789abcdef\r\n", b"0123456789abcdef"),
        (b"f\r\n0123456789abcde\r\n", b"0123456789abcde"),
        (b"03\r\nabc\r\n", b""),
        (b"4\r\nabc\r\n", b""),
        (b"3\r\nabc\r\n0\r\n\r\n", b""),
        (b"3\r\nabcde", b""),
        (b"0\r\n\r\n", b""),
        (b"", b""),
        (b"3;x\r\nabc\r\n", b""),
    ],
)
def test_only_exactly_one_chunk_is_one(data: bytes, content: bytes) -> None:
    assert whole_chunk(data) == content


def test_chunks_of_every_size_are_known() -> None:
    for size in (*range(1, 300), 4095, 4096, 65_535, 65_536):
        content = b"x" * size
        assert whole_chunk(b"%x\r\n%s\r\n" % (size, content)) == content
