"""The command: `python -m tests.soak --minutes 60`. Exit code 1 when a promise was broken."""

from __future__ import annotations

import sys
from pathlib import Path

import click
import msgspec

from tests.bench.environments import Unavailable, draw
from tests.bench.servers import REPOSITORY
from tests.soak.run import Sample, soak
from tests.soak.verdict import growths
from tests.support.harness import LAYOUTS

ARTIFACTS = REPOSITORY / "tests" / ".artifacts"


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--minutes", type=click.FloatRange(min=0.1), default=10.0, show_default=True)
@click.option(
    "--layout",
    type=click.Choice([layout.name for layout in LAYOUTS]),
    default=LAYOUTS[-1].name,
    show_default=True,
    help="Where the log is, and how many processes there are.",
)
@click.option("--seed", default=0, show_default=True, help="Another one gives another order.")
@click.option("--out", default=ARTIFACTS, type=click.Path(path_type=Path), help="Where the results go.")
def main(minutes: float, layout: str, seed: int, out: Path) -> None:
    """Ask and break in random order for so long. Writes soak.json and soak.png."""
    chosen = next(one for one in LAYOUTS if one.name == layout)
    samples: list[Sample] = []
    for sample in soak(chosen, minutes * 60, seed):
        samples.append(sample)
        held = "  ".join(f"{name} {size:.1f}" for name, size in sample.megabytes.items())
        line = f"{sample.seconds:7.1f} s  {sample.questions} questions  MiB: {held}"
        click.echo(f"{line}  {sample.descriptors} descriptors", err=True)
        for error in sample.errors:
            click.echo(f"BROKEN {error}", err=True)
    broken = sum(len(sample.errors) for sample in samples)
    about = f"{layout}: {samples[-1].questions} questions in {minutes:g} minutes, {broken} broken promises"
    verdicts = [str(growth) for growth in growths(samples)]
    out.mkdir(parents=True, exist_ok=True)
    (out / "soak.json").write_bytes(
        msgspec.json.encode({"about": about, "verdicts": verdicts, "samples": samples})
    )
    click.echo("\n".join((about, *verdicts)))
    try:
        draw(Path(__file__).with_name("plot.py"), out / "soak.json", out / "soak.png")
    except Unavailable as exc:
        click.echo(f"no plot: {exc}", err=True)
    sys.exit(broken > 0)


if __name__ == "__main__":
    main()
