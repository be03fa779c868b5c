"""The public gateway board's workload: what a server adds to a stream, and how many streams a core carries.

Every stream has 64 deltas, one each 20 ms. The server gets one core, where all its threads and processes run;
the clients and the mock get the others. The mock asked directly is measured in the same way: its most streams
are what the clients and the mock carry themselves, and a server's figure near it is a lower bound.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import msgspec

from tests.bench import proc
from tests.bench.figures import Round

GAP_SECONDS = 0.2
TRIES = 2  # on a shared machine a neighbour can take a core for longer than a gap may last
PRECISION = 1 / 16  # of the most streams: a shared machine's outcomes differ by as much
LATE_SECONDS = 2.0  # an answer that is later than this was not carried

Ask = Callable[..., Any]


class BoardPlan(msgspec.Struct, frozen=True, kw_only=True):
    """How much of it is measured."""

    deltas: int = 64
    microseconds: int = 20_000
    alone_streams: int
    """One after another."""
    new_streams: int = 100
    """At once."""
    new_times: int
    search_from: int = 64
    search_seconds: float

    @property
    def order(self) -> str:
        """What the mock is told."""
        return f"bench paced {self.deltas} {self.microseconds}"

    @property
    def seconds(self) -> float:
        """How long a stream lasts."""
        return self.deltas * self.microseconds / 1e6


FULL = BoardPlan(alone_streams=50, new_times=3, search_seconds=120.0)
QUICK = BoardPlan(alone_streams=20, new_times=1, search_seconds=60.0)


@contextmanager
def one_core(*helpers: int) -> Iterator[None]:
    """Until the exit, what this process starts runs on one core, and the helpers run on the others.

    A server counts its cores when it starts, and makes its threads accordingly. On a machine with one core
    all share it.
    """
    cores = os.sched_getaffinity(0)
    core = {max(cores)}  # the first ones have the machine's interrupts
    for pid in helpers:
        os.sched_setaffinity(pid, cores - core or core)
    os.sched_setaffinity(0, core)
    try:
        yield
    finally:
        for pid in (0, *helpers):
            os.sched_setaffinity(pid, cores)


def measure_board(plan: BoardPlan, ask: Ask, pids: Sequence[int], found: Round) -> None:
    """Measure a running server. `ask` is the clients' command `run`."""
    wait = 2 * plan.alone_streams * plan.seconds + LATE_SECONDS
    alone = ask(plan.order, plan.alone_streams, wait=wait)
    found.count_errors(alone["counts"])
    found.times("first@board", alone["firsts"])
    found.times("gap@board", alone["gaps"])

    firsts: list[float] = []
    for _ in range(plan.new_times):
        new = ask(plan.order, plan.new_streams, plan.new_streams)
        found.count_errors(new["counts"])
        firsts += new["firsts"]
    found.times("first@board-new", firsts)

    def holds(streams: int) -> bool:
        return any(_holds(plan, ask, streams) for _ in range(TRIES))

    ran_before, waited_before = proc.scheduled_seconds(pids)
    found.figures["streams@board"] = most(holds, plan.search_from, plan.search_seconds)
    ran, waited = proc.scheduled_seconds(pids)
    if work := ran - ran_before + waited - waited_before:
        found.figures["waited@board_percent"] = 100 * (waited - waited_before) / work


def most(holds: Callable[[int], bool], start: int, seconds: float) -> int:
    """Find the most streams that hold: double them until they do not, then halve the distance.

    Returns what held when the time is over: 0 when nothing did.
    """
    deadline = time.monotonic() + seconds
    good, bad = 0, math.inf
    while time.monotonic() < deadline and bad - good > max(1, good * PRECISION):
        streams = (good * 2 or start) if bad == math.inf else (good + int(bad)) // 2
        if holds(streams):
            good = streams
        else:
            bad = streams
    return good


def _holds(plan: BoardPlan, ask: Ask, streams: int) -> bool:
    """Keep so many streams open for the time of one, with starts and ends spread evenly.

    Each client asks twice, and the first questions take a stream's time to begin.
    """
    outcome = ask(
        plan.order, 2 * streams, streams, plan.seconds / streams, wait=3 * plan.seconds + LATE_SECONDS
    )
    held = set(outcome["counts"]) == {"answers", "deltas"} and max(outcome["gaps"]) <= GAP_SECONDS
    if not held:
        time.sleep(plan.seconds)  # a server may go on with answers that nobody reads
    return held
