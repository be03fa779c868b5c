"""`chat-sse ask`, as it is typed: a process of its own, in a pipe or in a terminal."""

import os
import pty
import re
import select
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest

from chat_sse.terminal.telling import in_words
from tests.conftest import QUICK
from tests.support.proxy import BadNetwork
from tests.support.service import RunningService, serve
from tests.support.upstream import Finish, Hold, Refuse, Say, ScriptedUpstream, Silence

WAIT_SECONDS = 20.0


def environment(home: Path, url: str, **more: str) -> Mapping[str, str]:
    return {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(Path.cwd()),
        "HOME": str(home),
        "CHAT_SSE_URL": url,
        "TERM": "xterm-256color",
        **more,
    }


COMMAND = (sys.executable, "-W", "error", "-m", "chat_sse", "ask")


def run(
    home: Path, url: str, *arguments: str, piped: str = "", **env: str
) -> subprocess.CompletedProcess[str]:
    """Ask with standard input and output in pipes."""
    return subprocess.run(
        [*COMMAND, *arguments],
        env=environment(home, url, **env),
        cwd=home,
        input=piped,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )


class Terminal:
    """`chat-sse ask` in a terminal of 80 columns and 24 lines."""

    def __init__(self, process: subprocess.Popen[bytes], handle: int) -> None:
        self.process = process
        self._handle = handle
        self.output = ""

    def type(self, text: str) -> None:
        """Press keys."""
        os.write(self._handle, text.encode())

    def read_until(self, text: str) -> str:
        """Read on until a text has been drawn."""
        deadline = time.monotonic() + WAIT_SECONDS
        while text not in self.output:
            left = deadline - time.monotonic()
            assert left > 0, f"no {text!r} in {self.output!r}"
            assert self._read(left), f"no {text!r} in {self.output!r}"
        return self.output

    def finish(self) -> int:
        """Read to the end and give the exit code."""
        while self._read(WAIT_SECONDS):
            pass
        return self.process.wait(WAIT_SECONDS)

    def _read(self, seconds: float) -> bool:
        if not select.select([self._handle], [], [], seconds)[0]:
            return False
        try:
            data = os.read(self._handle, 65_536)
        except OSError:  # what Linux says when the other end of a terminal is closed
            return False
        self.output += data.decode()
        return bool(data)


@contextmanager
def terminal(
    home: Path, url: str, *arguments: str, command: Sequence[str] = COMMAND, **env: str
) -> Iterator[Terminal]:
    handle, its_end = pty.openpty()
    process = subprocess.Popen(
        [*command, *arguments],
        env=environment(home, url, COLUMNS="80", LINES="24", **env),
        cwd=home,
        stdin=its_end,
        stdout=its_end,
        stderr=its_end,
        start_new_session=True,
    )
    os.close(its_end)
    try:
        yield Terminal(process, handle)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait(WAIT_SECONDS)
        os.close(handle)


def test_a_piped_answer_comes_as_it_is(
    service: RunningService, upstream: ScriptedUpstream, tmp_path: Path
) -> None:
    upstream.answer(Say("**two**"), Say(" plus\n\n- two"), Finish())
    done = run(tmp_path, service.url, "What", "is it?")
    assert (done.returncode, done.stdout, done.stderr) == (0, "**two** plus\n\n- two\n", "")
    assert upstream.calls[0].body["messages"] == [{"role": "user", "content": "What is it?"}]


