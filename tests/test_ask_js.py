"""The client module `/ask.js`, as Node runs it: its parser alone, and its promises against the service."""

import json
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import QUICK
from tests.support.proxy import BadNetwork
from tests.support.service import HELLO, RunningService, serve
from tests.support.upstream import Accept, Finish, Hold, Refuse, Say, ScriptedUpstream, Silence

CLIENTS = Path(__file__).parent / "clients"
MODULES = sorted((Path(__file__).parent.parent / "chat_sse" / "web" / "chat").glob("ask*.js"))
NODE_SECONDS = 50.0

# Deadlines that outlast the client's two seconds of waiting before it reconnects.
PATIENT = {
    **QUICK,
    "CHAT_SSE_DISCONNECT_GRACE": "20",
    "CHAT_SSE_FIRST_TOKEN_TIMEOUT": "30",
    "CHAT_SSE_IDLE_TIMEOUT": "30",
}


@pytest.fixture(scope="module")
def service(upstream_port: int) -> Iterator[RunningService]:
    with serve({**PATIENT, "OPENAI_BASE_URL": f"http://127.0.0.1:{upstream_port}/v1"}) as running:
        yield running


class CompletionClient:
    """A Node program that asks with ask.js; its report comes line by line."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.facts: list[dict[str, Any]] = []

    def next(self) -> dict[str, Any]:
        """Read one more fact."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, f"the report ended after {self.facts}"
        self.facts.append(json.loads(line))
        return self.facts[-1]

    def stop(self) -> None:
        """Abort the signal, of a program that was told `stopAfter: 0`."""
        assert self._process.stdin is not None
        self._process.stdin.write("stop\n")
        self._process.stdin.flush()

    def rest(self) -> list[dict[str, Any]]:
        """Read to the end; all facts."""
        output, _ = self._process.communicate(timeout=NODE_SECONDS)
        assert self._process.returncode == 0
        self.facts += [json.loads(line) for line in output.splitlines()]
        return self.facts

    @property
    def events(self) -> list[dict[str, Any]]:
        return [fact["event"] for fact in self.facts if "event" in fact]

    @property
    def text(self) -> str:
        return "".join(event["content"] for event in self.events if event["type"] == "delta")


