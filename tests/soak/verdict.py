"""Whether a soak's memory is flat, process by process: by how much each question made it grow.

A worker grows by some 6 MiB in its first 5,000 questions, which is no leak: Python's allocator then has 46
arenas instead of 43, while what lives in them stays 42.5 MB (`sys._debugmallocstats`); a part of the rest is
given back by `malloc_trim`. Objects of different ages share arenas, until the peaks have been seen.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from tests.soak.run import Sample

# Shares of the samples that are not judged.
WARM_UP = 0.5
# An answer's log, task and connection are about 10 KiB, and two workers share the questions: it would show if
# one in twenty were kept.
FLAT_BYTES = 256


class Growth(msgspec.Struct, frozen=True, kw_only=True):
    """How a process's memory went after the warm-up."""

    process: str
    megabytes: float
    """At the end."""
    bytes_per_question: float

    @property
    def is_flat(self) -> bool:
        return self.bytes_per_question < FLAT_BYTES

    def __str__(self) -> str:
        verdict = "flat" if self.is_flat else "NOT FLAT"
        return (
            f"{self.process} {self.megabytes:.1f} MiB, {self.bytes_per_question:+.0f} B a question: {verdict}"
        )


def growths(samples: Sequence[Sample]) -> list[Growth]:
    """Return each process's growth: least squares over the samples after the warm-up."""
    counted = samples[int(len(samples) * WARM_UP) :]
    return [
        Growth(process=process, megabytes=size, bytes_per_question=_slope(counted, process) * 1_048_576)
        for process, size in samples[-1].megabytes.items()
    ]


def _slope(samples: Sequence[Sample], process: str) -> float:
    found = [(one.questions, one.megabytes[process]) for one in samples if process in one.megabytes]
    middle, mean = (sum(column) / len(found) for column in zip(*found, strict=True))
    spread = sum((at - middle) ** 2 for at, _ in found)
    product = sum((at - middle) * (size - mean) for at, size in found)
    return product / spread if spread else 0.0
