"""Builds of Python: the same version is a tenth slower here when it was built without a profile.

A machine's first Python may be such a one, as pyenv builds it; images and distributions build with a profile.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable

import msgspec

SECONDS = 30.0
# Less than this of the running one's time is no chance.
CLEARLY_QUICKER = 0.9
# Much Python in a short time, and the same work in every build.
_TRIAL = """
import ast, inspect, textwrap, timeit
tree = ast.parse(inspect.getsource(textwrap))
print(min(timeit.repeat("unparse(tree)", number=2, repeat=9, globals={"unparse": ast.unparse, "tree": tree})))
"""


class _Found(msgspec.Struct):
    path: str
    implementation: str
    variant: str
    version_parts: dict[str, int]


def installed(uv: str) -> list[str]:
    """List the builds of the running Python's version that uv finds."""
    command = [uv, "python", "list", "--only-installed", "--output-format", "json"]
    try:
        told = subprocess.run(command, capture_output=True, check=True, timeout=SECONDS).stdout
        found = msgspec.json.decode(told, type=list[_Found])
    except (OSError, subprocess.SubprocessError, msgspec.DecodeError):  # then the running one it is
        return []
    here = {"major": sys.version_info.major, "minor": sys.version_info.minor}
    return [
        one.path
        for one in found
        if (one.implementation, one.variant) == ("cpython", "default")
        and here.items() <= one.version_parts.items()
    ]


def quickest(candidates: Iterable[str]) -> str | None:
    """Give the one that is clearly quicker than the Python that runs this; None when none is."""
    times = {path: seconds for path in candidates if (seconds := _seconds(path)) is not None}
    here = _seconds(sys.executable)
    best = min(times, key=times.__getitem__, default=None)
    if best is None or here is None or times[best] > CLEARLY_QUICKER * here:
        return None
    return best


def _seconds(python: str) -> float | None:
    """Try one; None for one that does not work."""
    try:
        told = subprocess.run(
            [python, "-I", "-c", _TRIAL], capture_output=True, check=True, timeout=SECONDS
        ).stdout
        return float(told)
    except (OSError, subprocess.SubprocessError, ValueError):
        return None
