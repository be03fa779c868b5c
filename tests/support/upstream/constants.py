"""Times and defaults of the scripted upstream."""

from typing import Any

DEFAULT_PATIENCE_SECONDS = 30.0  # half of the suite's limit for one test, so the fault tells its own name
IDLE_SECONDS = 120.0  # longer than the clients' pools keep a connection: the server never closes it first
STOP_SECONDS = 5.0
GATE_POLL_SECONDS = 0.005
BACKLOG = 4096  # tests open thousands of streams at once

EVENT_STREAM = "text/event-stream; charset=utf-8"
DEFAULT_USAGE: dict[str, Any] = {
    "prompt_tokens": 10,
    "completion_tokens": 8,
    "total_tokens": 18,
    "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
    "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0},
}


# The steps of a script.
