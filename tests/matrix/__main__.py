"""The command: `python -m tests.matrix`, or with `--long`. Exit code 1 when a case has failed."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue

import click

from tests.matrix import breakages, cases
from tests.matrix.cases import Outcome
from tests.support.harness import LAYOUTS, Layout

AT_ONCE = 2
"""How many sites are broken at the same time: they mostly wait."""


def outcomes(*, is_long: bool, only: str | None = None) -> Iterator[Outcome]:
    """Run the matrix. `only`: the layouts' cases, or the breakages."""
    found: SimpleQueue[Outcome | None] = SimpleQueue()

    def run(part: Callable[..., Iterator[Outcome]], layout: Layout) -> None:
        try:
            for outcome in part(layout, is_long=is_long):
                found.put(outcome)
        except Exception as exc:  # noqa: BLE001 - the site itself, such as its last exit code
            found.put(Outcome(row="the site", column=layout.name, error=repr(exc)))
        finally:
            found.put(None)

    halves = {"breakages": breakages.run, "cases": cases.run}
    parts = [
        (part, layout) for name, part in halves.items() if only in (None, name) for layout in LAYOUTS[::-1]
    ]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for part, layout in parts:
            pool.submit(run, part, layout)
        for _ in parts:
            while (outcome := found.get()) is not None:
                yield outcome


def table(found: Iterable[Outcome]) -> str:
    """Return the outcomes as a Markdown table: in each cell the cases that survived, of those tried."""
    counts: dict[str, dict[str, list[bool]]] = {}
    for outcome in found:
        counts.setdefault(outcome.row, {}).setdefault(outcome.column, []).append(not outcome.error)
    columns = [layout.name for layout in LAYOUTS]
    lines = [("what happens", *columns), ("---", *("---:" for _ in columns))]
    for row, cells in counts.items():
        lines.append((row, *(_cell(cells.get(column, [])) for column in columns)))
    sums = [[ok for cells in counts.values() for ok in cells.get(column, [])] for column in columns]
    lines.append(("**all**", *map(_cell, sums)))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(survived: list[bool]) -> str:
    return f"{sum(survived)} of {len(survived)}" if survived else ""


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--long", "is_long", is_flag=True, help="Every combination: about ten minutes.")
@click.option("--only", type=click.Choice(["cases", "breakages"]), help="One half of it.")
def main(is_long: bool, only: str | None) -> None:
    """Break what can break while clients read, and hold what must hold: see tests/support/invariants.py."""
    started, found = time.monotonic(), list[Outcome]()
    for outcome in outcomes(is_long=is_long, only=only):
        found.append(outcome)
        if outcome.error:
            click.echo(f"FAILED {outcome.row} ({outcome.column}) {outcome.error}", err=True)
        if len(found) % 50 == 0:
            click.echo(
                f"{time.monotonic() - started:6.1f} s  {len(found)} cases, now {outcome.row}", err=True
            )
    click.echo(table(found))
    sys.exit(any(outcome.error for outcome in found))


if __name__ == "__main__":
    main()
