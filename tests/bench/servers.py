"""The servers that are measured, and how each is started.

Each gets its leanest honest set-up: one process that works, its own defaults otherwise, no access log where
it can be turned off. Ours keeps its log, a line for each answer.
"""

from __future__ import annotations

import secrets
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import msgspec

from tests.bench.environments import Environment, Unavailable
from tests.bench.launch import START_SECONDS, Launch, Place, Server, free_port, openai_target
from tests.bench.load import Target
from tests.bench.mock import MODEL
from tests.support.nginx import TEMP_PATHS, find_nginx

REPOSITORY = Path(__file__).resolve().parents[2]

FASTAPI = Environment(
    name="fastapi",
    packages=("fastapi==0.165.0", "openai==3.54.0", "uvicorn==0.54.0", "uvloop==0.23.0", "httptools==0.9.0"),
    before="2026-11-20",
)
SGLANG = Environment(name="sglang-router", packages=("sglang-router==0.3.2",), before="2026-11-20")
VLLM = Environment(name="vllm-router", packages=("vllm-router==0.1.17",), before="2026-11-20")
# Stolen versions of it have been on PyPI (1.82.7, 1.82.8, 1.107.0): this pin is moved by hand only.
LITELLM = Environment(name="litellm", packages=("litellm[proxy]==1.106.2",), before="2026-11-20")

QUESTION = msgspec.json.encode({"messages": [{"role": "user", "content": "PLAN"}]}).decode()


def chat_sse(checkout: Path | None = None, *, workers: int = 1, redis: bool = False) -> Server:
    """Ours: this checkout with the Python that runs this, or another one with its own `.venv`."""
    name = "chat_sse" if checkout is None else f"chat_sse@{checkout.resolve().name}"
    name += f"-workers-{workers}" if workers > 1 else ""
    name += "-redis" if redis else ""

    def prepare(place: Place) -> Launch:
        python = Path(sys.executable) if checkout is None else checkout.resolve() / ".venv" / "bin" / "python"
        if not python.exists():
            raise Unavailable(f"no {python}: run `uv sync` there")
        root = REPOSITORY if checkout is None else checkout.resolve()
        environ = {
            "PYTHONPATH": str(root),
            "OPENAI_API_KEY": "bench",
            "OPENAI_BASE_URL": f"{place.upstream}/v1",
            "OPENAI_MODEL": MODEL,
            "CHAT_SSE_PORT": str(place.port),
            "CHAT_SSE_WORKERS": str(workers),
            "CHAT_SSE_SHUTDOWN_GRACE": "0",
            # One client asks everything here: every limit counts as it does by default, but lies far away.
            "CHAT_SSE_RATE_LIMIT": "10000000/minute",
            "CHAT_SSE_RATE_LIMIT_TOTAL": "10000000/minute",
            "CHAT_SSE_TOKEN_BUDGET": "1000000000000/day",
            "CHAT_SSE_TOKEN_BUDGET_TOTAL": "1000000000000/day",
            "CHAT_SSE_MAX_STREAMS": "100000",
            "CHAT_SSE_MAX_STREAMS_PER_CLIENT": "100000",
        }
        companion = None
        if redis:
            _check_setting(python, environ, "redis_url")
            port = free_port()
            companion = (_redis(port), port)
            environ["CHAT_SSE_REDIS_URL"] = f"redis://127.0.0.1:{port}/0"
        target = Target(port=place.port, path="/ask", headers={}, question=QUESTION, ending='{"type":"done"')
        return Launch(
            command=[str(python), "-m", "chat_sse"], target=target, environ=environ, companion=companion
        )

    return Server(name=name, prepare=prepare)


def _check_setting(python: Path, environ: Mapping[str, str], field: str) -> None:
    """Raise Unavailable when a checkout's settings lack a field: it would be ignored in silence."""
    code = f"import sys, chat_sse.settings as s; sys.exit({field!r} not in s.Settings.__struct_fields__)"
    if subprocess.run([python, "-c", code], env=environ, check=False, timeout=START_SECONDS).returncode:
        raise Unavailable(f"not supported: it has no setting {field}")


def _redis(port: int) -> list[str]:
    program = shutil.which("redis-server")
    if program is None:
        raise Unavailable("redis-server is not installed")
    return [program, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]


