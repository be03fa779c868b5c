"""What a round found, and how counts and times are reduced to figures."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence

import msgspec


class Round(msgspec.Struct, kw_only=True):
    """One server's figures of one round, by the names in report.py, and its errors."""

    figures: dict[str, float] = msgspec.field(default_factory=dict)
    errors: Counter[str] = msgspec.field(default_factory=Counter)

    def times(self, name: str, seconds: Sequence[float]) -> None:
        """Tell the median and the 99th of a hundred, in milliseconds."""
        if len(seconds) > 1:
            cuts = statistics.quantiles(seconds, n=100, method="inclusive")
            self.figures[f"{name}_p50_ms"] = cuts[49] * 1000
            self.figures[f"{name}_p99_ms"] = cuts[98] * 1000

    def cost_of_deltas(self, kind: str, counts: Mapping[str, int], cpu: float, per_stream_us: float) -> None:
        """Tell all processor time by the delta, and what is left of it without the streams' own cost.

        A stream's cost includes its first delta, so that one is taken from the deltas too.
        """
        deltas, streams = counts.get("deltas", 0), counts.get("answers", 0)
        self.figures[f"{kind}_us"] = per(cpu, deltas)
        rest = cpu - streams * per_stream_us / 1e6
        self.figures[f"{kind}_without_streams_us"] = per(rest, deltas - streams)

    def count_errors(self, counts: Mapping[str, int]) -> None:
        """Add the errors among the clients' counts."""
        for name, count in counts.items():
            if name.startswith("error: "):
                self.errors[name.removeprefix("error: ")] += count


class Results(msgspec.Struct, kw_only=True):
    """All rounds of all servers, those that could not be measured with the reason."""

    rounds: dict[str, list[Round]] = msgspec.field(default_factory=dict)
    unavailable: dict[str, str] = msgspec.field(default_factory=dict)


def per(cpu_seconds: float, count: int) -> float:
    """Divide processor time, in microseconds; NaN when there is nothing to divide by."""
    return cpu_seconds * 1e6 / count if count else float("nan")
