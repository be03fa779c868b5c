"""What was asked of the upstream, and what of it was paid."""

from __future__ import annotations

import secrets
import threading
import time
from collections import deque
from typing import Any

import msgspec

from tests.support.upstream.steps import DEFAULT_ANSWER, Refuse, Step


class Call:
    """A request for a completion that arrived whole, and what became of it."""

    def __init__(self, path: str, headers: dict[str, str], content: bytes, connection_number: int) -> None:
        self.path = path
        self.target = path  # with the query
        self.headers = headers  # names in lower case
        self.content = content
        self.connection_number = connection_number  # from 1, in the order of accepting
        self.received_at = time.monotonic()
        self.id = f"chatcmpl-{secrets.token_hex(12)}"
        self.paid = False
        try:
            self.body: Any = msgspec.json.decode(content)
        except msgspec.DecodeError:
            self.body = None
        self._gone = threading.Event()
        self._finished = threading.Event()

    @property
    def question(self) -> str:
        """The last message's text, or nothing."""
        messages = self.body.get("messages") if isinstance(self.body, dict) else None
        content = messages[-1].get("content") if messages else ""
        return content if isinstance(content, str) else ""

    @property
    def streams(self) -> bool:
        return isinstance(self.body, dict) and self.body.get("stream") is True

    @property
    def wants_usage(self) -> bool:
        return self.streams and (self.body.get("stream_options") or {}).get("include_usage") is True

    @property
    def gone(self) -> bool:
        """Whether the client closed or reset its connection before the script was played out."""
        return self._gone.is_set()

    @property
    def finished(self) -> bool:
        """Whether the script was played out, however it ended."""
        return self._finished.is_set()

    def wait_gone(self, timeout: float = 5.0) -> bool:
        """Block until the client left early. False: it did not within `timeout` seconds."""
        return self._gone.wait(timeout)

    def wait_finished(self, timeout: float = 5.0) -> bool:
        """Block until the script was played out. False: it was not within `timeout` seconds."""
        return self._finished.wait(timeout)

    def leave(self) -> None:
        if not self.finished:
            self._gone.set()

    def finish(self) -> None:
        self._finished.set()

    def __repr__(self) -> str:
        state = "gone" if self.gone else "finished" if self.finished else "open"
        return f"<Call {self.id} {state}{' paid' if self.paid else ''}>"


class Ledger:
    """What was scripted, what was called and what went wrong: all that the two threads share."""

    def __init__(self, models: tuple[str, ...], patience_seconds: float) -> None:
        self.models = models
        self.patience_seconds = patience_seconds
        self.faults: list[BaseException] = []
        self.changed = threading.Condition()
        self.script = DEFAULT_ANSWER
        self.next_scripts: deque[tuple[Step, ...]] = deque()
        self.scripts_by_question: dict[str, tuple[Step, ...]] = {}
        self.calls: list[Call] = []
        self.accepted_connections = 0
        self.targets: list[str] = []

    def connect(self) -> int:
        """Count a connection; its number is returned."""
        with self.changed:
            self.accepted_connections += 1
            return self.accepted_connections

    def enter(self, call: Call) -> tuple[Step, ...]:
        """Enter a call and what it costs; the script that it gets is returned."""
        with self.changed:
            script = self._script_for(call)
            call.paid = not any(step.refuses for step in script)
            self.calls.append(call)
            self.changed.notify_all()
            return script

    def _script_for(self, call: Call) -> tuple[Step, ...]:
        if not call.streams:
            return (Refuse(400, {"error": {"message": "Only streaming requests are scripted."}}),)
        if (script := self.scripts_by_question.get(call.question)) is not None:
            return script
        return self.next_scripts.popleft() if self.next_scripts else self.script
