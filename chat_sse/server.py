"""`chat-sse` serves: the process, its sockets and its signals."""

import asyncio
import os
import resource
import signal
import socket
import sys
from types import FrameType

import click
import uvicorn

from chat_sse import __version__
from chat_sse.app import allowed_models
from chat_sse.endpoints import Service
from chat_sse.observe.logs import configure_logging
from chat_sse.settings import Settings, SettingsError, load_settings, variable
from chat_sse.upstreams.local import LocalModelUnavailable, find_local_model, model_name
from chat_sse.upstreams.openai import public_url

LOOPBACK = ("127.0.0.1", "localhost", "::1")

# Beside the running answers' grace: a socket's last bytes, the pumps' clean-up, the upstream's connections.
EXIT_SECONDS = 10
BACKLOG = 4096
# Standard streams, the loop's own, the listening socket, a file that is being served: some 15, and room.
OWN_FILES = 40


class DrainingServer(uvicorn.Server):
    """uvicorn, but a signal first lets the running answers finish.

    uvicorn itself closes its listening sockets at once. Here they stay open during the grace, so that a
    broken reader can come back to its answer, a stop gets through, and `/readyz` can say what goes on. A
    second signal skips the wait. The exit code after a signal is 0.
    """

    greeting: str | None = None
    _drain: asyncio.Task[None] | None = None
    _asked_to_exit = False

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002 - uvicorn's signature
        """Take a signal. Not handed to uvicorn: it would raise the signal once more after its shutdown."""
        if self._asked_to_exit:
            self.should_exit = True
            self.force_exit = sig == signal.SIGINT
        self._asked_to_exit = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and say so once questions are taken."""
        await super().startup(sockets)
        if self.started and self.greeting:
            click.echo(self.greeting, err=True)

    async def on_tick(self, counter: int) -> bool:
        """Ten times a second: start the drain, and exit when it is over."""
        if self._asked_to_exit and self._drain is None:
            service: Service = self.lifespan.state["service"]
            self._drain = asyncio.create_task(service.relay.drain(service.shutdown_grace_seconds))
        if self._drain is not None and self._drain.done():
            self._drain.result()
            self.should_exit = True
        return await super().on_tick(counter)


def serve(host: str | None, port: int | None, workers: int | None) -> None:
    """Serve until a signal, with these in place of what the settings say. Exits; 2 when they are wrong."""
    given = {"host": host, "port": port, "workers": workers}
    overrides = {variable(name): str(value) for name, value in given.items() if value is not None}
    os.environ.update(overrides)  # the workers read the same settings as this process
    try:
        settings = load_settings(os.environ)
        model_name = _check_upstream(settings)
    except (SettingsError, LocalModelUnavailable) as exc:
        for fault in getattr(exc, "faults", [str(exc)]):
            click.echo(f"chat-sse: {fault}", err=True)
        sys.exit(2)
    configure_logging(settings.log_level, settings.log_format)
    _serve(settings, model_name)


def _check_upstream(settings: Settings) -> str | None:
    """Fail before anything listens when nobody could answer. Gives the embedded model's name, if used."""
    if settings.openai_api_key is None and settings.openai_base_url is None:
        return model_name(find_local_model(settings.local_model))
    return None


def _serve(settings: Settings, local_model: str | None) -> None:
    config = uvicorn.Config(
        "chat_sse.app:create_app",
        factory=True,
        host=settings.host,
        port=settings.port,
        workers=settings.workers,
        loop="uvloop" if sys.platform != "win32" else "auto",
        http=_http_protocol(),
        ws="none",
        lifespan="on",
        backlog=BACKLOG,
        limit_concurrency=max_connections(raise_open_file_limit()),
        access_log=False,  # our own line has the request's id and no query string
        log_config=None,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=EXIT_SECONDS,
    )
    listening = config.bind_socket()
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        # asyncio flushes before it closes, and so would wait for ever for a client that does not read. The
        # kernel does not: accepted sockets inherit this bound, in milliseconds.
        milliseconds = int(settings.send_timeout * 1000)
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, milliseconds)
    host, port = listening.getsockname()[:2]
    server = DrainingServer(config)
    server.greeting = _greeting(settings, host, port, local_model)
    with listening:
        server.run(sockets=[listening])
    sys.exit(0 if server.started else 3)


def _http_protocol() -> type[asyncio.Protocol] | str:
    if sys.platform == "win32":  # where httptools is not installed
        return "auto"
    from chat_sse.connection import BoundedProtocol  # noqa: PLC0415 - it imports httptools

    return BoundedProtocol


def _greeting(settings: Settings, host: str, port: int, local_model: str | None) -> str:
    """Say where it listens, who answers, and what is open to whom."""
    models = allowed_models(settings, (local_model,) if local_model else ())
    upstream = "the embedded model" if local_model else public_url(settings.openai_base_url)
    reach = "this machine" if settings.host in LOOPBACK else "everybody who can reach this address"
    address = f"[{host}]" if ":" in host else host
    return "\n".join(
        (
            f"chat-sse {__version__} on http://{address}:{port}",
            f"  answers from {upstream}: {', '.join(models)}",
            f"  open to {reach}, without a key; pages from {', '.join(settings.allowed_origin)} may call it",
        )
    )


def raise_open_file_limit() -> int | None:
    """Take as many file descriptors as the system grants, and give their number; None when it is endless."""
    if sys.platform == "win32":
        return None
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return None if hard == resource.RLIM_INFINITY else hard


def max_connections(open_files: int | None) -> int | None:
    """Leave each connection a second descriptor, for its call upstream, and the process its own."""
    return None if open_files is None else max(1, (open_files - OWN_FILES) // 2)
