"""The benchmark works, whatever its figures are: those are for quiet machines, not for a test."""

import math
import os
from pathlib import Path

import msgspec
import pytest

from tests.bench import report, servers
from tests.bench.board import BoardPlan, most
from tests.bench.builds import quickest
from tests.bench.measure import Plan, measure

TINY = Plan(
    rounds=1,
    idle_seconds=0.1,
    paced_streams=3,
    paced_deltas=5,
    paced_microseconds=5000,
    paced_starts_apart=0.001,
    burst_streams=2,
    burst_deltas=20,
    short_streams=60,
    first_streams=3,
    growth_rounds=1,
    levels=(2, 4),
    level_seconds=0.2,
    level_first_streams=3,
    wait=20.0,
)
WITH_BOARD = msgspec.structs.replace(
    TINY,
    board=BoardPlan(
        deltas=4,
        microseconds=5000,
        alone_streams=3,
        new_streams=4,
        new_times=1,
        search_from=2,
        search_seconds=1.0,
    ),
)


def test_the_benchmark_gives_every_figure_of_ours_without_an_error() -> None:
    said: list[str] = []
    cores = os.sched_getaffinity(0)
    results = measure(WITH_BOARD, [servers.chat_sse()], said.append)
    made = report.make(WITH_BOARD, results, (0.0, 0.0, 0.0))
    assert made.unavailable == {}
    assert made.errors == {"chat_sse": {}, "direct": {}}
    assert len(said) == 2
    assert os.sched_getaffinity(0) == cores
    missing = [row.key for row in made.rows if not math.isfinite(row.values.get("chat_sse", math.nan))]
    assert missing == []
    figures = made.results.rounds["chat_sse"][0].figures
    assert all(
        figures[key] > 0 for key in ("paced_us", "burst_us", "stream_us", "delta@4_us", "memory@0_mib")
    )
    # One paid call a question, over connections that are used again.
    assert figures["upstream_calls_per_question"] == 1
    assert figures["upstream_connections"] < TINY.short_streams
    table = report.markdown(made)
    assert all(f"| {row.title} |" in table for row in made.rows)
    assert {row.key for row in made.rows if "@board" in row.key} == {
        *("added@board_p50_ms", "added@board_p99_ms", "added-gap@board_p99_ms"),
        *("first@board-new_p50_ms", "first@board-new_p99_ms", "streams@board", "waited@board_percent"),
    }


@pytest.mark.parametrize("carried", [0, 1, 63, 64, 700, 5000])
def test_the_most_streams_are_found_from_below(carried: int) -> None:
    asked: list[int] = []

    def holds(streams: int) -> bool:
        asked.append(streams)
        return streams <= carried

    found = most(holds, 64, seconds=60.0)
    assert carried - max(1, carried / 16) <= found <= carried
    assert len(asked) <= 12
    assert 0 not in asked


def test_the_search_for_the_most_streams_is_bounded_in_time() -> None:
    assert most(lambda _: True, 64, seconds=0.0) == 0


def test_a_server_that_cannot_run_is_told_with_its_reason(tmp_path: Path) -> None:
    never_synced = servers.chat_sse(tmp_path)
    made = report.make(TINY, measure(TINY, [never_synced], lambda _: None), (0.0, 0.0, 0.0))
    assert "uv sync" in made.unavailable[never_synced.name]
    assert f"{never_synced.name}: not measured, no " in report.markdown(made)


def test_a_peer_that_is_not_installed_is_told_so_and_not_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    made = report.make(
        TINY, measure(TINY, [servers.vllm_router(install=False)], lambda _: None), (0.0, 0.0, 0.0)
    )
    assert "not installed" in made.unavailable["vllm-router"]
    assert list(tmp_path.iterdir()) == []


def pythons(folder: Path, **prints: str) -> list[str]:
    """Programs that take a trial for Pythons, and tell these seconds."""
    for name, text in prints.items():
        (folder / name).write_text(f"#!/bin/sh\n{text}\n")
        (folder / name).chmod(0o755)
    return [str(folder / name) for name in prints]


def test_the_quickest_build_of_python_is_found_among_those_that_work(tmp_path: Path) -> None:
    found = pythons(tmp_path, broken="exit 1", odd="echo none", quick="echo 1e-8", quicker="echo 1e-9")
    assert quickest([str(tmp_path / "missing"), *found]) == str(tmp_path / "quicker")


def test_the_running_python_stays_where_none_is_clearly_quicker(tmp_path: Path) -> None:
    assert quickest(pythons(tmp_path, slow="echo 1e9", broken="exit 1")) is None
    assert quickest([]) is None
