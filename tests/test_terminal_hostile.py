"""`chat-sse ask` against text and services that mean harm, in a real terminal and in a pipe."""

import json
import re
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.service import RunningService
from tests.support.upstream import Finish, Say, ScriptedUpstream
from tests.support.web import Handler, web_server
from tests.test_terminal import run, terminal

BIDI = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
CONTROLS = "\x00\x07\x08\x0b\x0c\x0d\x0e\x1b\x7f\x85\x90\x9b\x9c\x9d\x9f" + BIDI
# What rich itself writes: styles, and the cursor's moves of the part that is redrawn.
OWN_ESCAPES = re.compile(r"\x1b\[[0-9;]*[mKABCDGH]|\x1b\[\?25[hl]")

OSC = "\x1b]52;c;c3RvbGVu\x07"
ATTACKS = {
    "OSC": f"a{OSC}b",
    "OSC, ended by ST": "a\x1b]0;title\x1b\\b",
    "CSI": "a\x1b[2Jb",
    "C1": "a\x9b2J\x9d0;title\x9cb",
    "DEL": "a\x7f\x7f\x7fb",
    "bidi": f"a{BIDI}b",
    "an autolink": "<http://a/%1b]52;c;stolen%1b%5c%07%7f%c2%9b%e2%80%ae%0d>",
    "a link's destination": "[a](http://a/%1b%5b2J%c2%9b%07%e2%80%ae)",
    "an image's source": "![a](http://a/%1b%5b2J%c2%9b%07%e2%80%ae)",
    "a reference": "[a][b]\n\n[b]: http://a/%1b%5b2J%c2%9b%07 'title &#27;[2J'",
    "entities": "a &#27;[2J &#x1b;]0;t&#7; &#127; &#155;2J &#x202e;b&#8238;",
    "a code block's language": "```py&#27;[2J\ncode\x1b[2J\n```",
    "a table": "| a |\n|---|\n| &#27;[2J %1b <http://a/%1b[2J> |",
    "a heading and a list": "# &#27;[2J\n\n1. &#155;\n   > &#x2066;",
    "all at once": f"{CONTROLS}\n\n`{CONTROLS}`\n\n```\n{CONTROLS}\n```",
}


def is_clean(output: str) -> bool:
    left = OWN_ESCAPES.sub("", output).replace("\r\n", "\n").replace("\r", "")
    return not any(letter in CONTROLS for letter in left) and "\x1b" not in left


@pytest.mark.parametrize("term", ["xterm-256color", "dumb"])
@pytest.mark.parametrize("text", ATTACKS.values(), ids=ATTACKS.keys())
def test_no_control_character_of_an_answer_reaches_a_terminal(
    service: RunningService, upstream: ScriptedUpstream, tmp_path: Path, text: str, term: str
) -> None:
    upstream.answer(*map(Say, text), Say("\n\nend"), Finish())
    with terminal(tmp_path, service.url, "Hi", TERM=term) as shown:
        assert shown.finish() == 0
    assert is_clean(shown.output), ascii(shown.output)
    assert "end" in shown.output


def test_a_pipe_gets_the_text_as_it_is(
    service: RunningService, upstream: ScriptedUpstream, tmp_path: Path
) -> None:
    text = f"a{OSC}\x9b\x7f{BIDI}b"
    upstream.answer(Say(text), Finish())
    assert run(tmp_path, service.url, "Hi").stdout == f"{text}\n"


def test_a_locale_without_a_letter_is_no_traceback(
    service: RunningService, upstream: ScriptedUpstream, tmp_path: Path
) -> None:
    upstream.answer(Say("a\u6f22"), Finish())
    done = run(tmp_path, service.url, "Hi", PYTHONIOENCODING="latin-1")
    assert (done.returncode, done.stdout, done.stderr) == (0, "a\\u6f22\n", "")


# Services that are none


class Stranger:
    """An HTTP server that answers each request with the next of its responses, the last one for ever."""

    def __init__(self, url: str, requests: list[tuple[str, str, str | None]]) -> None:
        self.url = url
        self.requests = requests


