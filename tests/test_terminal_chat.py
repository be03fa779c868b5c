"""`chat-sse chat`, as it is typed: in a terminal."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from tests.conftest import QUICK
from tests.support.service import RunningService, serve
from tests.support.upstream import Finish, Say, ScriptedUpstream, Silence
from tests.test_terminal import WAIT_SECONDS, Terminal, environment, terminal

ENTER, NEW_LINE, UP, CTRL_C, CTRL_D = "\r", "\x1b\r", "\x1b[A", "\x03", "\x04"
CHAT = (sys.executable, "-W", "error", "-m", "chat_sse", "chat")
# What is written at each prompt: a pasted text shall come between marks.
PROMPT = "\x1b[?2004h"


class Session:
    """`chat-sse chat` at its prompt."""

    def __init__(self, shown: Terminal) -> None:
        self.shown = shown
        self.until_prompt()

    def until_prompt(self) -> str:
        """Wait for the next prompt, and give what has been drawn before it."""
        drawn, _, self.shown.output = self.shown.read_until(PROMPT).partition(PROMPT)
        return drawn

    def enter(self, text: str) -> str:
        """Type a line, and give what comes of it."""
        self.shown.type(text + ENTER)
        return self.until_prompt()

    def leave(self) -> int:
        self.shown.type(CTRL_D)
        return self.shown.finish()


@contextmanager
def chatting(home: Path, url: str, *arguments: str) -> Iterator[Session]:
    # The terminal of these tests does not tell where its cursor is.
    with terminal(home, url, *arguments, command=CHAT, PROMPT_TOOLKIT_NO_CPR="1") as shown:
        yield Session(shown)


def pasted(text: str) -> str:
    """What a terminal sends of a text that is pasted."""
    return f"\x1b[200~{text}\x1b[201~"


def asked(upstream: ScriptedUpstream) -> list[str]:
    """Give the texts of the last call's messages."""
    return [message["content"] for message in upstream.calls[-1].body["messages"]]


def test_a_conversation_has_its_history_until_a_new_one_begins(
    service: RunningService, upstream: ScriptedUpstream, tmp_path: Path
) -> None:
    with chatting(tmp_path, service.url) as session:
        upstream.answer_next(Say("**Blue** it is."), Finish())
        assert "\x1b[1mBlue\x1b[0m it is." in session.enter("Which colour?")
        session.enter("And why?")
        assert asked(upstream) == ["Which colour?", "**Blue** it is.", "And why?"]
        session.enter("/new")
        session.enter("And now?")
        assert asked(upstream) == ["And now?"]
        assert session.leave() == 0
    assert not (tmp_path / ".local").exists()


def test_several_lines_typed_or_pasted_are_one_question(
    service: RunningService, upstream: ScriptedUpstream, tmp_path: Path
) -> None:
    with chatting(tmp_path, service.url) as session:
        session.enter(f"one{NEW_LINE}two")
        assert asked(upstream) == ["one\ntwo"]
        session.enter(pasted("three\nfour\n\nfive"))
        assert asked(upstream)[-1] == "three\nfour\n\nfive"
        session.shown.type(f"not this{CTRL_C}")
        session.until_prompt()
        session.enter(f"{UP}, six")
        assert asked(upstream)[-1] == "three\nfour\n\nfive, six"
    assert upstream.paid_calls == 3


def test_ctrl_c_stops_the_answer_and_not_the_program(
    service: RunningService, upstream: ScriptedUpstream, tmp_path: Path
) -> None:
    upstream.answer_next(Say("on and on"), Silence())
    with chatting(tmp_path, service.url) as session:
        session.shown.type(f"Go on{ENTER}")
        session.shown.read_until("on and on")
        session.shown.process.send_signal(signal.SIGINT)
        session.until_prompt()
        assert upstream.calls[0].wait_gone(WAIT_SECONDS)
        service.wait_for_log(r"method=DELETE path=/ask/\w+ status=204")
        session.enter("Shorter, please")
        assert asked(upstream) == ["Go on", "on and on", "Shorter, please"]
        assert session.leave() == 0


def test_a_named_conversation_is_kept_and_its_questions_are_at_the_arrow_keys(
    service: RunningService, upstream: ScriptedUpstream, tmp_path: Path
) -> None:
    with chatting(tmp_path, service.url) as session:
        session.enter("/new sky")
        upstream.answer_next(Say("Because."), Finish())
        session.enter("Why?")
    with chatting(tmp_path, service.url, "--chat", "sky") as session:
        upstream.answer_next(Say("As said."), Finish())
        session.enter(UP)
    kept = msgspec.json.decode((tmp_path / ".local/state/chat-sse/sky.json").read_bytes())
    assert [message["content"] for message in kept] == ["Why?", "Because.", "Why?", "As said."]


def test_models_are_listed_and_chosen_and_a_mistyped_command_is_not_asked(
    upstream: ScriptedUpstream, tmp_path: Path
) -> None:
    with (
        serve({**QUICK, "OPENAI_BASE_URL": upstream.base_url, "CHAT_SSE_MODELS": "ant,bee"}) as service,
        chatting(tmp_path, service.url) as session,
    ):
        assert "* ant\r\n  bee" in session.enter("/model")
        assert "there is no command /modle" in session.enter("/modle bee")
        session.enter("/model bee")
        session.enter(" /modle bee")
        assert asked(upstream) == ["/modle bee"]
        assert "  ant\r\n* bee" in session.enter("/model")
        assert "/new NAME" in session.enter("/help")
    assert [call.body["model"] for call in upstream.calls] == ["bee"]


def test_a_failure_is_told_and_the_program_goes_on(tmp_path: Path) -> None:
    with chatting(tmp_path, "http://127.0.0.1:9") as session:
        assert "Is the service running there?" in session.enter("Hi")
        assert "a chat's name is" in session.enter("/new ../up")
        assert session.leave() == 0


def test_without_a_terminal_or_the_extra_it_says_what_to_do(tmp_path: Path) -> None:
    piped = subprocess.run(
        CHAT, env=environment(tmp_path, "http://127.0.0.1:9"), input="Hi", capture_output=True,
        text=True, timeout=30, check=False,
    )  # fmt: skip
    assert (piped.returncode, "chat-sse ask" in piped.stderr) == (2, True)
    bare = "import sys; sys.modules['prompt_toolkit'] = None; from chat_sse.cli import main; main(['chat'])"
    with terminal(tmp_path, "http://127.0.0.1:9", command=(sys.executable, "-c", bare)) as shown:
        assert shown.finish() == 2
    assert "pip install 'chat-sse[chat]'" in shown.output
