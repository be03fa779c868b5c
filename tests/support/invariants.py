"""What holds after any run, whatever happened in it: for every question, and for the site that was asked.

A question: each reader that stayed got exactly one ending; it is the truth; the text is upstream's, as far as
it goes; no event came twice and none is missing; and it was paid for as often as it was asked: once.

A site: no slot, answer, reader, socket, descriptor, key without a time to live, or megabyte is left, and its
log has nothing above INFO that is not explained.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from pathlib import Path

import httpx2
import msgspec
import redis

from tests.bench.proc import anonymous_bytes, cpu_seconds, family
from tests.support import plain_http
from tests.support.metrics import Metrics
from tests.support.redis_server import RedisServer
from tests.support.service import RunningService
from tests.support.visits import NUMBERED, Told, Visit, told

MEGABYTE = 1_048_576
SETTLE_SECONDS = 20.0
# Errors that tell of upstream, and those that tell of this site where that is what a run breaks.
UPSTREAM_ERRORS = {
    "authentication_error",
    "invalid_request_error",
    "rate_limit_error",
    "service_unavailable_error",
    "timeout_error",
    "upstream_protocol_error",
}
SITE_ERRORS = {"internal_error", "log_unavailable", "server_draining", "overloaded"}


def check_question(
    visits: Sequence[Visit], paid: int, *, may_cancel: bool = False, site_fails: bool = False
) -> None:
    """Hold all that was got of one question.

    `may_cancel`: somebody may have stopped it, or left where nobody can come back. `site_fails`: parts of the
    site are broken, which it may say.
    """
    question = visits[0].question
    fault = question.fault
    told_paid = f"{paid} paid calls, {[(visit.status, visit.body[-300:]) for visit in visits]}"
    assert paid <= fault.is_paid, told_paid
    stopped_before = may_cancel and not any(visit.status == 200 and told(visit).text for visit in visits)
    assert paid == fault.is_paid or site_fails or stopped_before, told_paid
    allowed = (set() if fault.is_whole else UPSTREAM_ERRORS) | (SITE_ERRORS if site_fails else set())
    endings = set()
    for visit in visits:
        if visit.status != 200:
            endings.add(_check_refusal(visit, allowed, may_cancel=may_cancel))
            continue
        said = told(visit)
        endings.add(_check_answer(visit, said, allowed, may_cancel=may_cancel))
    assert len(endings - {"overloaded"}) <= 1, f"readers disagree: {endings}"


def _check_refusal(visit: Visit, allowed: set[str], *, may_cancel: bool) -> str:
    assert not visit.is_broken, f"broken off with status {visit.status}"
    body = msgspec.json.decode(visit.body)
    assert {"role", "content", "error", "details", "request_id", "retryable"} <= set(body), body
    if body["error"] == "overloaded":  # attached in the moment when the question failed, unpaid
        assert visit.status == 503
        assert not visit.question.fault.is_paid
    elif visit.question.format == "text":
        assert body["error"] in allowed or may_cancel, body
    else:
        assert body["error"] in allowed, body
    return "error" if visit.question.format in ("ai-sdk", "json") else str(body["error"])


def _check_answer(visit: Visit, said: Told, allowed: set[str], *, may_cancel: bool) -> str:
    fault, fmt = visit.question.fault, visit.question.format
    assert len(said.endings) == 1, f"endings: {said.endings}, broken: {visit.is_broken}"
    [ending] = said.endings
    assert said.text == fault.text[: len(said.text)], f"not upstream's text: {said.text[-100:]!r}"
    if ending == "done":
        assert fault.is_whole, "done, and upstream never said so"
        assert said.text == fault.text, f"{len(said.text)} of {len(fault.text)} characters, and done"
    elif ending == "cancelled":
        assert may_cancel, "cancelled, and nobody did"
    elif ending == "broken":
        assert may_cancel or allowed, "broken off without need"
    else:
        assert ending in allowed or (ending == "error" and allowed), f"unexpected error {ending}"
    assert fmt == "text" or not visit.is_broken, "broken off after its end"
    if fmt in NUMBERED:
        numbers = said.numbers
        # An error that the log does not hold has no number; neither has one that only tells of the site.
        assert numbers == list(range(len(numbers))), f"numbers {numbers[:5]}…{numbers[-5:]}"
    return "error" if fmt in ("ai-sdk", "json") and ending not in ("done", "cancelled") else ending


class Standing:
    """What a site holds when nobody asks: taken before a run, and compared after it."""

    def __init__(self, service: RunningService, server: RedisServer | None, upstream_ports: set[int]) -> None:
        self._service, self._server, self._ports = service, server, upstream_ports
        self._metrics = Metrics(service)
        deadline = time.monotonic() + SETTLE_SECONDS
        while self._is_busy():  # such as a worker that is starting
            assert time.monotonic() < deadline
        while (before := self._held())["running"] or before["readers"] or before["unsent"]:  # once a second
            assert time.monotonic() < deadline, before
            time.sleep(0.1)
        self._before = before
        self._bytes = self.memory_bytes()
        self._log_read = len(service.log())

    def _is_busy(self) -> bool:
        before = self._cpu_seconds()
        time.sleep(0.3)
        return self._cpu_seconds() - before > 0.02

    def _cpu_seconds(self) -> float:
        return sum(map(cpu_seconds, family(self._service.process.pid)))

    def memory_bytes(self) -> int:
        return sum(map(anonymous_bytes, family(self._service.process.pid)))

    def descriptors(self) -> int:
        return sum(_descriptors(pid, self._ports) for pid in family(self._service.process.pid))

    def check(
        self,
        *,
        explained: Sequence[str] = (),
        megabytes: float = 24,
        same_processes: bool = True,
        seconds: float = SETTLE_SECONDS,
    ) -> None:
        """Hold that nothing is left. `explained`: events above INFO that the run must have made.

        `megabytes`: what kept answers, caches and the allocator may have grown by. `seconds`: to let go.
        """
        deadline = time.monotonic() + seconds
        while (held := self._held()) != (self._before if same_processes else {**held, **self._nothing}):
            assert time.monotonic() < deadline, f"before: {self._before}, left: {held}"
            time.sleep(0.1)
        grown = (self.memory_bytes() - self._bytes) / MEGABYTE
        assert grown < megabytes, f"{grown:.1f} MB more than before"
        self._check_log(explained)
        if self._server is not None:
            _check_keys(self._server)

    @property
    def _nothing(self) -> dict[str, float]:
        return dict.fromkeys(("running", "readers", "unsent"), 0)

    def _held(self) -> dict[str, float]:
        """Count what a run could leave. Of descriptors what is above a few, which come and go."""
        try:
            left = plain_http.get(f"{self._service.url}/me", timeout=10).json()["streams"]["left"]
            counted = {
                "running": self._metrics.value("chat_sse_running_answers"),
                "readers": self._metrics.value("chat_sse_readers"),
                "unsent": self._metrics.value("chat_sse_redis_unsent_logs"),
            }
        except (httpx2.HTTPError, KeyError):  # not back yet
            return {"running": -1.0, "readers": -1.0, "unsent": -1.0}
        before = getattr(self, "_before", {}).get("descriptors", 0)
        now = self.descriptors()
        return {"slots": left, **counted, "descriptors": before if abs(now - before) <= 3 else now}

    def _check_log(self, explained: Sequence[str]) -> None:
        log = self._service.log()[self._log_read :]
        assert "Traceback" not in log, log[log.index("Traceback") - 500 :][:2000]
        pattern = re.compile(r"^\S+ (?:WARNING|ERROR|CRITICAL) (.*)$", re.MULTILINE)
        unexplained = [line for line in pattern.findall(log) if not line.startswith(tuple(explained) or "\0")]
        assert not unexplained, unexplained[:5]


def _check_keys(server: RedisServer) -> None:
    with redis.Redis.from_url(server.url, protocol=2, decode_responses=True) as client:
        lasting = [key for key in client.scan_iter() if client.pttl(key) == -1]
    assert not lasting, f"keys that live for ever: {lasting}"


def _descriptors(pid: int, upstream_ports: set[int]) -> int:
    """Count a process's descriptors but for its connections to upstream, which it keeps."""
    kept = {
        row[9]
        for row in map(str.split, Path("/proc/net/tcp").read_text().splitlines()[1:])
        if int(row[2].rpartition(":")[2], 16) in upstream_ports
    }
    count = 0
    try:
        for link in Path(f"/proc/{pid}/fd").iterdir():
            if link.is_symlink():
                count += str(link.readlink()).removeprefix("socket:[").removesuffix("]") not in kept
    except OSError:
        pass  # gone meanwhile
    return count