NGINX = (
    """\
daemon off;
worker_processes 1;
worker_rlimit_nofile 20000;
pid {folder}/nginx.pid;
error_log {folder}/nginx-error.log error;
events {{ worker_connections 20000; }}
http {{
    access_log off;
"""
    + TEMP_PATHS
    + """\
    keepalive_requests 1000000;
    upstream mock {{
        server {upstream};
        keepalive 10000;
        keepalive_requests 1000000;
    }}
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        location / {{
            proxy_pass http://mock;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_buffering off;
        }}
    }}
}}
"""
)


def nginx() -> Server:
    """Unbuffered pass-through: the least that any server in between can cost."""

    def prepare(place: Place) -> Launch:
        program = find_nginx()
        if program is None:
            raise Unavailable("nginx is not installed")
        upstream = place.upstream.removeprefix("http://")
        config = place.folder / "nginx.conf"
        config.write_text(NGINX.format(folder=place.folder, upstream=upstream, port=place.port))
        command = [program, "-p", str(place.folder), "-e", str(place.folder / "start.log"), "-c", str(config)]
        return Launch(command=command, target=openai_target(place.port))

    return Server(name="nginx", prepare=prepare)


def fastapi(*, install: bool) -> Server:
    """The same service as it is mostly written by hand."""

    def prepare(place: Place) -> Launch:
        command = [
            *(FASTAPI.program("uvicorn", install=install), "--app-dir", str(Path(__file__).parent)),
            *("--host", "127.0.0.1", "--port", str(place.port), "--log-level", "warning"),
            *("--no-access-log", "--backlog", "4096", "--timeout-graceful-shutdown", "1", "fastapi_twin:app"),
        ]
        environ = {"OPENAI_API_KEY": "bench", "OPENAI_BASE_URL": f"{place.upstream}/v1"}
        target = Target(port=place.port, path="/ask", headers={}, question=QUESTION, ending="[DONE]")
        return Launch(command=command, target=target, environ=environ)

    return Server(name="fastapi", prepare=prepare)


def sglang_router(*, install: bool) -> Server:
    """A gateway in Rust that hands chunks on unparsed."""

    def prepare(place: Place) -> Launch:
        command = [
            *(SGLANG.program("smg", install=install), "launch", "--backend", "openai"),
            *("--worker-urls", place.upstream, "--host", "127.0.0.1", "--port", str(place.port)),
            *("--prometheus-host", "127.0.0.1", "--prometheus-port", str(free_port())),
            *("--log-level", "warn", "--shutdown-grace-period-secs", "1"),
        ]
        return Launch(command=command, target=openai_target(place.port))

    return Server(name="sglang-router", prepare=prepare)


def vllm_router(*, install: bool) -> Server:
    """The vLLM project's gateway in Rust, in front of one model server."""

    def prepare(place: Place) -> Launch:
        command = [
            *(VLLM.program("vllm-router", install=install), "--worker-urls", place.upstream),
            *("--host", "127.0.0.1", "--port", str(place.port)),
            *("--prometheus-host", "127.0.0.1", "--prometheus-port", str(free_port())),
            # The default, cache_aware, holds an answer back for up to a second; here is nothing to choose.
            *("--policy", "round_robin", "--log-level", "error"),  # with "warning" it still logs at INFO
        ]
        return Launch(command=command, target=openai_target(place.port))

    return Server(name="vllm-router", prepare=prepare)


def litellm(*, install: bool) -> Server:
    """The gateway that most people name first."""
    key = f"sk-{secrets.token_hex(24)}"

    def prepare(place: Place) -> Launch:
        config = place.folder / "litellm.json"  # YAML is read, of which JSON is a part
        parameters = {"model": f"openai/{MODEL}", "api_base": f"{place.upstream}/v1", "api_key": "bench"}
        models = [{"model_name": MODEL, "litellm_params": parameters}]
        config.write_bytes(msgspec.json.encode({"model_list": models}))
        command = [
            *(LITELLM.program("litellm", install=install), "--config", str(config)),
            *("--host", "127.0.0.1", "--port", str(place.port), "--num_workers", "1"),
        ]
        environ = {
            "LITELLM_MASTER_KEY": key,
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
            "LITELLM_LOG": "ERROR",
            "LITELLM_TELEMETRY": "False",
        }
        return Launch(command=command, target=openai_target(place.port, key), environ=environ)

    return Server(name="litellm", prepare=prepare)
