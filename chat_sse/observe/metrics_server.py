"""Serves the metrics on a port of their own: this process's, or those of all workers.

Part of the extra `metrics`. Workers write their metrics to files that they map into memory, which is the
library's "multiprocess mode"; the supervisor adds them up when it is asked.
"""

import asyncio
import logging
import os
import socket
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, nullcontext
from socketserver import ThreadingTCPServer
from threading import Thread

from prometheus_client import CollectorRegistry, MetricsHandler
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

from chat_sse.observe.metrics import Metrics

log = logging.getLogger(__name__)

# The library's: it decides when it is imported whether metrics are in memory or in files.
FOLDER_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
# Of a client that sends or takes nothing.
TIMEOUT_SECONDS = 10.0


class _Server(ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True


@asynccontextmanager
async def measuring(metrics: Metrics, host: str, port: int, parts: Sequence[object]) -> AsyncIterator[None]:
    """Watch the parts until the exit, and serve the metrics unless a supervisor does. Raises OSError."""
    is_worker = FOLDER_VARIABLE in os.environ
    with nullcontext() if is_worker else serve_metrics(host, port, metrics.registry):
        watch = asyncio.create_task(metrics.watch(parts), name="metrics")
        try:
            yield
        finally:
            watch.cancel()
            await asyncio.wait([watch])


@contextmanager
def serve_metrics(host: str, port: int, registry: CollectorRegistry) -> Iterator[None]:
    """Serve a registry from a thread, until the exit. Raises OSError where the port cannot be had."""
    handler = type("Handler", (MetricsHandler.factory(registry),), {"timeout": TIMEOUT_SECONDS})
    _Server.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        server = _Server((host, port), handler)
    except OSError as exc:
        log.error("metrics.unavailable", extra={"fields": {"port": port, "reason": exc.strerror}})  # noqa: TRY400
        raise
    with server:
        address = f"[{host}]" if ":" in host else host
        url = f"http://{address}:{server.socket.getsockname()[1]}/metrics"
        log.info("metrics.served", extra={"fields": {"url": url}})
        Thread(target=server.serve_forever, name="metrics", daemon=True).start()
        try:
            yield
        finally:
            server.shutdown()


@contextmanager
def serve_workers_metrics(host: str, port: int) -> Iterator[None]:
    """Serve what the workers that start inside count together. Raises OSError."""
    with tempfile.TemporaryDirectory(prefix="chat-sse-metrics-") as folder:
        os.environ[FOLDER_VARIABLE] = folder
        registry = CollectorRegistry()
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        with serve_metrics(host, port, registry):
            yield


def forget_worker(pid: int) -> None:
    """Drop the states of a worker that has died; what it has counted stays."""
    mark_process_dead(pid)  # type: ignore[no-untyped-call]
