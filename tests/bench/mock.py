"""The upstream of the benchmark: as little work as a server can do, so that the relays are what is measured.

What a call gets stands in its question, `bench <mode> <deltas> <microseconds>`, since every relay hands that
on unchanged:

- `paced`: one delta every so many microseconds, on a schedule of its own for each stream
- `burst`: all deltas in one write
- `held`: one delta, and then a share of HELD_DELTAS_PER_SECOND, which all held streams together get however
  many they are, until the client leaves: what a delta costs can so be compared between 10 and 4,000 streams

The bytes are OpenAI's (https://platform.openai.com/docs/api-reference/chat-streaming), each a chunk of the
chunked body, made once.
"""

from __future__ import annotations

import asyncio
import functools
import re
import socket
from collections import deque
from collections.abc import Mapping
from typing import Any, cast

import msgspec

from tests.bench.control import BACKLOG, Command, obey

MODEL = "gpt-4o-mini"
MARK = "~"  # once in each delta and nowhere else: whatever a relay makes of it, it can be counted
HELD_DELTAS_PER_SECOND = 500  # what the slowest peer carries as well, on one slow processor
HELD_TICK_SECONDS = 0.001
# The body's end is a packet of its own, as it mostly is on the network: a relay that leaves at `[DONE]` does
# not find it in the buffer by luck.
END_SECONDS = 0.001

_PLAN = re.compile(rb"bench (paced|burst|held) (\d+) (\d+)")
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def _event(
    delta: Mapping[str, str] | None, finish_reason: str | None = None, usage: Any = None, **more: str
) -> bytes:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
    event = {
        "id": "chatcmpl-bench0123456789abcdefghijkl",
        "object": "chat.completion.chunk",
        "created": 1700000000,
        "model": MODEL,
        "service_tier": "default",
        "system_fingerprint": "fp_bench",
        "choices": [] if delta is None else [choice],
        "usage": usage,
        **more,
    }
    return _chunk(b"data: %s\n\n" % msgspec.json.encode(event))


HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n"
    b"Cache-Control: no-cache\r\nTransfer-Encoding: chunked\r\n\r\n"
)
START = HEAD + _event({"role": "assistant", "content": ""})
# As in an answer in English: of other lengths, one in sixteen with a line's end, which JSON escapes, one not
# all ASCII. A gateway may end an answer that says the same a hundred times (LiteLLM).
_WORDS = (
    *(" amber", " birch", ",", " cedar", "s", " of", " the", " naïve", " delta", " to"),
    *(".\n\n", "Elm", " fir", "'s", " -", " hawthorn"),
)
# OpenAI pads its deltas to about one length, against guesses at a text from the size of encrypted packets.
_PADDING = "rV7nQ2kXw9TbZ4"
DELTAS = tuple(
    _event({"content": f"{word}{MARK}"}, obfuscation=_PADDING[len(word) :] or _PADDING[0]) for word in _WORDS
)
FINISH = (
    _event({}, "stop")
    + _event(None, usage={"prompt_tokens": 10, "completion_tokens": 8, "total_tokens": 18})
    + _chunk(b"data: [DONE]\n\n")
)
END = b"0\r\n\r\n"
_MODELS = msgspec.json.encode(
    {"object": "list", "data": [{"id": MODEL, "object": "model", "created": 0, "owned_by": "bench"}]}
)
MODELS = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(_MODELS)
    + _MODELS
)


@functools.cache
def _burst(deltas: int) -> bytes:
    return START + b"".join(DELTAS[index % len(DELTAS)] for index in range(deltas)) + FINISH


class Counts:
    """What the mock has seen since it started, and the streams that it holds open."""

    def __init__(self) -> None:
        self.connections = 0
        self.calls = 0
        self.held: deque[Call] = deque()


class Call(asyncio.Protocol):
    """One connection, one call at a time."""

    def __init__(self, counts: Counts) -> None:
        self._loop = asyncio.get_running_loop()
        self._counts = counts
        self._buffer = b""
        self._sent = 0
        self._timer: asyncio.TimerHandle | None = None
        self.transport: asyncio.WriteTransport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.WriteTransport", transport)  # uvloop's is no subclass
        self._counts.connections += 1

    def connection_lost(self, _: Exception | None) -> None:
        if self._timer:
            self._timer.cancel()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, blank, body = self._buffer.partition(b"\r\n\r\n")
        length = _LENGTH.search(head)
        if not blank or len(body) < (int(length[1]) if length else 0):
            return
        self._buffer = b""
        plan = _PLAN.search(body)
        if plan is None:  # what some relays ask for when they start
            self.transport.write(MODELS)
            return
        self._counts.calls += 1
        self._play(plan[1], int(plan[2]), int(plan[3]) / 1_000_000)

    def _play(self, mode: bytes, deltas: int, seconds: float) -> None:
        if mode == b"burst":
            self.transport.write(_burst(deltas))
            self._end()
            return
        self.transport.write(START + DELTAS[0])
        self._sent = 1
        if mode == b"held":
            self._counts.held.append(self)
        else:
            self._pace(self._loop.time() + seconds, deltas - 1, seconds)

    def _pace(self, due: float, left: int, seconds: float) -> None:
        """Send one delta at `due` and plan the next: late ones do not shift those after them."""
        if left == 0:
            self._timer = self._loop.call_at(due, self._finish)
        else:
            self._timer = self._loop.call_at(due, self._step, due, left, seconds)

    def delta(self) -> None:
        """Send one more."""
        self.transport.write(DELTAS[self._sent % len(DELTAS)])
        self._sent += 1

    def _step(self, due: float, left: int, seconds: float) -> None:
        self.delta()
        self._pace(due + seconds, left - 1, seconds)

    def _finish(self) -> None:
        self.transport.write(FINISH)
        self._end()

    def _end(self) -> None:
        self._timer = self._loop.call_later(END_SECONDS, self.transport.write, END)


async def _feed(held: deque[Call]) -> None:
    """Give the held streams their deltas in turn."""
    loop = asyncio.get_running_loop()
    before, owed = loop.time(), 0.0
    while True:
        await asyncio.sleep(HELD_TICK_SECONDS)
        now = loop.time()
        owed = (owed + (now - before) * HELD_DELTAS_PER_SECOND) if held else 0.0
        before = now
        while owed >= 1 and held:
            call = held.popleft()
            if not call.transport.is_closing():
                call.delta()
                held.append(call)
                owed -= 1


async def _commands() -> Mapping[str, Command]:
    counts = Counts()
    listening = socket.create_server(("127.0.0.1", 0), backlog=BACKLOG)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Call(counts), sock=listening, backlog=BACKLOG)
    feeding = asyncio.create_task(_feed(counts.held))

    async def port(_: Mapping[str, Any]) -> int:
        assert server.is_serving()
        assert not feeding.done()
        return int(listening.getsockname()[1])

    async def count(_: Mapping[str, Any]) -> dict[str, int]:
        return {"connections": counts.connections, "calls": counts.calls}

    return {"port": port, "count": count}


if __name__ == "__main__":
    obey(_commands)
