"""One answer as it is given, and the bodies that every server of its kind has."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import h11
import msgspec

from tests.support.upstream.calls import Call
from tests.support.upstream.constants import EVENT_STREAM
from tests.support.upstream.steps import Split

if TYPE_CHECKING:
    from tests.support.upstream.connection import Connection


class Answer:
    """One call's answer on its way out: what the steps are played on."""

    def __init__(self, connection: Connection, call: Call, patience_seconds: float) -> None:
        self.connection = connection
        self.call = call
        self.patience_seconds = patience_seconds
        self.split: Split | None = None
        self._created = int(time.time())
        self._role_told = False

    async def head(self, status: int, content_type: str, headers: Mapping[str, str]) -> None:
        """Send the status and these headers, with what OpenAI adds and no client of ours may see."""
        own = {
            "content-type": content_type,
            "x-request-id": f"req_{self.call.id}",
            "openai-organization": "org-scripted",
        }
        fields = {**own, **{name.lower(): value for name, value in headers.items()}}
        await self.connection.send(h11.Response(status_code=status, headers=list(fields.items())), self.split)

    async def body(self, data: bytes) -> None:
        """Send bytes of the body, after the head."""
        await self._headed()
        size = self.split.size if self.split is not None else len(data) or 1
        for start in range(0, len(data), size):
            await self.connection.send(h11.Data(data=data[start : start + size]), self.split)

    async def event(self, data: Any) -> None:
        """Send one event with this JSON."""
        await self.body(b"data: " + msgspec.json.encode(data) + b"\n\n")

    async def delta(self, delta: dict[str, Any], finish_reason: str | None = None) -> None:
        """Send one chunk of the answer, after the one that tells the role."""
        if not self._role_told:
            self._role_told = True
            await self.event(self._chunk({"role": "assistant", "content": "", "refusal": None}, None))
        await self.event(self._chunk(delta, finish_reason))

    async def usage(self, usage: Mapping[str, Any]) -> None:
        """Send the chunk that carries the usage and no choices."""
        await self.event({**self._envelope(), "choices": [], "usage": usage})

    async def end(self) -> None:
        """End the body."""
        await self._headed()
        await self.connection.send(h11.EndOfMessage(), self.split)

    async def whole(self, status: int, body: Any, headers: Mapping[str, str]) -> None:
        """Send a response of known length: bytes as HTML, as a gateway in between does, all else as JSON."""
        plain = isinstance(body, bytes)
        content = body if plain else msgspec.json.encode(body)
        content_type = "text/html" if plain else "application/json"
        await self.head(status, content_type, {"content-length": str(len(content)), **headers})
        await self.body(content)
        await self.end()

    async def _headed(self) -> None:
        if self.connection.http.our_state is h11.SEND_RESPONSE:
            await self.head(200, EVENT_STREAM, {})

    def _envelope(self) -> dict[str, Any]:
        return {
            "id": self.call.id,
            "object": "chat.completion.chunk",
            "created": self._created,
            "model": self.call.body.get("model"),
            "service_tier": "default",
            "system_fingerprint": "fp_scripted",
        }

    def _chunk(self, delta: dict[str, Any], finish_reason: str | None) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        chunk = {**self._envelope(), "choices": [choice]}
        return {**chunk, "usage": None} if self.call.wants_usage else chunk
