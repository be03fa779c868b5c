"""Real client libraries, as their users run them, on a network that breaks.

Each runs in a process of its own behind `tests/proxy.py` and reports every message that it hands over. What
each needs from its caller to end and to come back is in `tests/clients/`.
"""

import importlib.metadata
import json
import signal
import sys
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
import pytest

from chat_sse.formats.sse import HEARTBEAT
from tests.support.long_answer import FIRST_CUT_BYTES, HALF, PATIENT, PIECES, SECOND_CUT_BYTES, TEXT, text_of
from tests.support.node import FOLDER, PATIENCE, Reporting
from tests.support.proxy import BadNetwork
from tests.support.service import RunningService, serve
from tests.support.tables import Matrix
from tests.support.upstream import Finish, Hold, Pause, Say, ScriptedUpstream


class Client(msgspec.Struct, frozen=True):
    """A library, and the script that uses it."""

    script: str
    package: str
    ends: tuple[Any, ...]
    """How it may tell that it ended by itself."""

    @property
    def command(self) -> list[str]:
        return [sys.executable if self.script.endswith(".py") else "node", str(FOLDER / self.script)]

    @property
    def name(self) -> str:
        if self.script.endswith(".py"):
            return f"{self.package} {importlib.metadata.version(self.package)}"
        package = FOLDER / "node_modules" / self.package / "package.json"
        assert package.is_file(), "the client libraries are not installed: npm ci --prefix tests/clients"
        return f"{self.package} {json.loads(package.read_text())['version']}"


CLIENTS = [
    Client("eventsource.mjs", "eventsource", (204,)),
    Client("eventsource-client.mjs", "eventsource-client", ("closed",)),
    Client("event-source-plus.mjs", "event-source-plus", ("end-of-stream",)),
    Client("fetch-event-source.mjs", "@microsoft/fetch-event-source", ("resolved",)),
    Client("httpx_sse_client.py", "httpx-sse", ("finished",)),
]
every_client = pytest.mark.parametrize("client", CLIENTS, ids=[client.package for client in CLIENTS])


class RunningClient(Reporting):
    """A client's process, and what it reported so far."""

    def __init__(self, client: Client, url: str, key: str) -> None:
        self.client = client
        self.lines: list[dict[str, Any]] = []
        self._changed = threading.Condition()
        order = json.dumps({"url": url, "key": key, "question": "Hello!"})
        super().__init__([*client.command, order], self._note)

    @property
    def messages(self) -> list[dict[str, Any]]:
        with self._changed:
            return [line for line in self.lines if "data" in line]

    def wait_for_messages(self, count: int) -> None:
        """Wait until so many have been handed over."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.lines) >= count, PATIENCE), self.lines

    def finish(self) -> str:
        """Wait until it has ended by itself. Each event came once, in order, none empty: give their text."""
        assert self.process.wait(PATIENCE) == 0, self.lines
        self.join()
        assert self.lines[-1].get("ended") in self.client.ends, self.lines[-1]
        return text_of(self.lines[:-1])

    def _note(self, line: str | None) -> None:
        if line is None:
            return
        try:
            report = json.loads(line)
        except ValueError:
            report = {"said": line}  # a stack trace, shown by the assertion that it fails
        with self._changed:
            self.lines.append(report)
            self._changed.notify_all()


@contextmanager
def running(client: Client, url: str, key: str) -> Iterator[RunningClient]:
    process = RunningClient(client, url, key)
    try:
        yield process
    finally:
        process.close()


@pytest.fixture(scope="module")
def service(upstream_port: int) -> Iterator[RunningService]:
    """A service that waits longer for a reader's return than clients wait before they come back."""
    with serve({**PATIENT, "OPENAI_BASE_URL": f"http://127.0.0.1:{upstream_port}/v1"}) as process:
        yield process


@pytest.fixture
def network(service: RunningService) -> Iterator[BadNetwork]:
    with BadNetwork(service.url) as proxy:
        yield proxy


@pytest.fixture
def key() -> str:
    """What a frontend makes up for each question."""
    return str(uuid.uuid4())


