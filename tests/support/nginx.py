"""A real nginx, in a folder of its own, with the blocks of `http` that a test gives it."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

START_SECONDS = 10.0
STOP_SECONDS = 10.0

# In a block `http`: nginx makes these folders at its start, by default where only root may.
TEMP_PATHS = """\
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
"""

CONFIG = (
    """
daemon off;
master_process off;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{ worker_connections 1000; }}
http {{
    access_log off;
"""
    + TEMP_PATHS
    + """
    {blocks}
}}
"""
)


def find_nginx() -> str | None:
    """Return its path, also where PATH is a user's."""
    return find_proxy("nginx")


def find_proxy(name: str) -> str | None:
    """Return a proxy's path, also where PATH is a user's."""
    return shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")


@contextmanager
def run_nginx(folder: Path, blocks: str, port: int) -> Iterator[str]:
    """Run it until the exit, and give its URL. `blocks` must listen on the loopback port."""
    folder.mkdir(exist_ok=True)
    config, log = folder / "nginx.conf", folder / "start.log"
    config.write_text(CONFIG.format(folder=folder, blocks=blocks))
    with run_proxy("nginx", ["-p", str(folder), "-e", str(log), "-c", str(config)], log, port) as url:
        yield url


@contextmanager
def run_proxy(name: str, arguments: list[str], log: Path, port: int) -> Iterator[str]:
    """Run a proxy that listens on a loopback port until the exit, and give its URL. `log`: what it says."""
    program = find_proxy(name)
    assert program is not None, f"{name} is not installed"
    home = {variable: str(log.parent) for variable in ("HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME")}
    with log.open("ab") as output:
        process = subprocess.Popen([program, *arguments], env={**os.environ, **home}, stderr=output)
    try:
        deadline = time.monotonic() + START_SECONDS
        while not _listens(port):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, f"{name} did not start"
            time.sleep(0.02)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait(STOP_SECONDS)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
