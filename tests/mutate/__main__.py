"""The command: rooms in, a score and the survivors of each out."""

import argparse
import os
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from tests.mutate.mutants import Mutant, mutants_of
from tests.mutate.rooms import ROOMS, ROOT, Room
from tests.mutate.run import Verdict, verdicts

EQUIVALENT = Path(__file__).parent / "equivalent.txt"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it. Returns 1 when a room's score is below the least one asked for."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutate", description=__doc__)
    parser.add_argument("rooms", nargs="*", metavar="room", help=f"of {', '.join(ROOMS)}; all by default")
    parser.add_argument("--list", action="store_true", help="list the mutants, and try none")
    parser.add_argument("--only", default="", help="of files whose path has this in it")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--least", type=float, default=0, metavar="PERCENT", help="fail below this score")
    chosen = parser.parse_args(arguments)
    if unknown := set(chosen.rooms) - set(ROOMS):
        parser.error(f"no room {', '.join(sorted(unknown))}")
    scores = []
    for name in chosen.rooms or ROOMS:
        room = ROOMS[name]._replace(paths=tuple(path for path in ROOMS[name].paths if chosen.only in path))
        if chosen.list:
            show(room)
        else:
            scores.append(score(name, room, chosen.jobs))
    return int(any(one < chosen.least for one in scores))


def show(room: Room) -> None:
    """Print a room's mutants."""
    for path in room.paths:
        for mutant in mutants_of((ROOT / path).read_text()):
            print(told(path, mutant))  # noqa: T201 - a command


def score(name: str, room: Room, jobs: int) -> float:
    """Try a room's mutants, print the survivors and the score, and return it in percent."""
    began = time.monotonic()
    known = equivalents()
    noticed, counted, excused = Counter[str](), Counter[str](), Counter[str]()

    def count(verdict: Verdict) -> None:
        path, mutant, was_noticed = verdict
        if not was_noticed and key_of(path, mutant) in known:
            excused[path] += 1
            return
        counted[path] += 1
        noticed[path] += was_noticed
        if not was_noticed:
            print(f"survived  {told(path, mutant)}", flush=True)  # noqa: T201 - a command

    verdicts(room.paths, room.tests, jobs, count)
    for path in counted:
        print(f"{path}: {noticed[path]} of {counted[path]} noticed")  # noqa: T201 - a command
    total = 100 * noticed.total() / max(1, counted.total())
    print(  # noqa: T201 - a command
        f"{name}: {total:.1f} % of {counted.total()} mutants noticed, {excused.total()} equivalent ones not "
        f"counted, {time.monotonic() - began:.0f} s"
    )
    return total


def told(path: str, mutant: Mutant) -> str:
    """Say where and what a mutant is."""
    return f"{path}:{mutant.line}  {mutant.what}"


def key_of(path: str, mutant: Mutant) -> str:
    """Name a mutant by what stays when lines move: its file, its line's text, and what it is."""
    line = (ROOT / path).read_text().splitlines()[mutant.line - 1].strip()
    return f"{path} | {line} | {mutant.what}"


def equivalents() -> set[str]:
    """Read the list of the mutants that change nothing that can be noticed."""
    lines = [line for line in EQUIVALENT.read_text().splitlines() if line and not line.startswith("#")]
    return {line.rpartition(" | ")[0] for line in lines}


if __name__ == "__main__":
    raise SystemExit(main())
