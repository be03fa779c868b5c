"""The rounds: every server in turn, several times, since a machine's speed changes from minute to minute.

In a round a server is started for what it costs, and once more, to be fresh, for how it grows with the number
of open streams. Processor time is that of the server's processes alone, less what they use when idle.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from tests.bench import launch, proc
from tests.bench.board import BoardPlan, measure_board, one_core
from tests.bench.control import Child, child, raise_open_file_limit
from tests.bench.environments import Unavailable
from tests.bench.figures import Results, Round, per
from tests.bench.launch import DIRECT, Running, Server

SETTLE_SECONDS = 0.2  # what a server does after an answer's end is part of the answer's cost
WARM_UP_STREAMS = 60
WARM_UP_SECONDS = 30.0
# A server is up when it has used less of a core than this for so long.
QUIET_SECONDS, QUIET_SHARE = 1.0, 0.05
AT_ONCE = 20
ONE_DELTA = "bench paced 1 0"

Say = Callable[[str], None]


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """How much is measured. Seconds, unless named otherwise."""

    rounds: int
    idle_seconds: float
    paced_streams: int = 100
    paced_deltas: int
    paced_microseconds: int = 20_000
    paced_starts_apart: float = 0.01
    burst_streams: int = 20
    burst_deltas: int = 500
    short_streams: int
    first_streams: int
    growth_rounds: int
    """In how many of the rounds the growth with open streams is measured."""
    levels: tuple[int, ...]
    level_seconds: float
    level_first_streams: int
    wait: float = 60.0
    """Until an answer that has not come is an error."""
    board: BoardPlan | None = None
    """None: that workload is left out."""


FULL = Plan(
    rounds=3,
    idle_seconds=1.0,
    paced_deltas=100,
    short_streams=1000,
    first_streams=300,
    growth_rounds=3,
    levels=(10, 100, 1000, 4000),
    level_seconds=2.0,
    level_first_streams=100,
)
QUICK = Plan(
    rounds=3,
    idle_seconds=0.3,
    paced_deltas=30,
    paced_starts_apart=0.005,
    short_streams=100,
    first_streams=60,
    growth_rounds=1,
    levels=(10, 100, 500),
    level_seconds=1.0,
    level_first_streams=30,
    wait=20.0,
)


def measure(plan: Plan, chosen: Sequence[Server], say: Say) -> Results:
    """Run all rounds. `say` is told what goes on."""
    raise_open_file_limit()
    results = Results()
    order = [DIRECT, *chosen]
    with child("tests.bench.mock") as mock, child("tests.bench.load") as load:
        bench = _Bench(plan, mock, load)
        for number in range(plan.rounds):
            for server in order[number:] + order[:number]:
                if server.name in results.unavailable:
                    continue
                started = time.monotonic()
                try:
                    found = bench.round(server, growth=number < plan.growth_rounds)
                except Unavailable as exc:
                    results.unavailable[server.name] = str(exc)
                    say(f"{server.name}: {exc}")
                    continue
                results.rounds.setdefault(server.name, []).append(found)
                errors = f", {found.errors.total()} errors" if found.errors else ""
                seconds = time.monotonic() - started
                say(f"round {number + 1}/{plan.rounds}  {server.name}: {seconds:.1f} s{errors}")
    return results


class _Bench:
    """The parts of a round."""

    def __init__(self, plan: Plan, mock: Child, load: Child) -> None:
        self._plan = plan
        self._mock = mock
        self._load = load
        self._port = int(mock.call("port"))

    def round(self, server: Server, *, growth: bool) -> Round:
        found = Round()
        with self._running(server) as running:
            self._costs(running, found)
        if growth:
            with self._running(server) as running:
                self._growth(running, found)
        if self._plan.board:
            with (
                one_core(self._mock.process.pid, self._load.process.pid),
                self._running(server) as running,
            ):
                measure_board(self._plan.board, self._ask, running.pids(), found)
        return found

    @contextmanager
    def _running(self, server: Server) -> Iterator[Running]:
        with (
            tempfile.TemporaryDirectory(prefix="bench-") as folder,
            launch.run(server, self._port, Path(folder)) as running,
        ):
            self._aim(running)
            self._warm_up(running)
            try:
                yield running
            finally:
                self._aim(running)

    def _aim(self, running: Running) -> None:
        """Leave all connections, and ask this server from now on."""
        self._load.call("aim", target=msgspec.to_builtins(running.target))

    def _warm_up(self, running: Running) -> None:
        """Ask until it answers, and a little more once all of it is up. Raises Unavailable when it never is.

        Connections from before would all be with the process that was the first to listen.
        """
        deadline = time.monotonic() + WARM_UP_SECONDS
        while (errors := self._ask(ONE_DELTA, 1)["counts"]).get("deltas", 0) < 1:
            if time.monotonic() > deadline:
                raise Unavailable(f"did not answer: {errors}")
            time.sleep(0.1)
        while _Meter(running, QUIET_SECONDS).idle > QUIET_SHARE and time.monotonic() < deadline:
            pass
        self._aim(running)
        self._ask(ONE_DELTA, WARM_UP_STREAMS, AT_ONCE)
        time.sleep(SETTLE_SECONDS)

    def _ask(
        self,
        plan: str,
        streams: int,
        at_once: int = 1,
        starts_apart: float = 0.0,
        wait: float | None = None,
    ) -> Any:
        wait = wait or self._plan.wait
        return self._load.call(
            "run",
            seconds=wait + 30,
            plan=plan,
            streams=streams,
            at_once=at_once,
            starts_apart=starts_apart,
            wait=wait,
        )

    def _costs(self, running: Running, found: Round) -> None:
        plan, figures = self._plan, found.figures
        meter = _Meter(running, plan.idle_seconds)
        figures["idle_us_per_second"] = meter.idle * 1e6

        before = self._mock.call("count")
        outcome, cpu = self._metered(meter, ONE_DELTA, plan.short_streams, AT_ONCE, found)
        after = self._mock.call("count")
        figures["upstream_connections"] = after["connections"] - before["connections"]
        figures["upstream_calls_per_question"] = (after["calls"] - before["calls"]) / plan.short_streams
        answers = outcome["counts"].get("answers", 0)
        per_stream = per(cpu, answers)
        figures["stream_us"] = per_stream
        figures["answers_per_core_second"] = answers / meter.busiest if meter.busiest else float("nan")

        paced = f"bench paced {plan.paced_deltas} {plan.paced_microseconds}"
        outcome, cpu = self._metered(
            meter, paced, plan.paced_streams, plan.paced_streams, found, plan.paced_starts_apart
        )
        found.cost_of_deltas("paced", outcome["counts"], cpu, per_stream)
        found.times("gap", outcome["gaps"])

        outcome, cpu = self._metered(
            meter, f"bench burst {plan.burst_deltas} 0", plan.burst_streams, plan.burst_streams, found
        )
        found.cost_of_deltas("burst", outcome["counts"], cpu, per_stream)

        outcome, _ = self._metered(meter, ONE_DELTA, plan.first_streams, 1, found)
        found.times("first@1", outcome["firsts"])

    def _metered(
        self,
        meter: _Meter,
        plan: str,
        streams: int,
        at_once: int,
        found: Round,
        starts_apart: float = 0.0,
    ) -> tuple[Any, float]:
        meter.start()
        outcome = self._ask(plan, streams, at_once, starts_apart)
        time.sleep(SETTLE_SECONDS)
        cpu = meter.stop()
        found.count_errors(outcome["counts"])
        return outcome, cpu

    def _growth(self, running: Running, found: Round) -> None:
        """Open more and more streams, none of which ends."""
        plan, figures = self._plan, found.figures
        meter = _Meter(running, plan.idle_seconds)
        empty = proc.pss_bytes(running.pids())
        figures["memory@0_mib"] = empty / 2**20
        for level in plan.levels:
            outcome = self._load.call("hold", seconds=plan.wait + 30, streams=level, wait=plan.wait)
            found.count_errors(outcome["counts"])
            time.sleep(SETTLE_SECONDS)
            before = self._load.call("count")
            meter.start()
            time.sleep(plan.level_seconds)
            cpu = meter.stop()
            after = self._load.call("count")
            if after["open"] < level:
                lost = level - after["open"] - sum(outcome["counts"].values())
                if lost > 0:
                    found.errors["held stream lost"] += lost
                return  # more streams would only be more errors
            figures[f"delta@{level}_us"] = per(cpu, after["deltas"] - before["deltas"])
            grown = proc.pss_bytes(running.pids()) - empty
            figures[f"memory@{level}_kib"] = grown / 1024 / level
            outcome = self._ask(ONE_DELTA, plan.level_first_streams)
            found.count_errors(outcome["counts"])
            found.times(f"first@{level}", outcome["firsts"])


class _Meter:
    """Processor seconds of a server beyond its idle use."""

    def __init__(self, running: Running, idle_seconds: float) -> None:
        self._pids = running.pids()
        self.idle = 0.0
        """Seconds per second."""
        self.busiest = 0.0
        """Processor seconds of the process that used most, idle use included."""
        self.start()
        time.sleep(idle_seconds)
        self.idle = max(0.0, self.stop() / idle_seconds)

    def start(self) -> None:
        self._cpu, self._at = self._spent(), time.monotonic()

    def stop(self) -> float:
        spent = [now - before for now, before in zip(self._spent(), self._cpu, strict=True)]
        self.busiest = max(spent, default=0.0)
        return sum(spent) - self.idle * (time.monotonic() - self._at)

    def _spent(self) -> list[float]:
        return [proc.cpu_seconds(pid) for pid in self._pids]
