"""Draw a soak: `python plot.py soak.json soak.png`, in an environment with matplotlib."""

import json
import sys
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot as plt

KINDS = (
    ("megabytes", "memory of all processes (MiB)"),
    ("descriptors", "descriptors, but those to upstream"),
)


def main(source: Path, picture: Path) -> None:
    """Read the samples and write the picture."""
    report = json.loads(source.read_text())
    samples = report["samples"]
    minutes = [one["seconds"] / 60 for one in samples]
    figure, axes = plt.subplots(2, 1, figsize=(9, 6), sharex=True, layout="constrained")
    for axis, (kind, title) in zip(axes, KINDS, strict=True):
        axis.plot(minutes, [one[kind] for one in samples])
        for at, one in zip(minutes, samples, strict=True):
            if one["errors"]:
                axis.axvline(at, color="tab:red", alpha=0.5)
        axis.set_title(title)
        axis.set_ylim(bottom=0)
    axes[-1].set_xlabel("minutes; red: a promise was broken")
    figure.suptitle(report["about"])
    figure.savefig(picture, dpi=110)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
