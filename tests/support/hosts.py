"""An application of somebody's own, under plain uvicorn."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.support.service import FAR_LIMITS

START_SECONDS = 30.0
STOP_SECONDS = 15.0


class Host:
    """A running application."""

    def __init__(self, process: subprocess.Popen[bytes], log_file: Path) -> None:
        self._process, self._log_file = process, log_file
        self.url = self._wait_for_url()

    def log(self) -> str:
        """Return what it has printed."""
        return self._log_file.read_text()

    def terminate(self) -> int:
        """Ask it to end, as a container's runtime does, and return its exit code."""
        self._process.terminate()
        return self._process.wait(STOP_SECONDS)

    def _wait_for_url(self) -> str:
        deadline = time.monotonic() + START_SECONDS
        while not (match := re.search(r"http://127\.0\.0\.1:\d+", self.log())):
            assert time.monotonic() < deadline, self.log()
            assert self._process.poll() is None, self.log()
            time.sleep(0.02)
        return match[0]


@contextmanager
def host(folder: Path, source: str, env: Mapping[str, str], *arguments: str) -> Iterator[Host]:
    """Run a module's `app` until the exit, in a folder of its own."""
    (folder / "application.py").write_text(source)
    log_file = folder / "log"
    with log_file.open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "uvicorn", "application:app", "--port", "0", *arguments],
            env={"PATH": os.environ["PATH"], "PYTHONPATH": str(Path.cwd()), **FAR_LIMITS, **env},
            cwd=folder,
            stderr=log,
            stdout=log,
        )
    try:
        yield Host(process, log_file)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait(STOP_SECONDS)
