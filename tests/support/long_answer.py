"""The answer that every client is given, and what it must have made of it."""

import json
from typing import Any

from tests.conftest import QUICK

# Forty pieces with what is easily torn or lost: characters of several bytes, white space, line ends.
PIECES = [f"{word}{number} " for number in range(8) for word in ("Grüße", "🙂", "\n\n", "\u2028", "data: ")]
HALF = len(PIECES) // 2
TEXT = "".join(PIECES)

# Of a connection's bytes, the response's head included; together they are less than the answer's first half.
FIRST_CUT_BYTES = 1203
SECOND_CUT_BYTES = 901

# A service that waits longer for a reader's return than clients wait before they come back.
PATIENT = {
    **QUICK,
    "CHAT_SSE_FIRST_TOKEN_TIMEOUT": "30",
    "CHAT_SSE_IDLE_TIMEOUT": "30",
    "CHAT_SSE_DISCONNECT_GRACE": "30",
}


def text_of(messages: list[dict[str, Any]]) -> str:
    """Check that messages are one whole answer, each event once and in order, and join its deltas."""
    events = [json.loads(message["data"]) for message in messages]
    stream_id = events[0]["id"]
    assert [message["id"] for message in messages] == [f"{stream_id}.{seq}" for seq in range(len(messages))]
    assert [event["type"] for event in events] == ["start", *["delta"] * (len(events) - 2), "done"]
    return "".join(event["content"] for event in events[1:-1])
