"""Whether a soak is flat, process by process: by how many blocks of memory each question has left.

The size of a process says less: with 15,000 questions a worker grew from 68 to 77 MiB, in steps of Python's
arenas of 1 MiB, while what lives in them stayed 42.5 MB (`sys._debugmallocstats`). A busy moment needs
another one, and so does what waits for the garbage collector; objects of different ages keep it. Here the
collector runs before each sample.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import linear_regression

import msgspec

from tests.soak.run import Sample

# Caches fill: what is not judged.
WARM_UP = 0.5
# Two workers share the questions, and whatever is kept of one has a block at least.
FLAT_BLOCKS = 0.25


class Growth(msgspec.Struct, frozen=True, kw_only=True):
    """How a process went after the warm-up."""

    process: str
    megabytes: float
    """Its size at the end."""
    blocks_per_question: float

    @property
    def is_flat(self) -> bool:
        return self.blocks_per_question < FLAT_BLOCKS

    def __str__(self) -> str:
        verdict = "flat" if self.is_flat else "NOT FLAT"
        left = f"{self.blocks_per_question:+.2f} blocks a question"
        return f"{self.process} {self.megabytes:.1f} MiB, {left}: {verdict}"


def growths(samples: Sequence[Sample]) -> list[Growth]:
    """Return each process's growth: least squares over the samples after the warm-up."""
    counted, last = samples[int(len(samples) * WARM_UP) :], samples[-1]
    return [
        Growth(
            process=process, megabytes=last.megabytes[process], blocks_per_question=_slope(counted, process)
        )
        for process in last.blocks
    ]


def _slope(samples: Sequence[Sample], process: str) -> float:
    found = [(one.questions, one.blocks[process]) for one in samples if process in one.blocks]
    questions, blocks = zip(*found, strict=True)
    if len(set(questions)) == 1:  # too short to tell
        return 0.0
    return linear_regression(questions, blocks).slope
