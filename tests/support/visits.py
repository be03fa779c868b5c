"""What clients do: the fault matrix's columns, which the soak draws from as well. Over plain `http.client`.

Each behaviour asks one question, once or often, and returns what its readers got who stayed to the end. A
reader that comes back is one reader: its parts are joined.
"""

from __future__ import annotations

import http.client
import re
import socket
import struct
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec

from chat_sse.formats.sse import HEARTBEAT
from tests.support.faults import Fault

SECONDS = 40.0
STORM = 6
NUMBERED = ("sse", "html")
FORMATS = ("sse", "html", "ai-sdk", "text", "json")
_ID = re.compile(rb"^id: ([\w-]+\.\d+)$", re.MULTILINE)


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """One question, and where and how it is asked."""

    port: int
    text: str
    """Unique: by it the upstream knows its script, and it is the key."""
    fault: Fault
    format: str = "sse"

    @property
    def body(self) -> bytes:
        model = {"model": self.fault.model} if self.fault.model else {}
        return msgspec.json.encode({"messages": [{"role": "user", "content": self.text}], **model})


class Visit:
    """One request and what came of it."""

    def __init__(
        self, question: Question, method: str, path: str, headers: Mapping[str, str] = {}, buffer: int = 0
    ) -> None:
        self.question = question
        self.status, self.body, self.location = 0, b"", ""
        self.is_broken = False
        """Whether the connection ended before the body did."""
        self._connection = http.client.HTTPConnection("127.0.0.1", question.port, timeout=SECONDS)
        if buffer:
            self._connection.sock = _narrow(question.port, buffer)
        keyed = {"Content-Type": "application/json", "Idempotency-Key": question.text}
        body = question.body if method == "POST" else None
        try:
            self._connection.request(method, path, body, {**(keyed if body else {}), **headers})
        except OSError:
            self.is_broken = True

    @property
    def id(self) -> str:
        return self.location.rpartition("/")[2]

    @property
    def last_event_id(self) -> str | None:
        found = _ID.findall(self.body)
        return found[-1].decode() if found else None

    def read(self, blocks: int | None = None) -> Visit:
        """Read to the end, or until so many blocks are there."""
        try:
            if not self.status:
                self._response = self._connection.getresponse()
                self.status = self._response.status
                self.location = self._response.headers.get("content-location", "")
            while blocks is None or self.body.count(b"\n\n") < blocks:
                if not (data := self._response.read1(65_536)):
                    break
                self.body += data
        except (OSError, http.client.HTTPException):
            self.is_broken = True
        if blocks is None:
            self._connection.close()
        return self

    def reset(self) -> None:
        """Leave with a RST."""
        if self._connection.sock is not None:
            self._connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._connection.close()

    def joined(self, earlier: Visit) -> Visit:
        """Return this as the rest of an earlier one."""
        if self.status != 200:
            return earlier if self.status == 204 else self
        self.body = earlier.body.rpartition(b"\n\n")[0] + b"\n\n" + self.body
        return self


def _narrow(port: int, buffer: int) -> socket.socket:
    narrow = socket.socket()
    narrow.settimeout(SECONDS)
    narrow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
    narrow.connect(("127.0.0.1", port))
    return narrow


def asked(question: Question, **options: Any) -> Visit:
    """Ask, and read nothing yet."""
    return Visit(question, "POST", f"/ask?format={question.format}", **options)


def _resumed(question: Question, earlier: Visit) -> Visit:
    """Come back: after the last event that was seen, or by the key."""
    if (seen := earlier.last_event_id) and question.format in NUMBERED:
        path = f"/ask/{seen.partition('.')[0]}?format={question.format}"
        return Visit(question, "GET", path, {"Last-Event-ID": seen}).read().joined(earlier)
    return asked(question).read()


def stays(question: Question) -> list[Visit]:
    return [asked(question).read()]


def resets_before(question: Question) -> list[Visit]:
    asked(question).reset()
    return [asked(question).read()]


def resets_during(question: Question) -> list[Visit]:
    first = asked(question).read(3)
    first.reset()
    return [_resumed(question, first)]


