"""The process beside the service's own Redis: starts it, and ends it when the service is gone.

Arguments: a private folder, the socket in it, and the command that starts Redis. Once Redis listens, it
prints a line. When the service is gone, which is when standard input ends, it kills Redis, which keeps
nothing on disk, and removes the folder. When Redis ends by itself, it ends with its exit code, and leaves the
folder to the next one.
"""

import ctypes
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable

POLL_SECONDS = 0.01
PR_SET_PDEATHSIG = 1  # linux/prctl.h


def keep(folder: str, path: str, *command: str) -> int:
    """Run Redis until it or the service ends. Returns the exit code, as a shell does."""
    # An init system signals a service's children too, but the service drains first and needs its Redis for
    # that. Blocked signals stay blocked in Redis, which would undo it if they were only ignored.
    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM, signal.SIGHUP))
    redis = subprocess.Popen(  # noqa: S603  (the service's command)
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        preexec_fn=_dying_with_parent(),  # noqa: PLW1509  (there is one thread as yet)
    )
    gone = threading.Event()
    threading.Thread(target=_end_with_service, args=(redis, gone), daemon=True).start()
    while redis.poll() is None and not _listens(path):
        time.sleep(POLL_SECONDS)
    if redis.poll() is None:
        os.write(1, b"ready\n")
    code = redis.wait()
    if gone.is_set():
        shutil.rmtree(folder, ignore_errors=True)
    return code if code >= 0 else 128 - code


def _end_with_service(redis: subprocess.Popen[bytes], gone: threading.Event) -> None:
    os.read(0, 1)  # nobody writes; a buffered read would hold a lock that the interpreter needs to exit
    gone.set()
    redis.kill()


def _dying_with_parent() -> Callable[[], object] | None:
    """Return what a child calls first so that it dies with this process if that is killed; on Linux."""
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None).prctl
    return lambda: prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _listens(path: str) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(path) == 0


if __name__ == "__main__":
    sys.exit(keep(*sys.argv[1:]))
