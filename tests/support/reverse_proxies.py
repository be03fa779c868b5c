"""Real reverse proxies, each set up as the README shows it."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from tests.support.nginx import find_proxy, run_nginx, run_proxy
from tests.support.readme import code_block

PROXIES = ("nginx", "caddy", "haproxy")
LISTENS = {"nginx": "listen 80;", "caddy": "chat.example.org {", "haproxy": "bind :80"}
UPSTREAMS = ("127.0.0.1:8001", "127.0.0.1:8002")
# Keeps Caddy from asking for certificates, and from writing where it is not asked to.
CADDY_OPTIONS = "{\n admin off\n auto_https off\n}\n"


def shown(proxy: str) -> str:
    """Give the README's block for a proxy before two processes."""
    return code_block(proxy, "127.0.0.1:8002")


def run_shown(
    proxy: str, config: str, folder: Path, *, port: int, upstreams: Sequence[str]
) -> AbstractContextManager[str]:
    """Run a proxy with the README's configuration, or with what a test has made of it.

    `port`: of loopback, where it listens instead. `upstreams`: what stands behind it instead, as the proxy
    writes it.
    """
    config = replace(config, LISTENS[proxy], _listen(proxy, port))
    for written, real in zip(UPSTREAMS, upstreams, strict=True):
        config = replace(config, written, real)
    if proxy == "nginx":
        return run_nginx(folder, config, port)
    if proxy == "caddy" and caddy_version() < (2, 7):
        config = re.sub(r"request_buffers .*: (\w+)$", r"\1", config, flags=re.MULTILINE)  # as it says
    folder.mkdir(exist_ok=True)
    file, log = folder / f"{proxy}.conf", folder / "start.log"
    file.write_text(CADDY_OPTIONS + config if proxy == "caddy" else config)
    arguments = ["-db", "-f"] if proxy == "haproxy" else ["run", "--adapter", "caddyfile", "--config"]
    return run_proxy(proxy, [*arguments, str(file)], log, port)


def caddy_version() -> tuple[int, ...]:
    """Give its version as numbers."""
    said = subprocess.run([find_proxy("caddy") or "", "version"], capture_output=True, text=True, check=True)
    return tuple(int(number) for number in re.findall(r"\d+", said.stdout)[:3])


def replace(config: str, old: str, new: str) -> str:
    """Replace what must stand there once."""
    assert config.count(old) == 1, (old, config)
    return config.replace(old, new)


def _listen(proxy: str, port: int) -> str:
    if proxy == "caddy":
        return f"http://:{port} {{\n    bind 127.0.0.1"
    return f"listen 127.0.0.1:{port};" if proxy == "nginx" else f"bind 127.0.0.1:{port}"
