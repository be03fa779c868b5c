"""The processes that serve: uvicorn, with an end that lets answers finish, once or several times.

With several, uvicorn's supervisor starts, watches and replaces them. What differs: each serves with this
service's own server and logging, a signal means what it means to a single process, and on Linux each listens
on a socket of its own, over which the kernel spreads the connections. From a shared one, whoever wakes first
takes all that have come together, and one process does the work of all.
"""

import asyncio
import gc
import logging
import os
import signal
import socket
import sys
import time
from types import FrameType

import click
import uvicorn
from uvicorn.config import STARTUP_FAILURE
from uvicorn.supervisors import Multiprocess
from uvicorn.supervisors.multiprocess import Process

from chat_sse.api.routes import Service
from chat_sse.observe.logging import configure_logging

log = logging.getLogger(__name__)

START_SECONDS = 60.0  # an embedded model is loaded by each worker
JOIN_POLL_SECONDS = 0.05
# Objects that can be part of a cycle, more than there were at the last collection; Python's default is 700.
COLLECT_AFTER = 50_000


class DrainingServer(uvicorn.Server):
    """uvicorn, but a signal first lets the running answers finish.

    uvicorn itself closes its listening sockets at once. Here they stay open during the grace, so that a
    broken reader can come back to its answer, a stop gets through, and `/readyz` can say what goes on. A
    second signal skips the wait. The exit code after a signal is 0.
    """

    greeting: str | None = None
    _drain: asyncio.Task[None] | None = None
    asked_to_exit = False

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002 - uvicorn's signature
        """Take a signal. Not handed to uvicorn: it would raise the signal once more after its shutdown."""
        if self.asked_to_exit:
            self.should_exit = True
            self.force_exit = sig == signal.SIGINT
        self.asked_to_exit = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and say so once questions are taken."""
        await super().startup(sockets)
        _tune_gc()
        if self.started and self.greeting:
            click.echo(self.greeting, err=True)

    async def on_tick(self, counter: int) -> bool:
        """Ten times a second: start the drain, and exit when it is over."""
        if self.asked_to_exit and self._drain is None:
            service: Service = self.lifespan.state["service"]
            self._drain = asyncio.create_task(service.relay.drain(service.shutdown_grace_seconds))
        if self._drain is not None and self._drain.done():
            self._drain.result()
            self.should_exit = True
        return await super().on_tick(counter)


def _tune_gc() -> None:
    """Collect cycles less often, and never look at what was there before the first question.

    What a stream is made of is freed without the collector, which at its defaults took a tenth of a delta's
    time to find that out.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(COLLECT_AFTER, *gc.get_threshold()[1:])


class WorkerServer(DrainingServer):
    """The server within a worker: only its supervisor ends it."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._supervisor = os.getppid()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Take a signal. A terminal sends Ctrl-C to the whole group: the supervisor's SIGTERM follows it."""
        if sig != signal.SIGINT:
            super().handle_exit(sig, frame)

    async def on_tick(self, counter: int) -> bool:
        """Leave also when the supervisor is gone, however it went: nobody else would ever end this one."""
        if os.getppid() != self._supervisor and not self.asked_to_exit:
            self.handle_exit(signal.SIGTERM, None)
        return await super().on_tick(counter)


class Worker(Process):
    """One worker. This object is pickled into the process that it starts."""

    def __init__(self, config: uvicorn.Config, listening: socket.socket, log_as: tuple[str, str]) -> None:
        """`log_as`: level and format."""
        super().__init__(config, [listening])
        self._log_as = log_as

    def target(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve; this runs in the new process."""
        configure_logging(*self._log_as)
        super().target(sockets)

    @property
    def server(self) -> uvicorn.Server:
        """Give this process's server."""
        if self._server is None:
            self._server = WorkerServer(self.config)
        return self._server


class Supervisor(Multiprocess):
    """The parent of the workers. A signal drains them all, a second one ends them at once.

    `listening` is bound, so that nobody else takes the address, and listens only where it must be shared.
    """

    def __init__(
        self, config: uvicorn.Config, listening: socket.socket, greeting: str, log_as: tuple[str, str]
    ) -> None:
        super().__init__(config, [listening])
        self.started = False
        self._listening, self._greeting, self._log_as = listening, greeting, log_as

    def init_processes(self) -> None:
        """Start the workers, and say so once all of them take questions."""
        self.processes = [self._start() for _ in range(self.processes_num)]
        if all(process.wait_until_ready(START_SECONDS) for process in self.processes):
            self.started = True
            click.echo(self._greeting, err=True)
        else:
            self.should_exit.set()

    def keep_subprocess_alive(self) -> None:
        """Replace a worker that died or hangs. One that cannot even start ends the service."""
        for index, process in enumerate(self.processes):
            if self.should_exit.is_set() or process.is_alive(self.config.timeout_worker_healthcheck):
                continue
            process.kill()
            process.join()
            log.error("worker.died", extra={"fields": {"pid": process.pid, "exit_code": process.exitcode}})
            if process.exitcode == STARTUP_FAILURE:
                self.started = False
                self.should_exit.set()
            else:
                self.processes[index] = self._start()

    def join_all(self) -> None:
        """Wait for the workers' drain; pass a second signal on."""
        while any(process.process.is_alive() for process in self.processes):
            if self.signal_queue:
                self.signal_queue.clear()
                for process in self.processes:
                    process.process.terminate()
            time.sleep(JOIN_POLL_SECONDS)
        super().join_all()

    def handle_hup(self) -> None:
        """Ignore it: settings are read once, and a new version is a new service."""

    def handle_ttin(self) -> None:
        """Ignore it: the number of workers is a setting."""

    def handle_ttou(self) -> None:
        """Ignore it: the number of workers is a setting."""

    def _start(self) -> Worker:
        # Open nowhere but in the worker, it ends with it: then new connections come to the others.
        with beside(self._listening) as listening:
            worker = Worker(self.config, listening, self._log_as)
            worker.start()
        return worker


def beside(bound: socket.socket) -> socket.socket:
    """Open another socket at the same address, or on systems that would not share the work, the same one."""
    if sys.platform != "linux":
        return bound.dup()
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    another = socket.socket(bound.family, bound.type)
    another.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    another.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    milliseconds = bound.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)
    another.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, milliseconds)
    another.bind(bound.getsockname())
    return another


def bound_unread_bytes(listening: socket.socket, seconds: float) -> None:
    """Have the kernel give up a client that takes no bytes for so long; accepted sockets inherit it.

    asyncio flushes before it closes, and so would wait for ever for a client that does not read.
    """
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(seconds * 1000))
