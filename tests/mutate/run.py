"""Tries mutants, each in a child that is forked when all is imported and all tests are collected.

A change within a function is made by giving that function the changed code. Any other, such as one of a
constant, needs the package imported anew: the child forgets it and lets pytest begin again.
"""

import contextlib
import gc
import importlib.util
import os
import resource
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from importlib.machinery import ModuleSpec, SourceFileLoader
from pathlib import Path
from types import CodeType
from typing import NamedTuple

import hypothesis
import pytest

from tests.mutate.functions import give_code, same_but_for_functions
from tests.mutate.mutants import Mutant, mutants_of, mutated

ROOT = Path(__file__).parent.parent.parent
OURS = ("chat_sse", "tests")
# Nothing that is written to disk, printed, or left to chance.
OPTIONS = (
    *("-x", "-s", "-o", "addopts=", "-o", "timeout=0", "--hypothesis-seed=0"),
    *("-p", "no:cacheprovider", "-p", "no:xdist", "-p", "no:terminal"),
    *("-W", "ignore::pytest.PytestAssertRewriteWarning"),  # pytest would rather import its plugins itself
)
# A mutant may run for ever, or fill the memory.
LEAST_SECONDS = 20.0
MOST_BYTES = 4 * 1024**3


class Verdict(NamedTuple):
    """Whether the tests have noticed a mutant."""

    path: str
    mutant: Mutant
    noticed: bool


class _MutantFinder(SourceFileLoader):
    """Finds and loads one module, mutated."""

    def __init__(self, path: str, code: CodeType) -> None:
        super().__init__(module_of(path), str(ROOT / path))
        self._code = code

    def get_code(self, _: str) -> CodeType:
        return self._code

    def find_spec(self, name: str, *_: object) -> ModuleSpec | None:
        """Find it."""
        found = name == self.name
        return importlib.util.spec_from_file_location(name, self.path, loader=self) if found else None


class Trial:
    """A plugin of pytest's: instead of running the collected tests once, it does so for each mutant."""

    def __init__(
        self, paths: Sequence[str], tests: Sequence[str], jobs: int, tell: Callable[[Verdict], None]
    ) -> None:
        """`tell`: called with each verdict."""
        self._paths, self._tests, self._jobs, self._tell = paths, tests, jobs, tell

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Try all mutants, several at once. Exits when the tests fail without one."""
        gc.collect()
        gc.freeze()
        began = time.monotonic()
        for passes in (partial(self._passes_anew, None), partial(_passes, session)):
            _fork(passes, 600)
            if _wait()[1]:
                raise SystemExit(f"the tests fail without a mutant already: pytest {' '.join(self._tests)}")
        limit = int(max(LEAST_SECONDS, 5 * self._jobs * (time.monotonic() - began)))
        running: dict[int, tuple[str, Mutant]] = {}
        for path, mutant in self._mutants():
            pid = _fork(partial(self._survives, session, path, mutant.number), limit)
            running[pid] = path, mutant
            if len(running) == self._jobs:
                self._tell(_next_verdict(running))
        while running:
            self._tell(_next_verdict(running))
        return True

    def _mutants(self) -> Iterator[tuple[str, Mutant]]:
        for path in self._paths:
            for mutant in mutants_of((ROOT / path).read_text()):
                yield path, mutant

    def _survives(self, session: pytest.Session, path: str, number: int) -> bool:
        """Return whether all tests pass with a mutant; in a child."""
        source, file = (ROOT / path).read_text(), str(ROOT / path)
        new = compile(mutated(source, number), file, "exec", dont_inherit=True)
        old = compile(source, file, "exec", dont_inherit=True)
        if same_but_for_functions(old, new) and give_code(sys.modules[module_of(path)], old, new):
            return _passes(session)
        return self._passes_anew(_MutantFinder(path, new))

    def _passes_anew(self, finder: _MutantFinder | None) -> bool:
        """Forget all of ours, and let pytest begin again."""
        for name in [name for name in sys.modules if name.partition(".")[0] in OURS]:
            del sys.modules[name]
        if finder is not None:
            sys.meta_path.insert(0, finder)
        return pytest.main([*OPTIONS, *self._tests]) == 0


def module_of(path: str) -> str:
    """Name the module of a file."""
    return path.removesuffix(".py").replace("/", ".").removesuffix(".__init__")


def verdicts(paths: Sequence[str], tests: Sequence[str], jobs: int, tell: Callable[[Verdict], None]) -> None:
    """Try all mutants of some files, several at once. `tell`: called with each verdict."""
    hypothesis.settings.register_profile("quick", max_examples=20, database=None)
    hypothesis.settings.load_profile("quick")
    code = pytest.main([*OPTIONS, *tests], plugins=[Trial(paths, tests, jobs, tell)])
    if code not in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
        raise SystemExit(f"pytest ended with {code!r}")


def _passes(session: pytest.Session) -> bool:
    """Run the collected tests up to the first that fails."""
    items = session.items
    for item, following in zip(items, [*items[1:], None], strict=True):
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
        if session.testsfailed:
            return False
    return True


def _fork(survives: Callable[[], bool], limit: int) -> int:
    """Call it in a child, for so many seconds at most. Returns the child's process id."""
    pid = os.fork()
    if pid:
        return pid
    os.setsid()
    code = 1
    with contextlib.suppress(BaseException):  # whatever it was, it was noticed
        resource.setrlimit(resource.RLIMIT_AS, (MOST_BYTES, MOST_BYTES))
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(limit)
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)
        os.dup2(nowhere, 2)
        code = int(not survives())
    os._exit(code)


def _wait() -> tuple[int, int]:
    """Wait for a child, and end what it has left running. Returns its process id, and 0 when it passed."""
    pid, status = os.wait()
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
    return pid, status


def _next_verdict(running: dict[int, tuple[str, Mutant]]) -> Verdict:
    pid, status = _wait()
    path, mutant = running.pop(pid)
    return Verdict(path, mutant, status != 0)
