"""Rounds of random cases, now and then a breakage, and what the site holds after each."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import msgspec

from tests.matrix import breakages, cases
from tests.support.harness import Layout, Site, running_site
from tests.support.invariants import MEGABYTE, Standing

ROUND_CASES = 60
ROUNDS_PER_BREAKAGE = 4
# Answers are kept that long, and so is the memory they take.
TTL_SECONDS = 10


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """What a site holds after a round."""

    seconds: float
    megabytes: float
    descriptors: int
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
    with running_site(layout, kept) as site:
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
            yield _sample(standing, started, questions, errors)
        time.sleep(min(TTL_SECONDS, seconds))
        explained = (*cases.EXPLAINED, *breakages.EXPLAINED)
        error = cases.error_of(lambda: standing.check(explained=explained, megabytes=32))
        yield _sample(standing, started, questions, [f"afterwards: {error}"] if error else [])


def _may_soak(breakage: breakages.Breakage, layout: Layout) -> bool:
    """Return whether a site holds afterwards what it held before. Its clock is the machine's."""
    return breakage.layout == layout and breakage.same_processes and not breakage.moves_clock


def _round(site: Site, chosen: list[cases.Case]) -> list[str]:
    with ThreadPoolExecutor(cases.AT_ONCE) as pool:
        outcomes = pool.map(lambda case: cases.ask(site, case), chosen)
        return [f"{outcome.row}, {outcome.error}" for outcome in outcomes if outcome.error]


def _sample(standing: Standing, started: float, questions: int, errors: list[str]) -> Sample:
    return Sample(
        seconds=round(time.monotonic() - started, 1),
        megabytes=round(standing.memory_bytes() / MEGABYTE, 1),
        descriptors=standing.descriptors(),
        questions=questions,
        errors=errors,
    )


def slope(samples: list[Sample]) -> float:
    """Return by how many megabytes an hour the memory grew in the second half: least squares."""
    half = samples[len(samples) // 2 :]
    times, sizes = [one.seconds / 3600 for one in half], [one.megabytes for one in half]
    middle, mean = sum(times) / len(times), sum(sizes) / len(sizes)
    spread = sum((at - middle) ** 2 for at in times)
    product = sum((at - middle) * (size - mean) for at, size in zip(times, sizes, strict=True))
    return product / spread if spread else 0.0
