"""Child processes that end with the service, however it ends.

A process that is killed runs no code, so the child sees to it: it serves until its standard input ends, which
happens when every process is gone that holds the other end of the pipe. A child is a file of this package,
run by this interpreter. It imports nothing of the package, so it starts quickly and from wherever it lies.
"""

import subprocess
import sys
import threading


def start_child(program: str, *arguments: str, stdin: int = subprocess.PIPE) -> subprocess.Popen[bytes]:
    """Run a file. `stdin`: where the child reads; by default from a pipe that only this process holds.

    Its standard output is a pipe too, for `first_line`.
    """
    return subprocess.Popen(  # noqa: S603  (a file of ours, by this interpreter)
        [sys.executable, "-P", program, *arguments],  # -P: its folder is no place to import from
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # Ctrl-C in a terminal is for the parent alone, which drains first
    )


def first_line(process: subprocess.Popen[bytes], seconds: float) -> str:
    """Wait for the child's first line and return it, or "" when the child ended or took too long.

    A child that took too long is killed.
    """
    assert process.stdout  # noqa: S101  (a pipe)
    deadline = threading.Timer(seconds, process.kill)
    deadline.start()
    try:
        return process.stdout.readline().decode().strip()
    finally:
        deadline.cancel()


def end_child(process: subprocess.Popen[bytes]) -> None:
    """Kill the child, wait for it and close its pipes; a second call does nothing."""
    process.kill()
    with process:  # closes the pipes and waits
        pass
