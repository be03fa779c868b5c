"""The scripted upstream: a real server that speaks OpenAI's streaming chat completions, on cue.

It listens on 127.0.0.1 from a thread with an event loop of its own, so that synchronous tests,
asynchronous tests and servers in other processes can all talk to it. A test says what each call gets,
step by step, down to where the bytes are split and how the connection dies; the upstream counts what the
calls would have cost and tells when a client left.

    gate = threading.Event()
    with ScriptedUpstream() as upstream:
        upstream.answer(Say("Hel"), Hold(gate), Say("lo"), Finish("stop"))
        ...
        [call] = upstream.wait_for_calls(1)
        assert call.wait_gone(timeout=5)
        assert upstream.paid_calls == 1

The waits block. In an asynchronous test say `await asyncio.to_thread(call.wait_gone)`, because the loop
they would block is the one that the code under test runs on.

By hand: `python -m tests.support.upstream --port 9000 --delay 0.2`.

The wire is HTTP/1.1 (RFC 9112), framed by h11, one chunk of the chunked body for each event. The JSON is
that of https://platform.openai.com/docs/api-reference/chat-streaming.
"""

from tests.support.upstream.answer import Answer
from tests.support.upstream.bodies import ERRORS, error_body, model_list
from tests.support.upstream.calls import Call, Ledger
from tests.support.upstream.connection import Connection
from tests.support.upstream.constants import (
    BACKLOG,
    DEFAULT_PATIENCE_SECONDS,
    DEFAULT_USAGE,
    EVENT_STREAM,
    GATE_POLL_SECONDS,
    IDLE_SECONDS,
    STOP_SECONDS,
)
from tests.support.upstream.server import Door, Gates, ScriptedUpstream
from tests.support.upstream.steps import (
    DEFAULT_ANSWER,
    Accept,
    Chunk,
    Cut,
    Ending,
    Eof,
    Finish,
    Gate,
    Hold,
    Pause,
    Raw,
    Reason,
    Refuse,
    Reset,
    Say,
    Silence,
    Split,
    Step,
    Wire,
)

__all__ = [
    "BACKLOG",
    "DEFAULT_ANSWER",
    "DEFAULT_PATIENCE_SECONDS",
    "DEFAULT_USAGE",
    "ERRORS",
    "EVENT_STREAM",
    "GATE_POLL_SECONDS",
    "IDLE_SECONDS",
    "STOP_SECONDS",
    "Accept",
    "Answer",
    "Call",
    "Chunk",
    "Connection",
    "Cut",
    "Door",
    "Ending",
    "Eof",
    "Finish",
    "Gate",
    "Gates",
    "Hold",
    "Ledger",
    "Pause",
    "Raw",
    "Reason",
    "Refuse",
    "Reset",
    "Say",
    "ScriptedUpstream",
    "Silence",
    "Split",
    "Step",
    "Wire",
    "error_body",
    "model_list",
]
