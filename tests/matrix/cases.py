"""Questions to an upstream that fails, by clients that fail: each a case, many at once."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import msgspec

from tests.support import visits
from tests.support.faults import FAULTS, HEAVY, SLOW, TRUNCATED, Fault
from tests.support.harness import Layout, Site, running_site
from tests.support.invariants import check_question

AT_ONCE = 24
HEAVY_AT_ONCE = 2  # more are too much for the deadlines of a machine with two cores
LEFT = {False: 80.0, True: 400.0}
"""Megabytes that kept answers and the allocator may hold, by `is_heavy`.

Twenty answers of 10 MB at once leave 250 to 320, and no more when they are asked again and again.
"""
# What the log must say of these: text tells of a fault by breaking off.
EXPLAINED = ("text.broken_off", "upstream.refused")


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """One cell."""

    layout: Layout
    fault: Fault
    behaviour: visits.Behaviour
    format: str

    @property
    def rest(self) -> str:
        return f"{self.behaviour.__name__}, {self.format}"


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a case. `row` and `column` are its place in the table."""

    row: str
    column: str
    error: str = ""


def short(layout: Layout) -> Iterator[Case]:
    """Each fault with each behaviour, and with each format: in one process with memory; elsewhere fewer."""
    is_first = layout == Layout()
    for number, fault in enumerate(FAULTS):
        for behaviour in visits.BEHAVIOURS[number % 2 :: 1 if is_first else 2]:
            yield Case(layout=layout, fault=fault, behaviour=behaviour, format="sse")
        for fmt in visits.FORMATS[1:]:
            yield Case(layout=layout, fault=fault, behaviour=visits.stays, format=fmt)
    for behaviour in visits.BEHAVIOURS:
        for fmt in visits.FORMATS[1:]:
            yield Case(layout=layout, fault=SLOW, behaviour=behaviour, format=fmt)
    for fault in TRUNCATED:
        yield Case(layout=layout, fault=fault, behaviour=visits.stays, format="sse")
    for fault in HEAVY:
        yield Case(layout=layout, fault=fault, behaviour=visits.stays, format="sse" if is_first else "text")


def long(layout: Layout) -> Iterator[Case]:
    """Every combination."""
    for fault in (*FAULTS, *TRUNCATED, *HEAVY):
        behaviours = (visits.stays, visits.stops_reading) if fault.is_heavy else visits.BEHAVIOURS
        for behaviour in behaviours:
            for fmt in visits.FORMATS:
                yield Case(layout=layout, fault=fault, behaviour=behaviour, format=fmt)


def run(layout: Layout, *, is_long: bool) -> Iterator[Outcome]:
    """Run a layout's cases, then hold that nothing is left."""
    cases = list((long if is_long else short)(layout))
    with running_site(layout) as site:
        standing, errors = site.standing(), list[str]()
        # The heavy ones last: they push the answers of others out of the memory.
        for is_heavy, megabytes in LEFT.items():
            with ThreadPoolExecutor(HEAVY_AT_ONCE if is_heavy else AT_ONCE) as pool:
                asked = [case for case in cases if case.fault.is_heavy is is_heavy]
                yield from pool.map(lambda case: ask(site, case), asked)
            left = partial(standing.check, explained=EXPLAINED, megabytes=megabytes)
            errors += filter(None, [error_of(left)])
        yield Outcome(row="afterwards nothing is left", column=layout.name, error="; ".join(errors))


def ask(site: Site, case: Case) -> Outcome:
    question = site.question(case.fault, case.format)
    leaves = case.behaviour in visits.LEAVING and case.format in ("text", "json")

    def check() -> None:
        got = case.behaviour(question)
        may_cancel = leaves or case.behaviour is visits.stops
        check_question(got, site.paid(question), may_cancel=may_cancel)

    error = error_of(check)
    return Outcome(
        row=case.fault.name, column=case.layout.name, error=f"{case.rest}: {error}" if error else ""
    )


def error_of(attempt: object) -> str:
    try:
        attempt()  # type: ignore[operator]
    except Exception as exc:  # noqa: BLE001 - a case that failed, however
        return f"{type(exc).__name__}: {str(exc)[:600]}"
    return ""
