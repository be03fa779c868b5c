"""A real Prometheus, in a folder of its own."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2

from tests.support import plain_http
from tests.support.ports import free_port

SECONDS = 30.0


class Prometheus:
    """Its HTTP API."""

    def __init__(self, url: str) -> None:
        self._url = url

    def get(self, path: str, **params: str) -> Any:
        """Return what it answers. Raises for an error, such as an expression that is none."""
        response = plain_http.get(f"{self._url}/api/v1/{path}", params=params, timeout=SECONDS)
        assert response.status_code == 200, response.text
        return response.json()["data"]

    def wait_for(self, condition: Callable[[], bool]) -> None:
        """Wait until something shows: it scrapes once a second."""
        deadline = time.monotonic() + SECONDS
        while not condition():
            assert time.monotonic() < deadline
            time.sleep(0.1)


@contextmanager
def run_prometheus(folder: Path, config: str) -> Iterator[Prometheus]:
    """Run it with a configuration, beside whose file `folder` may hold others."""
    (folder / "prometheus.yml").write_text(config)
    address = f"127.0.0.1:{free_port()}"
    options = {
        "config.file": folder / "prometheus.yml",
        "storage.tsdb.path": folder / "data",
        "web.listen-address": address,
    }
    log = folder / "prometheus.log"
    with log.open("wb") as output:
        command = ["prometheus", *(f"--{name}={value}" for name, value in options.items())]
        process = subprocess.Popen(command, stdout=output, stderr=output, cwd=folder)
    try:
        deadline = time.monotonic() + SECONDS
        while not _is_ready(address):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
        yield Prometheus(f"http://{address}")
    finally:
        process.kill()
        process.wait(SECONDS)


def _is_ready(address: str) -> bool:
    try:
        return plain_http.get(f"http://{address}/-/ready").status_code == 200
    except httpx2.TransportError:
        return False