@contextmanager
def stranger(
    *bodies: bytes,
    status: int = 200,
    headers: dict[str, str] | None = None,
    held: threading.Event | None = None,
) -> Iterator[Stranger]:
    """Serve. `held`: leaves what answers a POST open until it is set."""
    told = {"Content-Type": "text/event-stream", **(headers or {})}
    found: list[tuple[str, str, str | None]] = []
    left = list(bodies)

    class Hostile(Handler):
        def do_POST(self) -> None:
            found.append((self.command, self.path, self.headers["Authorization"]))
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.send_response(status)
            for name, value in told.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(left.pop(0) if len(left) > 1 else left[0])
            if held is not None and self.command == "POST":
                held.wait(20)

        do_GET = do_DELETE = do_POST

    with web_server(Hostile) as port:
        yield Stranger(f"http://127.0.0.1:{port}", found)


def event(event_id: str, **fields: Any) -> bytes:
    return f"data: {json.dumps(fields)}\nid: {event_id}\n\n".encode()


START = event("a.0", type="start", id="a", model="m")
DELTA = event("a.1", type="delta", content="Hi")
DONE = event("a.2", type="done", finish_reason="stop", usage=None)
EVIL = "\x1b]0;t\x07\x9b2J\x7f\u202eend"

GARBAGE: dict[str, Sequence[Any]] = {
    "an id that is not ASCII": [event("ä.0", type="start", id="ä", model="m")],
    "an id with a control character": [event("a\x01.0", type="start", id="a", model="m")],
    "no JSON": [b"data: nonsense\x1b[2J\n\n"],
    "an unknown event": [event("a.0", type=EVIL)],
    "a wrong type": [event("a.0", type="delta", content={"a": 1})],
    "a wrong root": [b"data: [1]\n\n"],
    "a lone surrogate": [b'data: {"type":"delta","content":"\\ud800"}\n\n'],
    "deep nesting": [b'data: {"x":' + b"[" * 100_000 + b"\n\n"],
    "a huge line": [b"data: " + b"x" * 3_000_000 + b"\n\n"],
    "invalid UTF-8": [b"data: \xff\xfe\n\n"],
    "the start again and again": [START],
    "the start again, without ids": [b'data: {"type":"delta","content":"Hi"}\n\n'],
}


@pytest.mark.parametrize("bodies", GARBAGE.values(), ids=GARBAGE.keys())
def test_a_service_that_sends_garbage_ends_in_a_clean_sentence(
    tmp_path: Path, bodies: Sequence[bytes]
) -> None:
    with stranger(*bodies) as service:
        done = run(tmp_path, service.url, "Hi")
    assert done.returncode == 3
    assert done.stderr.startswith(f"chat-sse: {service.url}")
    assert "no chat_sse service" in done.stderr
    assert "Traceback" not in done.stderr
    assert is_clean(done.stderr)


@pytest.mark.parametrize(
    ("status", "body", "headers"),
    [
        (200, b"<html>", {"Content-Type": "text/html; \x7f"}),
        (200, b"no gzip", {"Content-Encoding": "gzip"}),
        (302, b"", {"Location": "http://127.0.0.1:9/ask"}),
        (204, b"", {}),
        (500, b"\xff", {}),
        (500, b'{"role":"\xff"}', {}),
        (500, b'{"x":' + b"[" * 100_000, {}),
        (500, b"x" * 1_000_000, {}),
        (418, b"[]", {}),
    ],
)
def test_a_response_that_is_none_of_ours_ends_in_a_sentence(
    tmp_path: Path, status: int, body: bytes, headers: dict[str, str]
) -> None:
    with stranger(body, status=status, headers=headers) as service:
        done = run(tmp_path, service.url, "Hi", CHAT_SSE_KEY="canary")
    assert (done.returncode, len(done.stderr.splitlines())) == (3, 1)
    assert "no chat_sse service" in done.stderr
    assert "canary" not in done.stderr


