"""A question that upstream refused: how its body is unpacked, and when it is asked again."""

import gzip
import zlib
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from chat_sse.upstreams.openai.refusal import (
    Refused,
    backoff_seconds,
    decompressed,
    retry_after,
    retry_seconds,
)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "1.5"}, 1.5),
        ({"retry-after": "0"}, 0),
        ({"retry-after": "999999"}, 86_400),
        ({"retry-after": "9" * 300}, 86_400),
        ({"retry-after": "Thu, 01 Jan 1970 00:00:00 GMT"}, 0),
        ({"retry-after-ms": "1500"}, 1.5),
        ({"retry-after-ms": "soon", "retry-after": "3"}, 3),
    ],
)
def test_a_wait_is_read_as_it_is_written(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after(headers) == seconds


def test_a_wait_until_a_date_is_read() -> None:
    date = format_datetime(datetime.now(UTC) + timedelta(days=0.5), usegmt=True)
    assert 43_000 <= (retry_after({"retry-after": date}) or 0) <= 43_200


@pytest.mark.parametrize(
    "sent",
    [
        *("", "inf", "-inf", "Infinity", "nan", "-1", "soon", "1e999", "9" * 6000),
        "Mon, 99 Foo 99999 25:61:61 GMT",
    ],
)
def test_a_wait_that_makes_no_sense_is_none(sent: str) -> None:
    assert retry_after({"retry-after": sent}) is None


def test_only_what_may_pass_is_asked_again() -> None:
    def wait(status: int, **headers: str) -> float | None:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return retry_seconds(Refused(status=status, headers=named, content=b""), 0)

    assert [wait(status) is None for status in (400, 408, 409, 422, 429, 499, 500, 503)] == [
        *(True, False, False, True),
        *(False, True, False, False),
    ]
    assert wait(500, x_should_retry="false") is None
    assert wait(429, retry_after="2") == 2
    assert wait(429, retry_after="2.1") is None
    assert 0.375 <= (wait(429, retry_after="0") or 0) <= 0.5


def test_each_wait_is_twice_the_one_before_less_a_quarter_at_most() -> None:
    waits = [[backoff_seconds(attempt) for _ in range(50)] for attempt in range(3)]
    for several, most in zip(waits, (0.5, 1, 2), strict=True):
        assert 0.75 * most <= min(several) < max(several) <= most


def test_decompressing_is_bounded_at_each_layer() -> None:
    packed = gzip.compress(gzip.compress(b'{"error":"x"}'))
    assert decompressed(packed, "gzip, gzip") == b'{"error":"x"}'
    assert len(decompressed(packed[:20], "gzip")) < 20
    assert len(decompressed(gzip.compress(b"\0" * 10_000_000), "gzip")) == 65_536
    assert decompressed(gzip.compress(zlib.compress(b"x")), "deflate, identity, X-GZip, ") == b"x"
    assert decompressed(gzip.compress(packed), "gzip, gzip, gzip") == b""


@pytest.mark.parametrize("coding", ["br", "gzip", "x-gzip", "gzip, br"])
@pytest.mark.parametrize("content", [b"no code", zlib.compress(b"another code")])
def test_what_is_no_such_code_is_nothing(coding: str, content: bytes) -> None:
    assert decompressed(content, coding) == b""
    assert decompressed(content, "identity") == content
