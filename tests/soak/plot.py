"""Draw a soak: `python plot.py soak.json soak.png`, in an environment with matplotlib."""

import json
import sys
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot as plt


def main(source: Path, picture: Path) -> None:
    """Read the samples and write the picture."""
    report = json.loads(source.read_text())
    samples = report["samples"]
    minutes = [one["seconds"] / 60 for one in samples]
    figure, axes = plt.subplots(4, 1, figsize=(9, 10), sharex=True, layout="constrained")
    memory, blocks, descriptors, keys = axes
    for process in samples[-1]["megabytes"]:
        memory.plot(minutes, [one["megabytes"].get(process) for one in samples], label=process)
    memory.set_title("anonymous memory of each process, and what Redis uses (MiB)")
    for process, verdict in zip(samples[-1]["blocks"], report["verdicts"], strict=True):
        blocks.plot(minutes, [one["blocks"].get(process) for one in samples], label=verdict)
    blocks.set_title("blocks of memory that Python's objects have; the second half is judged")
    descriptors.plot(minutes, [one["descriptors"] for one in samples])
    descriptors.set_title("descriptors, but those to upstream")
    keys.plot(minutes, [one["redis_keys"] for one in samples])
    keys.set_title("keys in Redis")
    for axis in (memory, blocks):
        axis.legend(loc="center right", fontsize="small")
    for axis in axes:
        axis.set_ylim(0, 1.05 * axis.get_ylim()[1])
        for at, one in zip(minutes, samples, strict=True):
            if one["errors"]:
                axis.axvline(at, color="tab:red", alpha=0.5)
    keys.set_xlabel("minutes; red: a promise was broken")
    figure.suptitle(report["about"])
    figure.savefig(picture, dpi=110)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