def resets_after(question: Question) -> list[Visit]:
    first = asked(question).read()
    first.reset()
    return [first, _resumed(question, first)]


def stops_reading(question: Question) -> list[Visit]:
    visit = asked(question, buffer=4096)
    time.sleep(0.7)
    return [visit.read()]


def storms(question: Question) -> list[Visit]:
    with ThreadPoolExecutor(STORM) as pool:
        return list(pool.map(lambda _: asked(question).read(), range(STORM)))


def stops(question: Question) -> list[Visit]:
    visit = asked(question).read(2)
    if visit.id:
        Visit(question, "DELETE", f"/ask/{visit.id}").read()
    return [visit.read()]


def retries(question: Question) -> list[Visit]:
    return [asked(question).read() for _ in range(3)]


def patiently(question: Question, seconds: float = 60.0) -> list[Visit]:
    """Read to a terminal event whatever happens to the site: come back after a break, again after a 503."""
    deadline = time.monotonic() + seconds
    visit = asked(question).read()
    while visit.is_broken or visit.status in (0, 503) or b'"log_unavailable"' in visit.body[-400:]:
        assert time.monotonic() < deadline, f"{question.text}: still {visit.status} {visit.body[-300:]!r}"
        time.sleep(0.1)
        kept = b"\n\n".join(block for block in visit.body.split(b"\n\n")[:-1] if b"\nid: " in b"\n" + block)
        visit.body = kept + b"\n\n" if kept else b""
        visit = _resumed(question, visit)
    return [visit]


Behaviour = Callable[[Question], list[Visit]]
BEHAVIOURS: tuple[Behaviour, ...] = (
    stays,
    resets_before,
    resets_during,
    resets_after,
    stops_reading,
    storms,
    stops,
    retries,
)
LEAVING = (resets_before, resets_during)
"""Where the format cannot be resumed, these cancel the call."""


class Told(msgspec.Struct, frozen=True):
    """What a body says: its text, each ending (`done`, `cancelled`, or an error's code), and its numbers."""

    text: str
    endings: list[str]
    numbers: list[int]


def told(visit: Visit) -> Told:
    """Read a body of status 200 by the letter of its format."""
    fmt = visit.question.format
    if fmt == "text":
        return Told(visit.body.decode(), ["broken"] if visit.is_broken else ["done"], [])
    if fmt == "json":
        body = msgspec.json.decode(visit.body)
        reason = body.get("finish_reason")
        return Told(body["content"], ["cancelled" if reason == "cancelled" else "done"], [])
    text, endings, numbers = [], list[str](), list[int]()
    blocks = visit.body.replace(HEARTBEAT, b"").decode().split("\n\n")
    assert visit.is_broken or blocks[-1] == "", f"half an event at the end: {blocks[-1][-200:]!r}"
    for block in blocks[:-1]:
        fields = dict(line.split(": ", 1) for line in block.split("\n"))
        if "id" in fields:
            numbers.append(int(fields["id"].rpartition(".")[2]))
        piece, ending = (_html if fmt == "html" else _json)(fields)
        text.append(piece)
        endings += [ending] if ending else []
    return Told("".join(text), endings, numbers)


def _json(fields: Mapping[str, str]) -> tuple[str, str]:
    event = {"type": ""} if fields["data"] == "[DONE]" else msgspec.json.decode(fields["data"])
    text = {"delta": "content", "text-delta": "delta"}.get(event["type"])
    ending = {"error": event.get("error", "error"), "abort": "cancelled", "done": "done", "finish": "done"}
    if event.get("finish_reason") == "cancelled":
        return "", "cancelled"
    return (event[text], "") if text else ("", ending.get(event["type"], ""))


def _html(fields: Mapping[str, str]) -> tuple[str, str]:
    if fields.get("event") == "done":
        reason = re.search(r'data-(error|finish-reason)="(\w*)"', fields["data"])
        assert reason
        return "", reason[2] if reason[1] == "error" or reason[2] == "cancelled" else "done"
    if "event" in fields or fields["data"].startswith("<"):
        return "", ""
    return fields["data"].replace("<br>", "\n"), ""
