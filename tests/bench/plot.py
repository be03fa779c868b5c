"""Draw a benchmark's results: `python plot.py results.json plot.png`, in an environment with matplotlib."""

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot as plt

BARS = (
    ("paced_us", "CPU per delta, paced (µs)"),
    ("burst_us", "CPU per delta, burst (µs)"),
    ("stream_us", "CPU per stream (µs)"),
    ("added@1_p50_ms", "added time to first delta, p50 (ms)"),
)
LINES = (
    ("delta@{}_us", "CPU per delta (µs)"),
    ("memory@{}_kib", "memory per open stream (KiB)"),
    ("added@{}_p50_ms", "added time to first delta, p50 (ms)"),
    ("added@{}_p99_ms", "added time to first delta, p99 (ms)"),
)


def main(source: Path, picture: Path) -> None:
    """Read the results and write the picture."""
    report = json.loads(source.read_text())
    values = {row["key"]: row["values"] for row in report["rows"]}
    names = [name for name in report["results"]["rounds"] if name != "direct"]
    names.sort(key=lambda name: (not name.startswith("chat_sse"), name))
    colours = dict(zip(names, plt.get_cmap("tab10").colors * len(names), strict=False))
    figure, axes = plt.subplots(len(BARS), 2, figsize=(11, 12), layout="constrained")
    for axis, (key, title) in zip(axes[:, 0], BARS, strict=True):
        _bars(axis, title, {name: values[key][name] for name in names if name in values[key]}, colours)
    for axis, (key, title) in zip(axes[:, 1], LINES, strict=True):
        for name in names:
            found = [(level, values[key.format(level)].get(name)) for level in report["levels"]]
            points = [(level, value) for level, value in found if value is not None]
            if points:
                axis.plot(*zip(*points, strict=True), marker="o", color=colours[name])
        axis.set(title=title, xlabel="open streams", xscale="log")
        axis.set_ylim(bottom=0)
    about = report["about"]
    figure.suptitle(f"{about['when']}, {about['machine']}, load average {about['load average before']}")
    figure.savefig(picture, dpi=110)


def _bars(axis: Any, title: str, found: dict[str, float], colours: dict[str, Any]) -> None:
    bars = axis.barh(list(found), list(found.values()), color=[colours[name] for name in found])
    axis.bar_label(bars, fmt="{:,.4g}", padding=3)
    axis.set_title(title)
    axis.invert_yaxis()
    axis.margins(x=0.15)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
