"""The outcome in Markdown and JSON: medians of the rounds, and ratios made within each round."""

from __future__ import annotations

import math
import os
import platform
import statistics
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from tests.bench.board import GAP_SECONDS, BoardPlan
from tests.bench.figures import Results, Round
from tests.bench.launch import DIRECT
from tests.bench.measure import Plan
from tests.bench.mock import HELD_DELTAS_PER_SECOND

PEERS = ("sglang-router", "vllm-router", "nginx", "fastapi", "litellm")  # what ours is compared with
COSTS = ("_us", "_ms", "_kib", "_mib")  # figures of which less is better


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One figure of every server. `values` are medians; `ratios` are ours to each peer's."""

    key: str
    title: str
    values: dict[str, float]
    ratios: dict[str, dict[str, float]]
    """By our server's name, then by the peer's."""


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What plot.py reads."""

    about: dict[str, str]
    legend: list[str]
    levels: list[int]
    rows: list[Row]
    errors: dict[str, dict[str, int]]
    unavailable: dict[str, str]
    results: Results


def make(plan: Plan, results: Results, load_before: Sequence[float]) -> Report:
    """Reduce the rounds to figures."""
    return Report(
        about=_about(plan, load_before),
        legend=list(_legend(plan)),
        levels=list(plan.levels),
        rows=[_row(key, title, results) for key, title in _titles(plan)],
        errors={name: dict(_errors(rounds)) for name, rounds in results.rounds.items()},
        unavailable=results.unavailable,
        results=results,
    )


def _legend(plan: Plan) -> Iterator[str]:
    yield "Medians of the rounds; the servers take turns in each. Times are from the client's side."
    yield "`direct` is the upstream itself: the added times are what is more than its own in the same round."
    if board := plan.board:
        stream = f"{board.deltas} deltas, one each {board.microseconds / 1000:g} ms"
        yield f'"board" is the workload of the public gateway board: streams of {stream}, on one core.'
        yield "Of the most streams, every delta arrives; no server can carry more of them than `direct` does."
        yield "A server that waited for its core, because other programs had it, carries more without them."


def _titles(plan: Plan) -> Iterator[tuple[str, str]]:
    yield "idle_us_per_second", "idle: CPU µs per second (subtracted below)"
    paced = f"{plan.paced_streams} x {plan.paced_deltas}, one each {plan.paced_microseconds / 1000:g} ms"
    yield "paced_us", f"paced ({paced}): all CPU µs / deltas"
    yield "paced_without_streams_us", "paced, less the streams' own cost: CPU µs per delta"
    yield "burst_us", f"burst ({plan.burst_streams} x {plan.burst_deltas} at once): all CPU µs / deltas"
    yield "burst_without_streams_us", "burst, less the streams' own cost: CPU µs per delta"
    yield "stream_us", "one-delta answers: CPU µs per stream"
    yield "answers_per_core_second", "one-delta answers per CPU second of the busiest process"
    yield "upstream_connections", f"upstream connections opened for {plan.short_streams} such questions"
    yield "upstream_calls_per_question", "upstream calls per question"
    yield "gap_p50_ms", "paced: gap between deltas, p50 ms"
    yield "gap_p99_ms", "paced: gap between deltas, p99 ms"
    yield "first@1_p50_ms", "time to first delta alone, p50 ms"
    for streams in (1, *plan.levels):
        among = "alone" if streams == 1 else f"beside {streams:,} open streams"
        for part in ("p50", "p99"):
            yield f"added@{streams}_{part}_ms", f"added time to first delta {among}, {part} ms"
    yield "memory@0_mib", "memory with no stream open: PSS MiB"
    for streams in plan.levels:
        yield f"memory@{streams}_kib", f"memory per open stream at {streams:,}: PSS KiB"
    for streams in plan.levels:
        yield (
            f"delta@{streams}_us",
            f"CPU µs per delta at {streams:,} open streams, {HELD_DELTAS_PER_SECOND:,} deltas a second",
        )
    if plan.board:
        yield from _board_titles(plan.board)


def _board_titles(plan: BoardPlan) -> Iterator[tuple[str, str]]:
    for part in ("p50", "p99"):
        yield f"added@board_{part}_ms", f"board: added time to first delta alone, {part} ms"
    yield "added-gap@board_p99_ms", "board: added to the gap between deltas alone, p99 ms"
    for part in ("p50", "p99"):
        new = f"first delta among {plan.new_streams} new streams at once"
        yield f"first@board-new_{part}_ms", f"board: {new}, {part} ms"
    yield "streams@board", f"board: most streams on one core, no gap over {GAP_SECONDS * 1000:g} ms"
    yield "waited@board_percent", "board: of its time at work meanwhile, waited for the core, %"


def _row(key: str, title: str, results: Results) -> Row:
    by_server = {name: _series(key, name, results) for name in results.rounds}
    if not key.startswith(("gap", "first", "streams")):  # it is no relay: its times and its limit are of use
        by_server.pop(DIRECT.name, None)
    values = {
        name: statistics.median(found) for name, series in by_server.items() if (found := _real(series))
    }
    ratios: dict[str, dict[str, float]] = {}
    for name, series in by_server.items():
        for peer in PEERS:
            pairs = zip(series, by_server.get(peer, []), strict=False)
            if (
                key.endswith(COSTS)
                and name.startswith("chat_sse")
                and (found := _real([_ratio(*pair) for pair in pairs]))
            ):
                ratios.setdefault(name, {})[peer] = statistics.median(found)
    return Row(key=key, title=title, values=values, ratios=ratios)


def _series(key: str, name: str, results: Results) -> list[float]:
    """Give one figure of one server for every round, NaN where it is missing."""
    rounds = results.rounds[name]
    if not key.startswith("added"):
        return [found.figures.get(key, math.nan) for found in rounds]
    key = key.replace("added@", "first@").replace("added-gap@", "gap@")
    ground = results.rounds.get(DIRECT.name, [])
    return [
        math.nan
        if name == DIRECT.name
        else found.figures.get(key, math.nan) - base.figures.get(key, math.nan)
        for found, base in zip(rounds, ground, strict=False)
    ]


def _real(series: Sequence[float]) -> list[float]:
    return [value for value in series if math.isfinite(value)]


def _ratio(ours: float, theirs: float) -> float:
    return ours / theirs if theirs > 0 else math.nan


def _errors(rounds: Sequence[Round]) -> Counter[str]:
    total: Counter[str] = Counter()
    for found in rounds:
        total.update(found.errors)
    return total


def _about(plan: Plan, load_before: Sequence[float]) -> dict[str, str]:
    models = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    return {
        "when": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "machine": f"{os.cpu_count()} x {models[0] if models else platform.machine()}",
        "system": f"{platform.system()} {platform.release()}",
        # With its compiler: a Python built without profile-guided optimisation costs half as much again.
        "Python": sys.version,
        "load average before": " ".join(f"{value:.2f}" for value in load_before),
        "load average after": " ".join(f"{value:.2f}" for value in os.getloadavg()),
        "rounds": str(plan.rounds),
    }


def markdown(report: Report) -> str:
    """Write the tables."""
    parts = ["# Benchmark", *(f"- {name}: {value}" for name, value in report.about.items()), ""]
    names = sorted(report.results.rounds, key=_place)
    parts += [
        *report.legend,
        "",
        *_table(
            ["", *names],
            [[row.title, *(_cell(row.values.get(name)) for name in names)] for row in report.rows],
        ),
        "",
        "## Errors",
        "",
    ]
    for name in names:
        told = ", ".join(f"{count} x {kind}" for kind, count in report.errors[name].items())
        parts.append(f"- {name}: {told or 'none'}")
    parts += [f"- {name}: not measured, {reason}" for name, reason in report.unavailable.items()]
    for ours in (name for name in names if name.startswith("chat_sse")):
        peers = [peer for peer in PEERS if peer in report.results.rounds]
        rows = [
            [row.title, *(_cell(row.ratios[ours].get(peer)) for peer in peers)]
            for row in report.rows
            if ours in row.ratios
        ]
        if peers:
            parts += ["", f"## {ours} as a multiple of", "", *_table(["", *peers], rows)]
    return "\n".join(parts) + "\n"


def _place(name: str) -> tuple[int, str]:
    """Order the columns: ours, the peers, the upstream itself."""
    if name.startswith("chat_sse"):
        return 0, name
    return (1 + PEERS.index(name) if name in PEERS else 1 + len(PEERS)), name


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield f"|---|{'---:|' * (len(head) - 1)}"
    for row in rows:
        yield f"| {' | '.join(row)} |"


def _cell(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.3g}"
