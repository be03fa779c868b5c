"""The processes that serve: uvicorn's server in one process or in several, with a graceful end.

Several are started, watched and replaced by uvicorn's supervisor. It is changed in three ways: workers use
this service's own server and logging; a signal means the same as for a single process; and on Linux each
worker listens on a socket of its own, over which the kernel distributes the connections. With a shared
socket, the first worker to wake accepts all connections that arrived together.
"""

import asyncio
import gc
import logging
import os
import signal
import socket
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from types import FrameType

import click
import uvicorn
from uvicorn.config import STARTUP_FAILURE
from uvicorn.supervisors import Multiprocess
from uvicorn.supervisors.multiprocess import Process

from chat_sse.api.service import Service
from chat_sse.observe.logging import configure_logging, logs_json
from chat_sse.server.own_redis import OwnRedis
from chat_sse.server.sockets import beside

log = logging.getLogger(__name__)

START_SECONDS = 60.0  # an embedded model is loaded by each worker
JOIN_POLL_SECONDS = 0.05
# Allocations between two collections of the youngest generation; Python's default is 700.
COLLECT_AFTER = 50_000


class DrainingServer(uvicorn.Server):
    """uvicorn's server, but after a signal running answers may finish before it shuts down.

    uvicorn closes its listening sockets at once. Here they stay open during the grace, so that a client can
    resume or stop its answer, and `/readyz` can report the drain. A second signal ends the grace. The exit
    code after a signal is 0.
    """

    greeting: str | None = None
    _drain: asyncio.Task[None] | None = None
    asked_to_exit = False

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002 - uvicorn's signature
        """Request the drain, or an immediate exit. uvicorn's handler would raise the signal again."""
        if self.asked_to_exit:
            self.should_exit = True
            self.force_exit = sig == signal.SIGINT
        self.asked_to_exit = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and print the greeting when requests are accepted."""
        await super().startup(sockets)
        _tune_gc()
        if self.started and self.greeting:
            greet(self.greeting)

    async def on_tick(self, counter: int) -> bool:
        """Start the drain when it is due, and exit after it. uvicorn calls this ten times a second."""
        if self.asked_to_exit and self._drain is None:
            service: Service = self.lifespan.state["service"]
            drain = service.relay.drain(service.shutdown_grace_seconds, service.shutdown_delay_seconds)
            self._drain = asyncio.create_task(drain)
        if self._drain is not None and self._drain.done():
            self._drain.result()
            self.should_exit = True
        return await super().on_tick(counter)


def greet(greeting: str) -> None:
    """Print lines that say what has started; in a log of JSON they are one record."""
    if logs_json():
        log.info("service.started", extra={"fields": {"about": greeting.splitlines()}})
    else:
        click.echo(greeting, err=True)


def _tune_gc() -> None:
    """Run the garbage collector less often, and never on objects older than the first question.

    Streams contain no cycles and are freed without it. At its defaults it took a tenth of a delta's time.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(COLLECT_AFTER, *gc.get_threshold()[1:])


class WorkerServer(DrainingServer):
    """The server in a worker process, which only its supervisor ends."""

    def __init__(self, config: uvicorn.Config, supervisor: int) -> None:
        """`supervisor`: its process id."""
        super().__init__(config)
        self._supervisor = supervisor

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Ignore SIGINT: Ctrl-C reaches the whole group, and the supervisor then sends SIGTERM."""
        if sig != signal.SIGINT:
            super().handle_exit(sig, frame)

    async def on_tick(self, counter: int) -> bool:
        """Also drain and exit when the supervisor has died: nothing else would end this process."""
        if os.getppid() != self._supervisor and not self.asked_to_exit:
            self.handle_exit(signal.SIGTERM, None)
        return await super().on_tick(counter)


class Worker(Process):
    """A worker process, as its supervisor sees it. The object is pickled into the new process."""

    def __init__(
        self,
        config: uvicorn.Config,
        listening: socket.socket,
        log_as: tuple[str, str],
        lifeline: Connection | None,
    ) -> None:
        """`log_as`: level and format. `lifeline`: held open, for the service's own Redis."""
        super().__init__(config, [listening])
        self._log_as = log_as
        self._lifeline = lifeline
        self._supervisor = os.getpid()  # known here: it may die before the worker could ask for it

    def target(self, sockets: list[socket.socket] | None = None) -> None:
        """Run the server; called in the new process."""
        configure_logging(*self._log_as)
        super().target(sockets)

    @property
    def server(self) -> uvicorn.Server:
        """Return the worker's server."""
        if self._server is None:
            self._server = WorkerServer(self.config, self._supervisor)
        return self._server


class Supervisor(Multiprocess):
    """The parent of the workers. A signal drains all of them, a second one ends them at once.

    `listening` is bound, which reserves the address; the workers listen.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        listening: socket.socket,
        greeting: str,
        log_as: tuple[str, str],
        own_redis: OwnRedis | None,
        *,
        on_death: Callable[[int], object] | None = None,
    ) -> None:
        """`own_redis`: what the workers share, where that is the service's own.

        `on_death`: called with the id of a worker that has died.
        """
        super().__init__(config, [listening])
        self.started = False
        self._own_redis = own_redis
        self._on_death = on_death
        self._listening, self._greeting, self._log_as = listening, greeting, log_as

    def init_processes(self) -> None:
        """Start the workers, and print the greeting when all of them accept requests."""
        self.processes = [self._start() for _ in range(self.processes_num)]
        if all(process.wait_until_ready(START_SECONDS) for process in self.processes):
            self.started = True
            greet(self._greeting)
        else:
            self.should_exit.set()

    def keep_subprocess_alive(self) -> None:
        """Replace a worker that died or hangs. One that fails at its start ends the service."""
        if self._own_redis is not None and not self.should_exit.is_set():
            self._own_redis.keep_alive()
        for index, process in enumerate(self.processes):
            if self.should_exit.is_set() or process.is_alive(self.config.timeout_worker_healthcheck):
                continue
            process.kill()
            process.join()
            if self._on_death is not None and process.pid is not None:
                self._on_death(process.pid)
            log.error("worker.died", extra={"fields": {"pid": process.pid, "exit_code": process.exitcode}})
            if process.exitcode == STARTUP_FAILURE:
                self.started = False
                self.should_exit.set()
            else:
                self.processes[index] = self._start()

    def join_all(self) -> None:
        """Wait for the workers to drain. Forwards a second signal."""
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
        # Open in the worker only, so that it closes when the worker dies and others get its connections.
        with beside(self._listening) as listening:
            lifeline = self._own_redis.lifeline if self._own_redis else None
            worker = Worker(self.config, listening, self._log_as, lifeline)
            worker.start()
        return worker