@pytest.mark.parametrize("retry", ["-5", "9" * 4000, "x"])
def test_any_retry_time_is_survived(tmp_path: Path, retry: str) -> None:
    bodies = (f"retry: {retry}\n".encode() + START, DELTA, DONE)
    with stranger(*bodies) as service:
        done = run(tmp_path, service.url, "Hi")
    assert (done.returncode, done.stdout, done.stderr) == (0, "Hi\n", "")


def test_a_charset_that_is_claimed_changes_nothing(tmp_path: Path) -> None:
    content_type = {"Content-Type": "text/event-stream; charset=raw_unicode_escape"}
    with stranger(START + DELTA + DONE, headers=content_type) as service:
        assert run(tmp_path, service.url, "Hi").stdout == "Hi\n"


FAILED = {
    "role": "assistant",
    "content": EVIL,
    "error": EVIL,
    "details": EVIL,
    "request_id": EVIL,
    "retryable": False,
}


@pytest.mark.parametrize(
    ("status", "body", "code"),
    [
        (200, START + event("a.1", type="done", finish_reason=EVIL, usage=None), 1),
        (200, START + event("a.1", type="error", **FAILED), 1),
        (400, json.dumps(FAILED).encode(), 4),
        (200, START.replace(b"a.0", b"a.0" + EVIL.encode()), 3),
    ],
    ids=["a finish reason", "an error event", "a refusal", "an event id"],
)
@pytest.mark.parametrize("term", ["xterm-256color", "dumb"])
def test_no_control_character_of_an_error_reaches_a_terminal(
    tmp_path: Path, term: str, status: int, body: bytes, code: int
) -> None:
    with (
        stranger(body, status=status) as service,
        terminal(tmp_path, service.url, "Hi", TERM=term) as shown,
    ):
        assert shown.finish() == code
    assert is_clean(shown.output), ascii(shown.output)
    assert "chat-sse: " in shown.output


# Secrets


@pytest.mark.parametrize(
    "url",
    [
        "http://user:canary-password@127.0.0.1:9",
        "http://user:canary-password@127.0.0.1:9/path?token=canary",
        "http://user:canary/password@127.0.0.1:9",
        "http://user:canary-password@127.0.0.1:port",
        "http://user:canary-password@[::1",
        "ftp://user:canary-password@127.0.0.1",
        "http://user:canary-password@nowhere.invalid",
    ],
)
def test_a_password_in_the_url_is_never_printed(tmp_path: Path, url: str) -> None:
    for done in (run(tmp_path, url, "Hi"), run(tmp_path, "http://127.0.0.1:9", "Hi", "--url", url)):
        assert done.returncode in (2, 3)
        assert "canary" not in done.stdout + done.stderr
        assert "Traceback" not in done.stderr


def test_neither_a_key_that_no_header_can_carry_nor_a_proxys_password_is_printed(tmp_path: Path) -> None:
    for env in (
        {"CHAT_SSE_KEY": "canary "},
        {"CHAT_SSE_KEY": "canary\x7f"},
        {"HTTP_PROXY": "http://user:canary@h:port"},
        {"HTTP_PROXY": "canary://user:canary@h"},
    ):
        done = run(tmp_path, "http://nowhere.invalid", "Hi", **env)
        assert done.returncode == 2
        assert "canary" not in done.stderr
        assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "address", ["http://{other}/ask/a", "//{other}/ask/a", "http:{other}", "http://[", "é"]
)
def test_the_key_goes_to_no_other_host(tmp_path: Path, address: str) -> None:
    held = threading.Event()
    with stranger(b"") as other:
        location = address.format(other=other.url.removeprefix("http://"))
        more = {"Content-Location": location, "Location": location, "Content-Length": "9999"}
        with (
            stranger(START + DELTA, headers=more, held=held) as service,
            terminal(tmp_path, service.url, "Hi", CHAT_SSE_KEY="canary") as shown,
        ):
            shown.read_until("Hi")
            shown.process.send_signal(2)
            assert shown.finish() == 130
            held.set()
    assert other.requests == []
    assert "Traceback" not in shown.output
    assert service.requests == [("POST", "/ask", "Bearer canary"), ("DELETE", "/ask/a", "Bearer canary")]
