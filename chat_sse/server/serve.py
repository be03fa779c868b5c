"""The command `chat-sse`: reads the settings, binds the socket and starts the processes that serve it."""

import logging
import os
import secrets
import socket
import sys
from collections.abc import Mapping, Set
from contextlib import AbstractContextManager
from pathlib import Path

import click
import uvicorn

from chat_sse import __version__
from chat_sse.access.address import UNIX
from chat_sse.access.hosts import is_loopback
from chat_sse.access.opening import open_ways
from chat_sse.observe.logging import configure_logging
from chat_sse.observe.opening import workers_metrics
from chat_sse.opening import check_settings
from chat_sse.server.own_redis import OwnRedis, RedisMissing, find_program
from chat_sse.server.protocol import BoundedProtocol
from chat_sse.server.sockets import CannotListen, bound_unread_bytes, unix_socket
from chat_sse.server.workers import DrainingServer, Supervisor
from chat_sse.settings import Settings, SettingsError, load_settings, variable
from chat_sse.settings.callers import ANONYMOUS, JWT, KEYS, PROXY
from chat_sse.upstreams.local import find_local_model
from chat_sse.upstreams.local_file import LocalModelUnavailable, model_name
from chat_sse.upstreams.openai.upstream import public_url
from chat_sse.upstreams.opening import allowed_models

log = logging.getLogger(__name__)

# After the running answers' grace: for sockets' last bytes, the pumps' clean-up and upstream's connections.
EXIT_SECONDS = 10
BACKLOG = 4096
# Standard streams, the event loop's, the listening socket, a file that is being served: some 15, and reserve.
OWN_FILES = 40


def override(given: Mapping[str, str | int | Path | None]) -> Set[str]:
    """Put settings into the environment, where workers read them as well; None leaves one. Returns names."""
    overrides = {variable(name): str(value) for name, value in given.items() if value is not None}
    os.environ.update(overrides)
    return overrides.keys()


def serve() -> None:
    """Serve until a signal.

    Always exits: 0 after a signal, 2 when a setting is wrong, 3 when the server could not start.
    """
    try:
        settings = load_settings(os.environ)
        configure_logging(settings.log_level, settings.log_format)
        check_settings(settings)
        open_ways(settings)
        model_name = _check_upstream(settings)
        own_redis = _start_redis(settings)
    except (SettingsError, LocalModelUnavailable, RedisMissing) as exc:
        for fault in getattr(exc, "faults", [str(exc)]):
            click.echo(f"chat-sse: {fault}", err=True)
        sys.exit(2)
    if settings.secret_key is None:
        os.environ[variable("secret_key")] = secrets.token_urlsafe(32)  # one for all workers
    try:
        _serve(settings, model_name, own_redis)
    except CannotListen as exc:
        click.echo(f"chat-sse: {exc}", err=True)
        sys.exit(3)
    finally:
        if own_redis is not None:
            own_redis.close()


def _start_redis(settings: Settings) -> OwnRedis | None:
    """Start the Redis that workers share where the settings name none. Raises RedisMissing."""
    if settings.workers == 1 or settings.redis_url is not None:
        return None
    own_redis = OwnRedis(find_program(), settings.max_kept_bytes)
    own_redis.start()
    os.environ[variable("redis_url")] = own_redis.url  # for the workers
    return own_redis


def _check_upstream(settings: Settings) -> str | None:
    """Return the embedded model's name if it is used. Raises LocalModelUnavailable."""
    if settings.needs_local_model:
        return model_name(find_local_model(settings.local_model))
    return None


def _serve(settings: Settings, local_model: str | None, own_redis: OwnRedis | None) -> None:
    config = uvicorn.Config(
        "chat_sse.app:create_app",
        factory=True,
        host=settings.host,
        port=settings.port,
        workers=settings.workers,
        loop="uvloop" if sys.platform != "win32" else "auto",
        http=BoundedProtocol,
        ws="none",
        lifespan="on",
        backlog=BACKLOG,
        limit_concurrency=max_connections(raise_open_file_limit()),
        access_log=False,  # our own line has the request's id and no query string
        log_config=None,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=settings.keep_alive,  # type: ignore[arg-type]  # it is only given to a timer
        timeout_graceful_shutdown=EXIT_SECONDS,
    )
    with _listen(config, settings.uds) as listening:
        # Longer than `ClientStream` needs to cut a client off and log it, which may take twice its timeout.
        bound_unread_bytes(listening, 2 * settings.send_timeout + 1)
        greeting = _greeting(settings, listening, local_model)
        if own_redis is not None:
            greeting += f"\n  {settings.workers} workers share {own_redis.program}, which ends with them"
        _warn(settings)
        if settings.workers > 1:
            log_as = settings.log_level, settings.log_format
            with workers_metrics(settings) as on_death:
                supervisor = Supervisor(config, listening, greeting, log_as, own_redis, on_death=on_death)
                supervisor.run()
            started = supervisor.started
        else:
            server = DrainingServer(config)
            server.greeting = greeting
            server.run(sockets=[listening])
            started = server.started
    sys.exit(0 if started else 3)


