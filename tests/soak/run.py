"""Rounds of random cases, now and then a breakage, and what the site holds after each."""

from __future__ import annotations

import os
import random
import signal
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import redis

from tests.bench.proc import anonymous_bytes
from tests.matrix import breakages, cases
from tests.support.harness import Layout, Site, running_site
from tests.support.invariants import MEGABYTE, Standing
from tests.support.service import RunningService, until, workers_of

ROUND_CASES = 60
ROUNDS_PER_BREAKAGE = 4
# Answers are kept that long, and so is the memory they take.
TTL_SECONDS = 10


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """What a site holds after a round."""

    seconds: float
    megabytes: dict[str, float]
    """By process: its anonymous memory. Redis's is what it says that it uses."""
    blocks: dict[str, int]
    """By process: the blocks of memory that Python's objects have."""
    descriptors: int
    redis_keys: int
    questions: int
    """Asked so far."""
    errors: list[str]
    """Of this round."""


def soak(layout: Layout, seconds: float, seed: int) -> Iterator[Sample]:
    """Ask for so long, in rounds, then hold that nothing is left: the last sample's errors tell."""
    chance = random.Random(seed)  # noqa: S311 - no secret
    every = [case for case in cases.long(layout) if not case.fault.is_heavy]
    breaking = [one for one in breakages.BREAKAGES if _may_soak(one, layout)]
    kept = {"CHAT_SSE_STREAM_TTL": str(TTL_SECONDS), "CHAT_SSE_MAX_KEPT_BYTES": str(8 * MEGABYTE)}
    with tempfile.TemporaryDirectory() as folder, running_site(layout, {**kept, **_counting(folder)}) as site:
        standing, questions, started = site.standing(), 0, time.monotonic()
        while time.monotonic() - started < seconds:
            errors = _round(site, chance.sample(every, ROUND_CASES))
            questions += ROUND_CASES
            if breaking and questions // ROUND_CASES % ROUNDS_PER_BREAKAGE == 0:
                breakage = chance.choice(breaking)
                error = cases.error_of(lambda one=breakage: breakages.break_under_load(site, one))
                errors += [f"{breakage.name}: {error}"] if error else []
                site.standing()  # once it takes questions again: after Redis lost its data that is 3 s
            site.upstream.forget()
            yield _sample(site, Path(folder), standing, started, questions, errors)
        time.sleep(min(TTL_SECONDS, seconds))
        explained = (*cases.EXPLAINED, *breakages.EXPLAINED)
        error = cases.error_of(lambda: standing.check(explained=explained, megabytes=32))
        yield _sample(
            site, Path(folder), standing, started, questions, [f"afterwards: {error}"] if error else []
        )


def _may_soak(breakage: breakages.Breakage, layout: Layout) -> bool:
    """Return whether a site holds afterwards what it held before. Its clock is the machine's."""
    return breakage.layout == layout and breakage.same_processes and not breakage.moves_clock


def _round(site: Site, chosen: list[cases.Case]) -> list[str]:
    with ThreadPoolExecutor(cases.AT_ONCE) as pool:
        outcomes = pool.map(lambda case: cases.ask(site, case), chosen)
        return [f"{outcome.row}, {outcome.error}" for outcome in outcomes if outcome.error]


def _sample(
    site: Site, folder: Path, standing: Standing, started: float, questions: int, errors: list[str]
) -> Sample:
    processes = _processes(site.service)
    held = {name: anonymous_bytes(pid) for name, pid in processes.items()}
    keys = 0
    if site.redis is not None:
        with redis.Redis.from_url(site.redis.url, protocol=2) as client:
            held["redis"], keys = client.info("memory")["used_memory"], client.dbsize()
    return Sample(
        seconds=round(time.monotonic() - started, 1),
        megabytes={name: round(size / MEGABYTE, 2) for name, size in held.items()},
        blocks={
            name: _blocks(folder / str(pid), pid)
            for name, pid in processes.items()
            if name != "supervisor"  # which serves nobody, and takes the signal for itself
        },
        descriptors=standing.descriptors(),
        redis_keys=keys,
        questions=questions,
        errors=errors,
    )


def _counting(folder: str) -> dict[str, str]:
    inside = Path(__file__).with_name("inside")
    return {"PYTHONPATH": f"{inside}:{Path.cwd()}", "SOAK_FOLDER": folder}


def _blocks(told: Path, pid: int) -> int:
    """Ask a process how many blocks its objects have: see `inside/sitecustomize.py`."""
    os.kill(pid, signal.SIGUSR2)
    until(told.exists)
    blocks = int(told.read_text())
    told.unlink()
    return blocks


def _processes(service: RunningService) -> dict[str, int]:
    workers = sorted(workers_of(service))
    named = {f"worker {number}": pid for number, pid in enumerate(workers, 1)}
    return {"supervisor" if workers else "service": service.process.pid, **named}
