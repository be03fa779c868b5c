"""What a client or an upstream sends cannot forge a line of the log, a field, or an escape."""

import logging
import re
import socket
import sys
from typing import Any

import msgspec
import pytest

from chat_sse.observe.logging import JsonFormatter, TextFormatter
from tests.conftest import QUICK
from tests.support.service import RunningService, ask, serve
from tests.support.upstream import Finish, Say, ScriptedUpstream

FORGED = "2026-11-23T00:00:00 ERROR forged"
HOSTILE = {
    "a line feed": f"stop\n{FORGED}",
    "a carriage return": f"stop\r{FORGED}",
    "C0": "".join(map(chr, range(32))),
    "an escape": "\x1b]0;title\x07\x1b[2J",
    "DEL": "\x7f",
    "C1": "".join(map(chr, range(0x80, 0xA0))),
    "line separators": f"stop\u2028{FORGED}\u2029",
    "bidi": "\u202e\u2066\u200f\u061c",
    "a surrogate": "\ud800",
    "a field": "stop id=forged",
    "quotes": "'\" \\ \\n",
    "nothing": "",
}


def line(formatter: logging.Formatter, message: str = "answer.ended", **fields: Any) -> str:
    record = logging.LogRecord("chat_sse", logging.INFO, "", 0, message, None, None)
    record.fields = fields
    return formatter.format(record)


@pytest.mark.parametrize("value", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_value_is_one_printable_value_of_one_line(value: str) -> None:
    text = line(TextFormatter(), finish_reason=value, seconds=0.5)
    assert text.isprintable()
    assert re.fullmatch(r"""\S+ INFO answer\.ended finish_reason=(['"]).+\1 seconds=0\.5|.*''.*""", text)
    encoded = line(JsonFormatter(), finish_reason=value)
    assert encoded.isascii()
    assert encoded.isprintable()
    if value != "\ud800":
        assert msgspec.json.decode(encoded)["finish_reason"] == value


@pytest.mark.parametrize("value", HOSTILE.values(), ids=HOSTILE.keys())
@pytest.mark.parametrize("formatter", [TextFormatter(), JsonFormatter()])
def test_a_message_is_one_line(formatter: logging.Formatter, value: str) -> None:
    assert line(formatter, f"library {value}").isprintable()


def test_plain_values_stay_as_they_are() -> None:
    text = line(TextFormatter(), id="8f3c", model="org/größe-7b:latest", seconds=0.42, reason=None)
    assert text.endswith(" INFO answer.ended id=8f3c model=org/größe-7b:latest seconds=0.42 reason=None")


def test_a_long_value_is_bounded() -> None:
    for formatter in (TextFormatter(), JsonFormatter()):
        assert len(line(formatter, model="x" * 100_000)) < 1000


def test_a_traceback_stays_readable() -> None:
    try:
        int("canary")
    except ValueError:
        record = logging.LogRecord("chat_sse", logging.ERROR, "", 0, "request.crashed", None, sys.exc_info())
    assert re.search(
        r"request\.crashed\n  File .*\n.*int\(.*\n(.*\n)?ValueError$",
        TextFormatter().format(record),
    )
    assert "traceback" in msgspec.json.decode(JsonFormatter().format(record))


def test_upstreams_finish_reason_forges_no_line(service: RunningService, upstream: ScriptedUpstream) -> None:
    for value in (f"stop\n{FORGED}", f"stop\u2028{FORGED}\x1b[2J\x9b\x7f"):
        upstream.answer(Say("Hi"), Finish(value))
        ask(service.url)
    service.wait_for_log(r"(?s)(?:answer\.ended.*){2}")
    log = service.log()
    assert not any(found.startswith(FORGED) for found in log.splitlines())
    assert all(found.isprintable() for found in log.split("\n"))


def test_a_request_forges_no_line(service: RunningService) -> None:
    host, port = service.url.removeprefix("http://").split(":")
    head = b"Host: localhost\r\nX-Request-Id: a b\r\nUser-Agent: \x9b\r\nConnection: close\r\n\r\n"
    for path in (b"/ask/%1b%5b2J%0a", b"/ask/\x7f\x9b", b"/ask/\x1b[2J", b"/ask/x=y%20z"):
        with socket.create_connection((host, int(port)), timeout=10) as client:
            client.sendall(b"GET %b HTTP/1.1\r\n%b" % (path, head))
            assert client.recv(65_536).startswith(b"HTTP/1.1 4")
    service.wait_for_log(r"INFO request method=GET path='/ask/x=y%20z'")
    assert all(found.isprintable() for found in service.log().split("\n"))


def test_json_lines_hold_no_control_characters(upstream: ScriptedUpstream) -> None:
    upstream.answer(Say("Hi"), Finish("stop\u2028\x9b\x7f\x1b\n"))
    with serve({**QUICK, "OPENAI_BASE_URL": upstream.base_url, "CHAT_SSE_LOG_FORMAT": "json"}) as service:
        ask(service.url)
        found = service.wait_for_log('.*"event":"answer.ended".*')
    assert found.isprintable()
    msgspec.json.decode(found)
