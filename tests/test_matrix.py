"""The fault matrix in its short form, and that what it holds is able to fail."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from tests.matrix.__main__ import outcomes, table
from tests.matrix.cases import Outcome
from tests.support import visits
from tests.support.faults import FAULTS, WHOLE, Fault
from tests.support.harness import Layout, running_site
from tests.support.invariants import check_question

STALLS = next(fault for fault in FAULTS if fault.name == "stalls")


@pytest.mark.timeout(400)
def test_whatever_breaks_every_reader_gets_one_true_end(capsys: pytest.CaptureFixture[str]) -> None:
    found = list(outcomes(is_long=False))
    with capsys.disabled():
        print(f"\n{table(found)}")  # noqa: T201 - for the record of a run
    assert "\n".join(f"{one.row}: {one.error}" for one in found if one.error) == ""
    assert len(found) > 500


def test_a_case_that_failed_is_counted_as_one() -> None:
    ok, failed = (
        Outcome(row="Redis", column="redis x 1", error=error) for error in ("", "AssertionError: twice")
    )
    assert "| Redis |  | 1 of 2 |  |" in table([ok, failed])


class Got(visits.Visit):
    """A visit that never took place."""

    def __init__(self, fault: Fault, body: bytes, *, fmt: str = "sse", status: int = 200) -> None:
        self.question = visits.Question(port=0, text="q", fault=fault, format=fmt)
        self.status, self.body, self.is_broken = status, body, False


def sse(*events: dict[str, Any], first: int = 0) -> bytes:
    return b"".join(
        b"data: %s\nid: a.%d\n\n" % (msgspec.json.encode(event), number)
        for number, event in enumerate(events, first)
    )


START, DONE = {"type": "start", "id": "a", "model": "m"}, {"type": "done", "finish_reason": "stop"}
CANCELLED = {"type": "done", "finish_reason": "cancelled"}
FAILED = {"type": "error", "error": "timeout_error"}
TEXT = {"type": "delta", "content": WHOLE.text}


def test_what_is_right_passes() -> None:
    check_question([Got(WHOLE, sse(START, TEXT, DONE))], 1)
    check_question([Got(STALLS, sse(START, {"type": "delta", "content": STALLS.text}, FAILED))], 1)
    check_question([Got(WHOLE, sse(START, CANCELLED))], 1, may_cancel=True)


@pytest.mark.parametrize(
    ("fault", "body", "paid", "told"),
    [
        (WHOLE, sse(START, TEXT, DONE), 2, "2 paid calls"),
        (WHOLE, sse(START, TEXT, DONE), 0, "0 paid calls"),
        (WHOLE, sse(START, TEXT), 1, r"endings: \[\]"),
        (WHOLE, sse(START, TEXT, DONE, FAILED), 1, "endings"),
        (WHOLE, sse(START, TEXT, FAILED), 1, "unexpected error"),
        (WHOLE, sse(START, CANCELLED), 1, "nobody did"),
        (WHOLE, sse(START, DONE), 1, "characters, and done"),
        (WHOLE, sse(START, TEXT, TEXT, DONE), 1, "not upstream's text"),
        (WHOLE, sse(START, TEXT, DONE, first=1), 1, "numbers"),
        (WHOLE, sse(START) + sse(TEXT, DONE), 1, "numbers"),
        (WHOLE, sse(START, TEXT, DONE)[:-1], 1, "half an event"),
        (STALLS, sse(START, {"type": "delta", "content": STALLS.text}, DONE), 1, "never said so"),
    ],
)
def test_what_is_wrong_is_found(fault: Fault, body: bytes, paid: int, told: str) -> None:
    with pytest.raises(AssertionError, match=told):
        check_question([Got(fault, body)], paid)


def test_readers_that_disagree_are_found() -> None:
    got = [Got(WHOLE, sse(START, TEXT, DONE)), Got(WHOLE, sse(START, CANCELLED))]
    with pytest.raises(AssertionError, match="disagree"):
        check_question(got, 1, may_cancel=True)


def test_what_a_site_keeps_is_found() -> None:
    with running_site(Layout()) as site:
        standing = site.standing()
        visit = visits.asked(site.question(STALLS)).read(3)
        with pytest.raises(AssertionError, match=r"'running': 1.0|'readers': 1.0|'slots': 4999"):
            standing.check(seconds=0.5)
        visit.read()
        standing.check()
        visits.Visit(site.question(WHOLE), "GET", "/ask?q=a", {"Origin": "https://elsewhere.example"}).read()
        with pytest.raises(AssertionError, match=r"origin\.refused"):
            standing.check()
