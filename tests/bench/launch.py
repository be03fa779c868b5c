"""Starting servers on loopback, and ending them by their pids."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import msgspec

from tests.bench import proc
from tests.bench.environments import Unavailable
from tests.bench.load import Target
from tests.bench.mock import MODEL

START_SECONDS = 120.0  # LiteLLM imports for half a minute on a slow machine
STOP_SECONDS = 5.0

OPENAI_QUESTION = msgspec.json.encode(
    {
        "model": MODEL,
        "messages": [{"role": "user", "content": "PLAN"}],
        "stream": True,
        "stream_options": {"include_usage": True},
    }
).decode()


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Where a server is to run."""

    port: int
    upstream: str
    """The mock's address, without a path."""
    folder: Path


class Launch(msgspec.Struct, frozen=True, kw_only=True):
    """How a server runs at its place."""

    command: Sequence[str]
    target: Target
    environ: Mapping[str, str] = msgspec.field(default_factory=dict)
    companion: tuple[Sequence[str], int] | None = None
    """A program that it needs, with its port: started before it, and measured with it."""


class Server(msgspec.Struct, frozen=True, kw_only=True):
    """A server to measure. `prepare` raises Unavailable."""

    name: str
    prepare: Callable[[Place], Launch] | None
    """None: the clients ask the mock itself, which is the ground that the times stand on."""


class Running(msgspec.Struct, frozen=True, kw_only=True):
    """A server under way."""

    target: Target
    roots: tuple[int, ...] = ()

    def pids(self) -> list[int]:
        """List its processes."""
        return [pid for root in self.roots for pid in proc.family(root)]


DIRECT = Server(name="direct", prepare=None)


@contextmanager
def run(server: Server, upstream_port: int, folder: Path) -> Iterator[Running]:
    """Run a server until the exit. Raises Unavailable when it does not start."""
    if server.prepare is None:
        yield Running(target=openai_target(upstream_port))
        return
    upstream = f"http://127.0.0.1:{upstream_port}"
    launch = server.prepare(Place(port=free_port(), upstream=upstream, folder=folder))
    with ExitStack() as stack:
        roots = []
        if launch.companion:
            command, port = launch.companion
            roots.append(stack.enter_context(_process(command, {}, folder / "companion.log", port)))
        log = folder / f"{server.name}.log"
        main = stack.enter_context(_process(launch.command, launch.environ, log, launch.target.port))
        yield Running(target=launch.target, roots=(main, *roots))


@contextmanager
def _process(command: Sequence[str], environ: Mapping[str, str], log: Path, port: int) -> Iterator[int]:
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=log.parent,  # where no .env lies
            env={"PATH": os.environ["PATH"], "HOME": str(log.parent), **environ},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    try:
        _await_listening(process, port, log)
        yield process.pid
    finally:
        _stop(process)


def _await_listening(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            said = log.read_text(errors="replace").strip().splitlines() or [f"exit code {process.returncode}"]
            raise Unavailable(f"not supported: {said[-1]}")
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.02)
    raise Unavailable(f"did not listen within {START_SECONDS:g} s")


def _stop(process: subprocess.Popen[bytes]) -> None:
    members = proc.family(process.pid)
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        for pid in members:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait(STOP_SECONDS)


def free_port() -> int:
    """Find a loopback port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def openai_target(port: int, key: str = "bench") -> Target:
    """Describe a server that speaks OpenAI's chat completions to its clients as well."""
    return Target(
        port=port,
        path="/v1/chat/completions",
        headers={"Authorization": f"Bearer {key}"},
        question=OPENAI_QUESTION,
        ending="[DONE]",
    )