@contextmanager
def asking(url: str, *flags: str, **order: Any) -> Iterator[CompletionClient]:
    node = shutil.which("node")
    assert node is not None, "Node is not installed"
    order = {"url": f"{url}/ask", **HELLO, "options": {}, **order}
    command = [node, *flags, str(CLIENTS / "ask.mjs"), json.dumps(order)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield CompletionClient(process)
        finally:
            process.kill()


def asked(url: str, *flags: str, **order: Any) -> CompletionClient:
    """Ask and read the whole report."""
    with asking(url, *flags, **order) as program:
        program.rest()
    return program


def test_its_parser_follows_the_standard_to_the_letter() -> None:
    command = ["node", "--test", "--test-reporter=tap", str(CLIENTS / "parser.test.mjs")]
    result = subprocess.run(command, capture_output=True, text=True, timeout=NODE_SECONDS, check=False)
    assert result.returncode == 0, result.stdout


def test_its_types_are_those_of_the_code(tmp_path: Path) -> None:
    compiler = CLIENTS / "node_modules" / ".bin" / "tsc"
    assert compiler.exists(), "run `npm ci` in tests/clients"
    flags = "--allowJs --checkJs --strict --declaration --emitDeclarationOnly"
    target = "--target es2022 --module esnext --lib es2023,dom,dom.iterable --moduleResolution bundler"
    command: list[str | Path] = [compiler, *flags.split(), *target.split(), "--outDir", tmp_path, *MODULES]
    result = subprocess.run(command, capture_output=True, text=True, timeout=NODE_SECONDS, check=False)
    assert result.returncode == 0, result.stdout
    assert len(MODULES) == 3
    for module in MODULES:
        types = module.with_suffix(".d.ts")
        made = tmp_path / types.name
        assert made.read_text() == types.read_text(), f"copy what the compiler makes of {module.name}"


def test_it_yields_every_event_once_and_ends_after_the_terminal_one(
    service: RunningService, upstream: ScriptedUpstream
) -> None:
    upstream.answer(Say("Hé"), Say("llo"), Finish("stop"))
    program = asked(service.url)
    assert [event["type"] for event in program.events] == ["start", "delta", "delta", "done"]
    assert program.text == "Héllo"
    stream_id = program.events[0]["id"]
    assert program.facts[-1] == {"ended": True, "id": stream_id}
    assert program.facts[-2]["lastEventId"] == f"{stream_id}.3"


def test_it_needs_no_global_crypto_as_in_node_18(service: RunningService, upstream: ScriptedUpstream) -> None:
    program = asked(service.url, "--no-experimental-global-webcrypto")
    assert program.text == "Hello there!"


def test_a_cut_in_mid_answer_loses_nothing_and_is_paid_once(
    service: RunningService, upstream: ScriptedUpstream
) -> None:
    gate = threading.Event()
    upstream.answer(*[Say(f"{number} ") for number in range(50)], Hold(gate), Say("end"), Finish("stop"))
    with BadNetwork(service.url) as network:
        network.cut_next(after=1500, reset=False)
        with asking(network.url) as program:
            network.wait_for_cuts(1)
            gate.set()
            program.rest()
        assert [line.split()[0] for line in network.request_lines] == ["POST", "GET"]
    assert program.text == " ".join(str(number) for number in range(50)) + " end"
    assert [fact["connection"] for fact in program.facts if "connection" in fact] == ["reconnecting", "open"]
    assert upstream.paid_calls == 1


def test_it_waits_as_long_as_the_server_asks_before_it_reconnects(
    service: RunningService, upstream: ScriptedUpstream
) -> None:
    with BadNetwork(service.url) as network:
        network.cut_next(after=700, reset=False)
        program = asked(network.url)
    [wait] = [fact["delayMs"] for fact in program.facts if fact.get("connection") == "reconnecting"]
    assert 2000 <= wait <= 2500


def test_a_cut_before_the_first_event_asks_again_with_the_same_key_and_is_paid_once(
    service: RunningService, upstream: ScriptedUpstream
) -> None:
    with BadNetwork(service.url) as network:
        network.cut_next(after=0)
        program = asked(network.url)
        assert [line.split()[0] for line in network.request_lines] == ["POST", "POST"]
    assert program.text == "Hello there!"
    assert upstream.paid_calls == 1


def test_two_cuts_in_a_row_wait_longer_each_time(service: RunningService, upstream: ScriptedUpstream) -> None:
    with BadNetwork(service.url) as network:
        network.cut_next(after=0)
        network.cut_next(after=0)
        program = asked(network.url)
    first, second = (fact["delayMs"] for fact in program.facts if fact.get("connection") == "reconnecting")
    assert second >= 4000 > first
    assert program.text == "Hello there!"
    assert upstream.paid_calls == 1


def test_a_silent_connection_counts_as_broken(service: RunningService, upstream: ScriptedUpstream) -> None:
    gate = threading.Event()
    upstream.answer(Say("Hel"), Hold(gate), Say("lo"), Finish("stop"))
    with asking(service.url, options={"silenceMs": 50}) as program:  # the service's heartbeat is 300 ms
        while program.next().get("connection") != "reconnecting":
            pass
        gate.set()
        program.rest()
    assert program.text == "Hello"
    assert upstream.paid_calls == 1


def test_without_any_server_it_gives_up_and_tells_where_to_go_on() -> None:
    program = asked("http://127.0.0.1:9", options={"maxFailures": 0})
    assert program.facts[-1]["threw"] == "ConnectionLost"
    assert program.facts[-1]["id"] == ""


def test_aborting_stops_the_answer_for_good_and_ends_truthfully(
    service: RunningService, upstream: ScriptedUpstream
) -> None:
    upstream.answer(Say("Hel"), Silence())
    program = asked(service.url, stopAfter=2)
    assert program.events[-1] == {"type": "done", "finish_reason": "cancelled", "usage": None}
    assert "ended" in program.facts[-1]
    assert upstream.calls[0].wait_gone(5)


def test_aborting_before_the_answer_has_an_id_stops_it_as_soon_as_it_has_one(
    service: RunningService, upstream: ScriptedUpstream
) -> None:
    gate = threading.Event()
    upstream.answer(Hold(gate), Accept(), Silence())
    with asking(service.url, stopAfter=0) as program:
        [call] = upstream.wait_for_calls(1)
        program.stop()
        gate.set()
        program.rest()
    assert program.events[-1]["finish_reason"] == "cancelled"
    assert call.wait_gone(5)


def test_leaving_the_loop_stops_nothing_and_attaching_reads_on(
    service: RunningService, upstream: ScriptedUpstream
) -> None:
    gate = threading.Event()
    upstream.answer(Say("Hel"), Hold(gate), Say("lo"), Finish("stop"))
    left = asked(service.url, leaveAfter=2)
    place = left.facts[-2]["lastEventId"]
    with asking(service.url, attach=left.events[0]["id"], options={"lastEventId": place}) as program:
        gate.set()
        program.rest()
    assert (left.text, program.text) == ("Hel", "lo")
    assert upstream.paid_calls == 1


def test_attaching_after_the_end_has_nothing_left_to_tell(
    service: RunningService, upstream: ScriptedUpstream
) -> None:
    first = asked(service.url)
    place = first.facts[-2]["lastEventId"]
    again = asked(service.url, attach=first.events[0]["id"], options={"lastEventId": place})
    assert again.events == []
    assert "ended" in again.facts[-1]


def test_a_refusal_is_thrown_with_the_error_body(service: RunningService, upstream: ScriptedUpstream) -> None:
    upstream.answer(Refuse(429, headers={"retry-after": "7"}))
    told = asked(service.url).facts[-1]
    assert told["threw"] == "AskError"
    assert (told["status"], told["error"], told["retryable"]) == (500, "rate_limit_error", True)
    assert told["retryAfterSeconds"] == 7
    assert told["content"] == told["message"]
    assert told["requestId"]
    unknown = asked(service.url, attach="no-such-answer").facts[-1]
    assert (unknown["status"], unknown["error"]) == (404, "stream_not_found")


def test_headers_and_fields_reach_the_server(service: RunningService, upstream: ScriptedUpstream) -> None:
    asked(service.url, options={"temperature": 0.5, "max_output_tokens": 7, "headers": {"X-Mine": "1"}})
    assert upstream.calls[0].body["temperature"] == 0.5
    refused = asked(service.url, options={"model": "another"}).facts[-1]
    assert refused["error"] == "invalid_request"


# A service with keys


KEY = "reader-canary-0123456789"


@pytest.fixture(scope="module")
def locked(upstream_port: int) -> Iterator[RunningService]:
    """A service that wants a key, which no line of its log may hold."""
    base_url = f"http://127.0.0.1:{upstream_port}/v1"
    keys = {"CHAT_SSE_API_KEYS": f"reader:{KEY}", "CHAT_SSE_LOG_LEVEL": "debug"}
    with serve({**PATIENT, **keys, "OPENAI_BASE_URL": base_url}) as running:
        yield running
        assert "canary" not in running.log()


def test_a_key_goes_with_the_question_the_resume_and_the_stop_and_in_no_url(
    locked: RunningService, upstream: ScriptedUpstream
) -> None:
    upstream.answer(*[Say(f"{number} ") for number in range(50)], Silence())
    with BadNetwork(locked.url) as network:
        network.cut_next(after=1500, reset=False)
        with asking(network.url, options={"apiKey": KEY}, stopAfter=51) as program:
            program.rest()
        assert [line.split()[0] for line in network.request_lines] == ["POST", "GET", "DELETE"]
        assert not [line for line in network.request_lines if "canary" in line]
    assert len(program.text.split()) == 50
    assert program.events[-1]["finish_reason"] == "cancelled"
    assert upstream.paid_calls == 1


@pytest.mark.parametrize("options", [{}, {"apiKey": "wrong-canary-0123456789"}], ids=["none", "wrong"])
def test_a_missing_or_wrong_key_is_told_once_with_its_code_and_not_tried_again(
    locked: RunningService, upstream: ScriptedUpstream, options: dict[str, Any]
) -> None:
    with BadNetwork(locked.url) as network:
        program = asked(network.url, options=options)
        attached = asked(network.url, options=options, attach="f" * 32)
        assert [line.split()[0] for line in network.request_lines] == ["POST", "GET"]
    for [told] in (program.facts, attached.facts):
        assert (told["threw"], told["status"], told["error"]) == ("AskError", 401, "unauthenticated")
        assert told["retryable"] is False
        assert told["message"] == "This service needs an API key."
    assert upstream.calls == []
