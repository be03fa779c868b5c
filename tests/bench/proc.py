"""What the kernel says of a process and all its children: processor time and memory.

Sources: clock_getcpuclockid(3), proc_pid_stat(5), proc_pid_smaps_rollup(5), and for schedstat the kernel's
https://docs.kernel.org/scheduler/sched-stats.html.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from pathlib import Path

_PROC = Path("/proc")
_SCHED = 2  # the clock of a process that counts nanoseconds; its number is made of this and the process's


def family(pid: int) -> list[int]:
    """List a process and its descendants."""
    children: dict[int, list[int]] = {}
    for folder in _PROC.iterdir():
        if folder.name.isdecimal():
            with contextlib.suppress(OSError):
                # The second field is the name in brackets, which may hold anything.
                parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
                children.setdefault(parent, []).append(int(folder.name))
    found = [pid]
    for member in found:
        found.extend(children.get(member, []))
    return found


def cpu_seconds(pid: int) -> float:
    """Give the user and system time of a process, all its threads included; 0 when it is gone.

    This is utime + stime of /proc/<pid>/stat, read through the process's clock, which counts nanoseconds: the
    file counts hundredths of a second, which is what 2,000 deltas cost.
    """
    try:
        return time.clock_gettime((~pid << 3) | _SCHED)
    except OSError:
        return 0.0


def scheduled_seconds(pids: Sequence[int]) -> tuple[float, float]:
    """Sum the time that all threads of processes have run, and that they were ready to while others ran."""
    ran = waited = 0
    for pid in pids:
        for thread in (_PROC / str(pid) / "task").glob("*/schedstat"):
            with contextlib.suppress(OSError):
                times = thread.read_text().split()
                ran, waited = ran + int(times[0]), waited + int(times[1])
    return ran / 1e9, waited / 1e9


def pss_bytes(pids: list[int]) -> int:
    """Sum the proportional set size of processes: resident memory, shared pages divided by their users."""
    return sum(_rollup(pid, "Pss:") for pid in pids)


def anonymous_bytes(pid: int) -> int:
    """Return the memory of a process that is no file's: heap and stacks; 0 when it is gone.

    Unlike the proportional set size it does not move when another process maps or leaves the same libraries.
    """
    return _rollup(pid, "Anonymous:")


def _rollup(pid: int, field: str) -> int:
    with contextlib.suppress(OSError):
        for line in (_PROC / str(pid) / "smaps_rollup").read_text().splitlines():
            if line.startswith(field):
                return int(line.split()[1]) * 1024
    return 0