def test_each_piece_is_written_as_it_comes(
    service: RunningService, upstream: ScriptedUpstream, tmp_path: Path
) -> None:
    gate = threading.Event()
    upstream.answer(Say("first"), Hold(gate), Say(" second"), Finish())
    with subprocess.Popen(
        [*COMMAND, "Hi"],
        env=environment(tmp_path, service.url),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.read(5) == b"first"
        gate.set()
        assert process.stdout.read() == b" second\n"
        assert process.wait(WAIT_SECONDS) == 0


def test_what_is_piped_in_is_appended_to_the_question(
    service: RunningService, upstream: ScriptedUpstream, tmp_path: Path
) -> None:
    assert run(tmp_path, service.url, "Sum up:", piped="line 1\nline 2\n").returncode == 0
    assert run(tmp_path, service.url, "-", piped="The question\n").returncode == 0
    asked = [call.body["messages"][-1]["content"] for call in upstream.calls]
    assert asked == ["Sum up:\n\nline 1\nline 2", "The question"]


def test_a_terminal_gets_markdown_drawn_and_no_control_characters(
    service: RunningService, upstream: ScriptedUpstream, tmp_path: Path
) -> None:
    gate = threading.Event()
    upstream.answer(
        Say("# Title\n\nSome **bold** text"),
        Say("\x1b]0;stolen\x07 and\n\n```python\nprint(1)\n"),
        Hold(gate),
        Say("```\n\n[here](https://example.org/real)"),
        Finish(),
    )
    with terminal(tmp_path, service.url, "Hi") as shown:
        shown.read_until("print")
        gate.set()
        assert shown.finish() == 0
    assert "\x1b[1mbold\x1b[0m" in shown.output
    assert "**" not in shown.output
    assert "```" not in shown.output
    assert "\x1b]0;" not in shown.output
    assert "https://example.org/real" in shown.output


def test_a_long_answer_is_whole_in_the_terminals_history(
    service: RunningService, upstream: ScriptedUpstream, tmp_path: Path
) -> None:
    upstream.answer(*(Say(f"{number}. line{number:03}\n") for number in range(1, 101)), Finish())
    with terminal(tmp_path, service.url, "Count") as shown:
        assert shown.finish() == 0
    final = shown.output.rpartition("\x1b[2K")[2]  # after the last redrawing
    assert re.findall(r"line\d{3}", final) == [f"line{number:03}" for number in range(1, 101)]


def test_a_dumb_terminal_gets_plain_text(
    service: RunningService, upstream: ScriptedUpstream, tmp_path: Path
) -> None:
    upstream.answer(Say("**bold**"), Finish())
    with terminal(tmp_path, service.url, "Hi", TERM="dumb") as shown:
        assert shown.finish() == 0
    assert shown.output == "**bold**\r\n"


@pytest.mark.parametrize("drawn", [True, False])
def test_ctrl_c_stops_the_answer_upstream_and_exits_with_130(
    service: RunningService, upstream: ScriptedUpstream, tmp_path: Path, *, drawn: bool
) -> None:
    upstream.answer(Say("on and on"), Silence())
    with terminal(tmp_path, service.url, "Hi", TERM="xterm" if drawn else "dumb") as shown:
        shown.read_until("on and on")
        shown.process.send_signal(signal.SIGINT)
        assert shown.finish() == 130
    [call] = upstream.calls
    assert call.wait_gone(WAIT_SECONDS)
    assert "Traceback" not in shown.output
    service.wait_for_log(r"method=DELETE path=/ask/\w+ status=204")


def test_ctrl_c_before_upstream_has_accepted_stops_the_question_too(
    service: RunningService, upstream: ScriptedUpstream, tmp_path: Path
) -> None:
    upstream.answer(Silence())
    with terminal(tmp_path, service.url, "Hi", TERM="dumb") as shown:
        [call] = upstream.wait_for_calls(1)
        shown.process.send_signal(signal.SIGINT)
        assert shown.finish() == 130
    assert call.wait_gone(WAIT_SECONDS)
    assert (shown.output, upstream.paid_calls) == ("", 1)
    service.wait_for_log(r"(?s)method=POST path=/ask status=202.*method=DELETE path=/ask/\w+ status=204")


def test_ctrl_c_while_the_question_is_read_exits_with_130(tmp_path: Path) -> None:
    with subprocess.Popen(
        [*COMMAND, "-"],
        env=environment(tmp_path, "http://127.0.0.1:9"),
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdin is not None
        assert process.stderr is not None
        process.stdin.write(b"x" * 200_000)  # more than a pipe holds: when it is written, it is being read
        process.send_signal(signal.SIGINT)
        assert process.wait(WAIT_SECONDS) == 130
        assert process.stderr.read() == b""


def test_a_reader_that_has_enough_stops_the_answer_upstream(
    service: RunningService, upstream: ScriptedUpstream, tmp_path: Path
) -> None:
    gate = threading.Event()
    upstream.answer(Say("enough\n"), Hold(gate), Say("too much"), Silence())
    with subprocess.Popen(
        [*COMMAND, "Hi"],
        env=environment(tmp_path, service.url),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == b"enough\n"
        process.stdout.close()
        gate.set()
        assert process.wait(WAIT_SECONDS) == 141
        assert process.stderr.read() == b""
    assert upstream.calls[0].wait_gone(WAIT_SECONDS)


@pytest.mark.parametrize("after_bytes", [0, 300, 700, 900])
def test_a_broken_connection_is_taken_up_again_and_paid_once(
    service: RunningService, upstream: ScriptedUpstream, tmp_path: Path, after_bytes: int
) -> None:
    words = [f"word{number} " for number in range(20)]
    upstream.answer(*map(Say, words), Finish())
    with BadNetwork(service.url) as network:
        network.cut_next(after=after_bytes)
        done = run(tmp_path, network.url, "Hi")
        network.wait_for_cuts(1)
    assert (done.returncode, done.stdout, done.stderr) == (0, "".join(words) + "\n", "")
    assert upstream.paid_calls == 1


def test_an_upstream_that_fails_is_told_on_standard_error_with_exit_code_1_or_4(
    service: RunningService, upstream: ScriptedUpstream, tmp_path: Path
) -> None:
    upstream.answer_next(Refuse(401))
    refused = run(tmp_path, service.url, "Hi")
    assert (refused.returncode, refused.stdout) == (4, "")
    assert "authentication_error" in refused.stderr
    assert "request " in refused.stderr
    upstream.answer_next(Say("half"), Silence())
    cut = run(tmp_path, service.url, "Hi")
    assert (cut.returncode, cut.stdout) == (1, "half\n")
    assert "timeout_error" in cut.stderr
    upstream.answer_next(Say("too long"), Finish("length"))
    short = run(tmp_path, service.url, "Hi")
    assert (short.returncode, short.stdout) == (1, "too long\n")
    assert short.stderr == "chat-sse: the answer was cut short: length\n"


def test_a_service_that_is_not_there_or_is_none_is_exit_code_3(
    service: RunningService, upstream: ScriptedUpstream, tmp_path: Path
) -> None:
    with serve({**QUICK, "OPENAI_BASE_URL": upstream.base_url}) as gone:
        pass
    nobody = run(tmp_path, gone.url, "Hi")
    assert (nobody.returncode, nobody.stdout) == (3, "")
    assert gone.url in nobody.stderr
    assert "Is the service running there?" in nobody.stderr
    stranger = run(tmp_path, f"{upstream.base_url}/elsewhere", "Hi")
    assert (stranger.returncode, stranger.stdout) == (3, "")
    assert "no chat_sse service" in stranger.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("Hi", "--url", "ftp://127.0.0.1"),
        ("Hi", "--url", "http://[::1"),
        ("Hi", "--key", "schlüssel"),
        ("Hi", "--chat", "../up"),
        ("Hi", "--nonsense"),
    ],
)
def test_a_wrong_command_is_exit_code_2(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    done = run(tmp_path, "http://127.0.0.1:9", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr
    assert "Traceback" not in done.stderr


def test_options_of_the_server_do_not_go_with_ask(tmp_path: Path) -> None:
    done = subprocess.run(
        [*COMMAND[:-1], "--port", "9", "ask", "Hi"],
        env=environment(tmp_path, "http://127.0.0.1:9"),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (done.returncode, "for serving" in done.stderr) == (2, True)


def test_the_model_is_sent(upstream: ScriptedUpstream, tmp_path: Path) -> None:
    with serve({**QUICK, "OPENAI_BASE_URL": upstream.base_url, "CHAT_SSE_MODELS": "a,b"}) as service:
        done = run(tmp_path, service.url, "Hi", "--model", "b")
        wrong = run(tmp_path, service.url, "Hi", "--model", "c")
    assert (done.returncode, upstream.calls[0].body["model"]) == (0, "b")
    assert (wrong.returncode, "a, b" in wrong.stderr) == (4, True)


def test_the_key_is_sent_as_a_bearer_token_and_never_told(tmp_path: Path) -> None:
    received: list[bytes] = []

    def refuse(listener: socket.socket) -> None:
        client, _ = listener.accept()
        with client:
            client.settimeout(WAIT_SECONDS)
            received.append(client.recv(65_536))
            client.sendall(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(WAIT_SECONDS)
        refusing = threading.Thread(target=refuse, args=(listener,), daemon=True)
        refusing.start()
        done = run(tmp_path, f"http://127.0.0.1:{listener.getsockname()[1]}", "Hi", CHAT_SSE_KEY="canary-1")
        refusing.join(WAIT_SECONDS)
    assert b"Authorization: Bearer canary-1\r\n" in received[0]
    assert "HTTP 401" in done.stderr
    assert "canary" not in done.stdout + done.stderr


def test_a_chat_goes_on_where_it_ended_and_keeps_whole_answers_only(
    service: RunningService, upstream: ScriptedUpstream, tmp_path: Path
) -> None:
    upstream.answer_next(Say("Blue."), Finish())
    run(tmp_path, service.url, "--chat", "sky", "Which colour?")
    upstream.answer_next(Say("Because"), Finish("length"))
    run(tmp_path, service.url, "--chat", "sky", "Why?")
    upstream.answer_next(Say("Rayleigh."), Finish())
    run(tmp_path, service.url, "--chat", "sky", "Why, in a word?")
    assert [message["content"] for message in upstream.calls[-1].body["messages"]] == [
        "Which colour?",
        "Blue.",
        "Why, in a word?",
    ]
    file = tmp_path / ".local/state/chat-sse/sky.json"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    assert [message["content"] for message in msgspec.json.decode(file.read_bytes())][-1] == "Rayleigh."
    assert [path.name for path in file.parent.iterdir()] == ["sky.json"]


def test_two_questions_at_once_in_one_chat_lose_nothing(
    service: RunningService, upstream: ScriptedUpstream, tmp_path: Path
) -> None:
    gate = threading.Event()
    upstream.answer(Say("Yes."), Hold(gate), Finish())
    with ThreadPoolExecutor(2) as pool:
        both = [pool.submit(run, tmp_path, service.url, "--chat", "two", text) for text in ("One?", "Two?")]
        upstream.wait_for_calls(2)
        gate.set()
        assert [done.result().returncode for done in both] == [0, 0]
    kept = msgspec.json.decode((tmp_path / ".local/state/chat-sse/two.json").read_bytes())
    questions, answers = kept[::2], kept[1::2]
    assert {message["content"] for message in questions} == {"One?", "Two?"}
    assert answers == [{"role": "assistant", "content": "Yes."}] * 2


def test_a_chat_lies_in_the_state_directory_of_xdg_and_is_bounded(
    service: RunningService, upstream: ScriptedUpstream, tmp_path: Path
) -> None:
    state = tmp_path / "state"
    file = state / "chat-sse/long.json"
    file.parent.mkdir(parents=True)
    turns = [{"role": role, "content": str(number)} for number in range(80) for role in ("user", "assistant")]
    file.write_bytes(msgspec.json.encode(turns))
    assert run(tmp_path, service.url, "--chat", "long", "Next?", XDG_STATE_HOME=str(state)).returncode == 0
    kept = msgspec.json.decode(file.read_bytes())
    assert len(kept) <= 100
    assert kept[0]["role"] == "user"
    assert kept[-2]["content"] == "Next?"


def test_a_chat_that_cannot_be_read_is_told_and_left_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / ".local/state/chat-sse/broken.json"
    file.parent.mkdir(parents=True)
    file.write_text("no JSON")
    done = run(tmp_path, "http://127.0.0.1:9", "--chat", "broken", "Hi")
    assert (done.returncode, str(file) in done.stderr) == (2, True)
    assert file.read_text() == "no JSON"


def test_asking_does_not_import_the_server_nor_serving_the_terminal() -> None:
    code = "import sys, {}; print(*sorted(sys.modules))"
    ask, server = (
        subprocess.run(
            [sys.executable, "-c", code.format(module)],
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
        ).stdout.split()
        for module in ("chat_sse.cli, chat_sse.terminal.command", "chat_sse.cli, chat_sse.server.serve")
    )
    assert not {"openai", "uvicorn", "starlette.applications", "rich", "prompt_toolkit"} & set(ask)
    assert not {"rich", "markdown_it", "chat_sse.terminal"} & set(server)


def test_a_limit_that_is_reached_is_told_with_what_is_left(
    tmp_path: Path, upstream: ScriptedUpstream
) -> None:
    key = "robot-0123456789abcdef"
    env = {**QUICK, "OPENAI_BASE_URL": upstream.base_url, "CHAT_SSE_API_KEYS": f"robot:{key}"}
    limits = {"CHAT_SSE_RATE_LIMIT": "1/hour", "CHAT_SSE_TOKEN_BUDGET": "9000/day"}
    with serve({**env, **limits}) as limited:
        assert run(tmp_path, limited.url, "Hi", CHAT_SSE_KEY=key).returncode == 0
        refused = run(tmp_path, limited.url, "Hi", CHAT_SSE_KEY=key)
        assert refused.returncode == 4
        *_, wait, last = refused.stderr.splitlines()
        when = r"in \d+ (?:second|minute|hour)s?"
        assert re.fullmatch(f"  ask again {when}", wait)
        assert re.fullmatch(
            rf"chat-sse: left for robot: 0 of 1 requests \(all again {when}\), "
            rf"8982 of 9000 tokens \(all again {when}\), 10000 of 10000 answers at once",
            last,
        )
        wrong = run(tmp_path, limited.url, "Hi", CHAT_SSE_KEY="wrong")
        assert "left for" not in wrong.stderr
        assert "--key or CHAT_SSE_KEY" in wrong.stderr
        assert "--key" not in refused.stderr


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "in 1 second"),
        (119, "in 119 seconds"),
        (120, "in 2 minutes"),
        (7199, "in 120 minutes"),
        (61_817, "in 18 hours"),
        (200_000, "in 3 days"),
    ],
)
def test_a_wait_is_told_in_words(seconds: int, words: str) -> None:
    assert in_words(seconds) == words
