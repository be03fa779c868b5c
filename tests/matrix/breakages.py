"""Parts that break under load: Redis, a worker, the clock. Clients come back until they have an end."""

from __future__ import annotations

import os
import resource
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec
import redis

from tests.matrix.cases import Outcome, error_of
from tests.support import visits
from tests.support.failover import FailingOver
from tests.support.faults import Fault, slowly
from tests.support.harness import Layout, Site, running_site
from tests.support.invariants import check_question
from tests.support.service import until, workers_of

QUESTIONS = 12
WORDS = tuple(f"word{number} " for number in range(40))
# More than a second, in the midst of which something breaks.
PACED = Fault(name="paced", steps=slowly(*WORDS, seconds=0.03), text="".join(WORDS), is_whole=True)
EXPLAINED = (
    *(
        "redis.down",
        "redis.data_lost",
        "redis.replaced",
        "redis.failed",
        "limits.unsettled",
        "answer.orphan_sealed",
    ),
    *("log.overruled", "worker.", "process."),
)


class Breakage(msgspec.Struct, frozen=True, kw_only=True):
    """What breaks, and what is the same afterwards."""

    name: str
    layout: Layout
    apply: Callable[[Site], object]
    same_processes: bool = True
    keeps_answers: bool = True
    is_long: bool = False
    moves_clock: bool = False


@contextmanager
def _asking_redis(site: Site) -> Iterator[redis.Redis]:
    assert site.redis is not None
    with redis.Redis.from_url(site.redis.url, protocol=2) as client:
        yield client


def _kill_redis(site: Site) -> None:
    assert site.redis is not None
    site.redis.kill()
    time.sleep(0.5)
    site.redis.start()


def _fail_over(site: Site) -> None:
    """The replica lacks the ends of what was asked before, and knows nothing of what is asked meanwhile."""
    assert isinstance(site.redis, FailingOver)
    site.redis.fall_behind()
    time.sleep(1)
    questions = [site.question(PACED) for _ in range(QUESTIONS)]
    with ThreadPoolExecutor(3 * QUESTIONS) as pool:
        asked = [pool.submit(visits.patiently, question) for question in questions]
        until(lambda: all(site.paid(question) for question in questions))
        site.redis.kill()
        asked += [pool.submit(visits.patiently, question) for question in 2 * questions]
    for question in questions:
        got = [visit for one in asked for visit in one.result() if visit.question is question]
        check_question(got, site.paid(question), site_fails=True)


def _freeze_redis(site: Site) -> None:
    assert site.redis is not None
    site.redis.signal(signal.SIGSTOP)
    time.sleep(2)
    site.redis.signal(signal.SIGCONT)


def _fill_redis(site: Site) -> None:
    with _asking_redis(site) as client:
        client.config_set("maxmemory", "1mb")  # less than it holds: what writes is refused
        time.sleep(1.5)
        client.config_set("maxmemory", "0")


def _empty_redis(site: Site) -> None:
    with _asking_redis(site) as client:
        client.flushall()


def _cut_redis(site: Site) -> None:
    with _asking_redis(site) as client:
        for kind in ("normal", "pubsub"):
            client.client_kill_filter(_type=kind, skipme=True)


def _signal(sig: signal.Signals, seconds: float = 0) -> Callable[[Site], None]:
    def apply(site: Site) -> None:
        worker = workers_of(site.service)[0]
        with _asking_redis(site) as client:
            connected = len(client.client_list())
            os.kill(worker, sig)
            if sig is signal.SIGSTOP:
                time.sleep(seconds)
                with suppress(ProcessLookupError):  # its supervisor has replaced it
                    os.kill(worker, signal.SIGCONT)
                return
            until(lambda: worker not in workers_of(site.service), 30)
            until(lambda: len(client.client_list()) >= connected - 1)  # the one for limits comes with use

    return apply


def _take_descriptors(site: Site) -> None:
    workers = workers_of(site.service) or [site.service.process.pid]
    before = [resource.prlimit(pid, resource.RLIMIT_NOFILE) for pid in workers]
    for pid, (_, most) in zip(workers, before, strict=True):
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (len(os.listdir(f"/proc/{pid}/fd")), most))  # noqa: PTH208
    time.sleep(1)
    for pid, limits in zip(workers, before, strict=True):
        resource.prlimit(pid, resource.RLIMIT_NOFILE, limits)


