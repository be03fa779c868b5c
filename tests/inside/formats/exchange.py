"""One client that reads a log in a format, for the tests of responses."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Any

import msgspec
from starlette.background import BackgroundTask
from starlette.types import Message

from chat_sse.errors import ChatError, UpstreamTimeout
from chat_sse.events import Delta, Done, Event, Start, Subscriber, failure
from chat_sse.formats import FORMATS
from chat_sse.formats.base import Delivery, Format, Reading
from chat_sse.stores.base import LogSpec
from chat_sse.stores.memory import MemoryLog

DELIVERY = Delivery(heartbeat_seconds=15, send_timeout_seconds=30, max_age_seconds=1000)
KINDS: dict[str, Format] = {kind.name: kind(DELIVERY) for kind in FORMATS}
START, HI, END = Start(id="s", model="m"), Delta("Hi"), Done(finish_reason="stop")
FAILED = failure(UpstreamTimeout("late"), "r")


class Exchange:
    """One client that reads a log in a format, through a server that may offer a body's writer."""

    def __init__(
        self, wire: str | Format, *, after: int = -1, writer: bool = False, error: ChatError | None = None
    ) -> None:
        fmt = KINDS[wire] if isinstance(wire, str) else wire
        self.log = MemoryLog(LogSpec(stream_id="s"), lambda _: None)
        self.messages: list[Message] = []
        self.pushed: list[bytes] = []
        self.loop = asyncio.get_running_loop()
        self.leaves, self.accepts = asyncio.Event(), asyncio.Event()
        self.accepts.set()
        self.ran: list[str] = []
        self.closed = 0
        self._after, self._error = -1 if fmt.replays else after, error
        # What a writer has.
        self.is_ready, self.is_gone, self.pushed_at = True, False, 0.0
        self.on_leave: Callable[[], object] | None = None
        self.state: dict[str, Any] = {"body_writer": self} if writer else {}
        reading = Reading(
            stream_id="s", after=after, follow=self._follow, headers={"X-Mine": "1"}, request_id="r"
        )
        self.response = fmt.respond(reading)
        self.response.background = BackgroundTask(self._background)

    async def _follow(self, subscriber: Subscriber | None) -> AsyncGenerator[Sequence[bytes], None]:
        after = self._after
        try:
            while entries := await self.log.read(after, subscriber):
                after = self.log.length - 1
                yield entries
                if self._error is not None:
                    raise self._error
        finally:
            self.closed += 1

    def review(self) -> None:
        """Nothing changes."""

    def backlog(self) -> int:
        """Nothing waits."""
        return 0

    def push(self, data: bytes) -> None:
        """Keep it."""
        self.pushed.append(data)
        self.pushed_at = self.loop.time()

    async def _background(self) -> None:
        self.ran.append("ran")

    async def _receive(self) -> Message:
        await self.leaves.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        await self.accepts.wait()
        self.messages.append(message)

    async def run(self, method: str = "GET") -> None:
        """Send the response."""
        scope = {"type": "http", "method": method, "state": self.state}
        await self.response(scope, self._receive, self._send)

    def start(self) -> asyncio.Task[None]:
        """Begin to send it."""
        return asyncio.create_task(self.run())

    @property
    def body(self) -> bytes:
        """Return what was sent, and not pushed."""
        return b"".join(message.get("body", b"") for message in self.messages[1:])

    @property
    def is_whole(self) -> bool:
        """Return whether the body has its end."""
        return bool(self.messages) and not self.messages[-1].get("more_body", True)

    def head(self) -> tuple[int, dict[str, str]]:
        """Return the status and the header fields."""
        head = self.messages[0]
        return head["status"], {name.decode(): value.decode() for name, value in head["headers"]}


async def sent(wire: str | Format, *events: Event, **options: Any) -> Exchange:
    """Return the exchange in which a finished log was read."""
    exchange = Exchange(wire, **options)
    exchange.log.append(events)
    await exchange.run()
    return exchange


def block(seq: int, event: Event) -> bytes:
    return b"data: %s\nid: s.%d\n\n" % (msgspec.json.encode(event), seq)