def _listen(config: uvicorn.Config, uds: Path | None) -> AbstractContextManager[socket.socket]:
    """Bind what the settings name. Raises CannotListen; for an address uvicorn exits with 3."""
    return config.bind_socket() if uds is None else unix_socket(uds.absolute(), BACKLOG)


def _warn(settings: Settings) -> None:
    """Log what an operator may not have meant."""
    if settings.uds is not None:
        if UNIX not in settings.trusted_proxies:
            fields = {"set": f"{variable('trusted_proxies')}={UNIX}"}
            log.warning("service.visitors_count_as_one", extra={"fields": fields})
    elif ANONYMOUS in settings.callers.ways and not is_loopback(settings.host):
        names = f"{variable('api_keys')},{variable('allowed_hosts')}"
        fields = {"host": settings.host, "set": names}
        log.warning("service.open_to_everybody", extra={"fields": fields})


def _greeting(settings: Settings, listening: socket.socket, local_model: str | None) -> str:
    """Return what is printed at start: the address, the models, and who may use them."""
    models = allowed_models(settings, (local_model,) if local_model else ())
    urls = [target.base_url for target in settings.models_file] or [settings.openai_base_url]
    upstream = "the embedded model" if local_model else ", ".join(dict.fromkeys(map(public_url, urls)))
    origins = ", ".join(settings.allowed_origin)
    return "\n".join(
        (
            f"chat-sse {__version__} on {_address(listening, settings.root_path or '')}",
            f"  answers from {upstream}: {', '.join(models)}",
            f"  open to {_reach(settings)}, {_who(settings)}; pages from {origins} may call it",
            f"  answers to {_host_names(settings)} (CHAT_SSE_ALLOWED_HOSTS)",
        )
    )


def _address(listening: socket.socket, root_path: str) -> str:
    name = listening.getsockname()
    if isinstance(name, str):
        return f"unix:{name}"
    host, port = name[:2]
    return f"http://[{host}]:{port}{root_path}" if ":" in host else f"http://{host}:{port}{root_path}"


def _reach(settings: Settings) -> str:
    """Return in words who can reach the service."""
    if settings.uds is None:
        return "this machine" if is_loopback(settings.host) else "everybody who can reach this address"
    one = "" if UNIX in settings.trusted_proxies else ", who count as one client"
    return f"everybody whom its proxy lets in{one}"


def _who(settings: Settings) -> str:
    """Return in words who may ask."""
    names = [entry.partition(":")[0] for entry in settings.api_keys]
    key = "from a JWKS" if settings.callers.key_is_url else f"of {settings.jwt_issuer or 'any issuer'}"
    cookie = f", also in the cookie {settings.jwt_cookie}" if settings.jwt_cookie else ""
    proxies = ", ".join(settings.trusted_proxies)
    words = {
        KEYS: f"with a key ({', '.join(names)})",
        JWT: f"with a token ({key}{cookie})",
        PROXY: f"as {settings.user_header} of {proxies} says",
        ANONYMOUS: "without a key",
    }
    return " or ".join(words[way] for way in settings.callers.ways)


def _host_names(settings: Settings) -> str:
    """Return in words which `Host` a request may name, as `TrustedHost` decides it."""
    if settings.allowed_hosts:
        return "any host name" if "*" in settings.allowed_hosts else ", ".join(settings.allowed_hosts)
    if settings.uds is None and is_loopback(settings.host):
        return "the names of this machine"
    return (
        "any host name"
        if ANONYMOUS not in settings.callers.ways
        else "localhost and IP addresses, to no other host name"
    )


def raise_open_file_limit() -> int | None:
    """Raise this process's limit of open files to the highest allowed. Returns it; None for no limit."""
    if sys.platform == "win32":
        return None
    import resource  # noqa: PLC0415  (it does not exist on Windows)

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return None if hard == resource.RLIM_INFINITY else hard


def max_connections(open_files: int | None) -> int | None:
    """Return how many connections fit: each needs a second descriptor, for its call upstream."""
    return None if open_files is None else max(1, (open_files - OWN_FILES) // 2)