class Clock:
    """What the service takes for the time of day: libfaketime, with an offset that changes while it runs."""

    def __init__(self, folder: str) -> None:
        self._file = Path(folder) / "offset"
        self.set("+0")
        library = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), None)
        self.environ = {
            "LD_PRELOAD": str(library),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }
        if library is None:
            raise AssertionError("the package faketime is not installed")

    def set(self, offset: str) -> None:
        self._file.write_text(offset)


def _moved(offset: str) -> Callable[[Site], None]:
    def apply(site: Site) -> None:
        site.clock.set(offset)

    return apply


MEMORY, ONE, TWO = Layout(), Layout(redis=True), Layout(redis=True, workers=2)
REPLICATED = Layout(redis=True, workers=2, replicated=True)
BREAKAGES = (
    *(
        Breakage(name=f"the clock {offset}", layout=layout, apply=_moved(offset), moves_clock=True)
        for layout in (MEMORY, ONE)
        for offset in ("+1d", "-2h")
    ),
    Breakage(name="Redis killed", layout=TWO, apply=_kill_redis, keeps_answers=False),
    Breakage(name="Redis frozen for 2 s", layout=TWO, apply=_freeze_redis),
    Breakage(name="Redis full", layout=TWO, apply=_fill_redis),
    Breakage(name="Redis empty again", layout=TWO, apply=_empty_redis, keeps_answers=False),
    Breakage(name="connections to Redis cut", layout=TWO, apply=_cut_redis),
    Breakage(name="kill -9", layout=TWO, apply=_signal(signal.SIGKILL), same_processes=False),
    Breakage(name="SIGTERM", layout=TWO, apply=_signal(signal.SIGTERM), same_processes=False),
    Breakage(name="SIGSTOP for 2 s", layout=TWO, apply=_signal(signal.SIGSTOP, 2)),
    Breakage(
        name="SIGSTOP for 20 s",
        layout=TWO,
        apply=_signal(signal.SIGSTOP, 20),
        same_processes=False,
        is_long=True,
    ),
    Breakage(name="out of descriptors", layout=ONE, apply=_take_descriptors),
    Breakage(name="Redis fails over", layout=REPLICATED, apply=_fail_over),
)


def run(layout: Layout, *, is_long: bool) -> Iterator[Outcome]:
    """Run a layout's breakages on one site, one after the other; those that use it up on another one."""
    for site_layout in dict.fromkeys(breakage.layout for breakage in BREAKAGES):
        if site_layout.name == layout.name:
            yield from _run(site_layout, is_long=is_long)


def _run(layout: Layout, *, is_long: bool) -> Iterator[Outcome]:
    with tempfile.TemporaryDirectory() as folder:
        clock = Clock(folder)
        environ = clock.environ if layout in (MEMORY, ONE) else None
        with running_site(layout, environ, idle_timeout="30", first_token_timeout="30") as site:
            site.clock = clock
            for breakage in BREAKAGES:
                if breakage.layout == layout and (is_long or not breakage.is_long):
                    error = error_of(lambda breakage=breakage: break_under_load(site, breakage))
                    yield Outcome(row=breakage.name, column=layout.name, error=error)


def break_under_load(site: Site, breakage: Breakage) -> None:
    standing = site.standing()
    questions = [site.question(PACED, ("sse", "html")[number % 2]) for number in range(QUESTIONS)]
    with ThreadPoolExecutor(QUESTIONS) as pool:
        asked = [pool.submit(visits.patiently, question) for question in questions]
        until(lambda: any(site.paid(question) for question in questions))
        time.sleep(0.5)
        breakage.apply(site)
        for question, got in zip(questions, asked, strict=True):
            check_question(got.result(), site.paid(question), site_fails=True)
            if breakage.keeps_answers:
                again = visits.patiently(question)
                check_question([*got.result(), *again], site.paid(question), site_fails=True)
    if site.clock is not None:
        site.clock.set("+0")
    standing.check(explained=EXPLAINED, same_processes=breakage.same_processes)
