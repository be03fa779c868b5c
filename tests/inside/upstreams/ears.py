"""A listener that keeps what it hears."""

from collections.abc import Sequence

import msgspec

from chat_sse.events import Delta
from chat_sse.upstreams.base import UpstreamEvent


class Ear:
    """Counts what is said of an answer and keeps its events."""

    def __init__(self) -> None:
        self.accepted = self.active = self.short = 0
        self.models: list[str | None] = []
        self.events: list[UpstreamEvent] = []

    def on_model(self, model: str | None) -> None:
        """Keep it."""
        self.models.append(model)

    def on_accepted(self) -> None:
        """Count."""
        self.accepted += 1

    def on_events(self, events: Sequence[UpstreamEvent]) -> None:
        """Keep them."""
        assert events
        self.events += events

    def on_activity(self) -> None:
        """Count."""
        self.active += 1

    def on_entry(self, entry: bytes) -> None:
        """Keep it, and count it among those that came the short way."""
        self.short += 1
        self.events.append(msgspec.json.decode(entry, type=Delta))
