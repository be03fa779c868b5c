"""Client libraries under Node: a script of `tests/clients` in a process of its own, and what it reports."""

import json
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from queue import Empty, Queue
from typing import Any

FOLDER = Path(__file__).parent.parent / "clients"
PATIENCE = 30.0


class Reporting:
    """A process whose lines are taken by a thread as they come. `take` gets each, and None after the last."""

    def __init__(self, command: Sequence[str], take: Callable[[str | None], object]) -> None:
        self.process = subprocess.Popen(
            command, cwd=FOLDER, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        self._take = take
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def join(self) -> None:
        """Wait until all its lines are taken."""
        self._thread.join(PATIENCE)

    def close(self) -> None:
        """End it whatever it does, as a closed tab ends a page."""
        self.process.kill()
        self.process.wait(PATIENCE)
        self.join()
        assert self.process.stdout is not None
        self.process.stdout.close()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._take(line)
        self._take(None)


class Node(Reporting):
    """A script of `tests/clients` that reports in lines of JSON."""

    def __init__(self, script: str, order: Mapping[str, Any]) -> None:
        assert (FOLDER / "node_modules").is_dir(), "no clients: npm ci --prefix tests/clients"
        self._lines: Queue[str | None] = Queue()
        super().__init__(["node", str(FOLDER / script), json.dumps(order)], self._lines.put)

    def report(self) -> dict[str, Any]:
        """Wait for the next report."""
        try:
            line = self._lines.get(timeout=PATIENCE)
        except Empty:
            raise AssertionError("the client reports nothing") from None
        assert line is not None, "the client has ended"
        try:
            found: dict[str, Any] = json.loads(line)
        except ValueError:
            self.process.wait(PATIENCE)
            rest = "".join(iter(lambda: self._lines.get(timeout=PATIENCE) or "", ""))
            raise AssertionError(line + rest) from None
        return found


@contextmanager
def node(script: str, **order: Any) -> Iterator[Node]:
    process = Node(script, order)
    try:
        yield process
    finally:
        process.close()


def version(package: str) -> str:
    """Return the version of an npm package that is installed."""
    return str(json.loads((FOLDER / "node_modules" / package / "package.json").read_text())["version"])