@every_client
def test_a_whole_answer_is_read_and_heartbeats_are_no_events(
    client: Client, network: BadNetwork, upstream: ScriptedUpstream, key: str, matrix: Matrix
) -> None:
    upstream.answer(*map(Say, PIECES[:HALF]), Pause(1), *map(Say, PIECES[HALF:]), Finish())
    with running(client, network.url, key) as process:
        assert process.finish() == TEXT
    assert network.answered.count(HEARTBEAT) >= 2
    matrix.record(client.name, "whole answer", upstream.paid_calls)
    assert upstream.paid_calls == 1


@every_client
def test_a_reset_and_a_cut_in_the_middle_lose_and_repeat_nothing(
    client: Client, network: BadNetwork, upstream: ScriptedUpstream, key: str, matrix: Matrix
) -> None:
    gate = threading.Event()
    upstream.answer(*map(Say, PIECES[:HALF]), Hold(gate), *map(Say, PIECES[HALF:]), Finish())
    network.cut_next(after=FIRST_CUT_BYTES)
    network.cut_next(after=SECOND_CUT_BYTES, reset=False)
    with running(client, network.url, key) as process:
        network.wait_for_cuts(2)
        gate.set()
        assert process.finish() == TEXT
    matrix.record(client.name, "reset in the middle", upstream.paid_calls)
    assert upstream.paid_calls == 1


@every_client
def test_a_cut_within_an_event_loses_and_repeats_nothing(
    client: Client, network: BadNetwork, upstream: ScriptedUpstream, key: str
) -> None:
    upstream.answer(*map(Say, PIECES), Finish())
    word = r"Gr\u00fc\u00dfe"
    for last in (f'"content":"{word}1', f'"content":"{word}3 "}}\n', f'"content":"{word}5 "}}\nid: '):
        network.cut_next(after=last.encode(), reset=False)
    with running(client, network.url, key) as process:
        assert process.finish() == TEXT
    network.wait_for_cuts(3)
    assert upstream.paid_calls == 1


@every_client
def test_a_reset_before_the_first_event_asks_once_all_the_same(
    client: Client, network: BadNetwork, upstream: ScriptedUpstream, key: str, matrix: Matrix
) -> None:
    upstream.answer(*map(Say, PIECES), Finish())
    network.cut_next(after=1)
    with running(client, network.url, key) as process:
        assert process.finish() == TEXT
    network.wait_for_cuts(1)
    matrix.record(client.name, "reset before the first event", upstream.paid_calls)
    assert upstream.paid_calls == 1


@every_client
def test_a_reload_that_asks_again_with_its_key_reads_the_running_answer_from_its_start(
    client: Client, network: BadNetwork, upstream: ScriptedUpstream, key: str, matrix: Matrix
) -> None:
    gate = threading.Event()
    upstream.answer(*map(Say, PIECES[:HALF]), Hold(gate), *map(Say, PIECES[HALF:]), Finish())
    with running(client, network.url, key) as page:
        page.wait_for_messages(HALF)
    with running(client, network.url, key) as reloaded:
        reloaded.wait_for_messages(HALF)
        gate.set()
        assert reloaded.finish() == TEXT
    matrix.record(client.name, "reload / re-ask", upstream.paid_calls)
    assert upstream.paid_calls == 1


def test_a_tab_that_is_hidden_and_shown_again_reads_on(
    network: BadNetwork, upstream: ScriptedUpstream, key: str
) -> None:
    client = next(client for client in CLIENTS if client.package == "@microsoft/fetch-event-source")
    gate = threading.Event()
    upstream.answer(*map(Say, PIECES[:HALF]), Hold(gate), *map(Say, PIECES[HALF:]), Finish())
    with running(client, network.url, key) as process:
        process.wait_for_messages(HALF + 1)
        process.process.send_signal(signal.SIGUSR2)
        network.wait_for_connections(2)
        gate.set()
        assert process.finish() == TEXT
    assert upstream.paid_calls == 1
