"""A site to break: the scripted upstream, four that cannot be reached, perhaps a Redis, and the service."""

from __future__ import annotations

import ssl
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import msgspec
import trustme

from chat_sse.events import new_stream_id
from tests.support import visits
from tests.support.failover import FailingOver
from tests.support.faults import CLOSED, SLOW_NAME, UNKNOWN, UNRESOLVED, UNTRUSTED, WHOLE, Fault
from tests.support.invariants import Standing, check_question
from tests.support.names import can_resolve, resolving
from tests.support.ports import free_port
from tests.support.redis_server import RedisServer
from tests.support.service import RunningService, serve
from tests.support.upstream import ScriptedUpstream

# Deadlines that a site meets whose machine runs the rest of the suite as well.
ENV = {
    "OPENAI_API_KEY": "sk-test-canary-0123456789",
    "CHAT_SSE_ACCEPT_WAIT": "0.5",
    "CHAT_SSE_FIRST_TOKEN_TIMEOUT": "4",
    "CHAT_SSE_IDLE_TIMEOUT": "3",
    "CHAT_SSE_DISCONNECT_GRACE": "5",
    "CHAT_SSE_HEARTBEAT": "0.3",
    "CHAT_SSE_SHUTDOWN_GRACE": "10",
    "CHAT_SSE_METRICS_PORT": "0",
    "CHAT_SSE_MAX_BODY_BYTES": "1048576",
}

# Longer than CHAT_SSE_ACCEPT_WAIT.
NAMES = {"slow.test": 0.7, "hangs.test": None}


class Layout(msgspec.Struct, frozen=True):
    """Where the log is kept, and by how many processes."""

    redis: bool = False
    workers: int = 1
    replicated: bool = False

    @property
    def name(self) -> str:
        return f"{'redis' if self.redis else 'memory'} x {self.workers}"


LAYOUTS = (Layout(), Layout(redis=True), Layout(redis=True, workers=2))


class Site:
    """A running site, and the questions that it is asked."""

    def __init__(
        self, service: RunningService, upstream: ScriptedUpstream, server: RedisServer | None, ports: set[int]
    ) -> None:
        self.service, self.upstream, self.redis = service, upstream, server
        self.port = int(service.url.rpartition(":")[2])
        self.clock: Any = None
        self._ports = ports

    def question(self, fault: Fault, fmt: str = "sse") -> visits.Question:
        """Return a new question, which upstream will answer so."""
        text = f"{fault.name} {new_stream_id()}"
        if fault.model in (None, SLOW_NAME):
            self.upstream.answer_to(text, *fault.steps)
        return visits.Question(port=self.port, text=text, fault=fault, format=fmt)

    def paid(self, question: visits.Question) -> int:
        return self.upstream.paid_for(question.text)

    def standing(self) -> Standing:
        """Return what it holds while nobody asks, once it has answered a few."""
        for _ in range(8):
            check_question(visits.patiently(question := self.question(WHOLE)), self.paid(question))
        return Standing(self.service, self.redis, self._ports)


@contextmanager
def running_site(layout: Layout, environ: Mapping[str, str] | None = None, **settings: str) -> Iterator[Site]:
    """Run a site, with settings in lower case and without their prefix, and more of the environment."""
    with ExitStack() as stack:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        trustme.CA().issue_cert("localhost").configure_cert(context)
        upstream = stack.enter_context(ScriptedUpstream())
        untrusted = stack.enter_context(ScriptedUpstream(tls=context))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        server = None
        if layout.redis:
            server = stack.enter_context(FailingOver(folder) if layout.replicated else RedisServer())
        closed = free_port()
        _, before = stack.enter_context(resolving(NAMES, folder)) if can_resolve() else (None, ())
        models = folder / "models.toml"
        urls = {
            "gpt-4o-mini": upstream.base_url,
            CLOSED: f"http://127.0.0.1:{closed}/v1",
            UNTRUSTED: untrusted.base_url,
            UNKNOWN: "http://nowhere.invalid/v1",
            UNRESOLVED: "http://hangs.test/v1",
            SLOW_NAME: f"http://slow.test:{upstream.port}/v1",
        }
        models.write_text("".join(f'[{name}]\nbase_url = "{url}"\n' for name, url in urls.items()))
        env = {**ENV, "CHAT_SSE_MODELS_FILE": str(models), "CHAT_SSE_WORKERS": str(layout.workers)}
        env |= {"CHAT_SSE_REDIS_URL": server.url} if server else {}
        env |= {f"CHAT_SSE_{name.upper()}": value for name, value in settings.items()}
        service = stack.enter_context(serve({**env, **(environ or {})}, before=before))
        yield Site(service, upstream, server, {upstream.port, untrusted.port, closed})
        assert service.terminate() == 0, service.log()[-2000:]
