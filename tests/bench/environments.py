"""The peers' own Python environments, made once and kept in a cache folder."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import msgspec

INSTALL_SECONDS = 600.0
PLOT_SECONDS = 120.0


def find_uv() -> str | None:
    """Give uv's path: `uv run` tells its own."""
    return os.environ.get("UV") or shutil.which("uv")


class Unavailable(Exception):
    """A server cannot be measured here; the text says why."""


class Environment(msgspec.Struct, frozen=True, kw_only=True):
    """A virtual environment with pinned packages."""

    name: str
    packages: tuple[str, ...]
    before: str
    """Dependencies are taken as they were on this day, so that a figure can be had again."""

    @property
    def folder(self) -> Path:
        """Where it lies; other pins are another folder."""
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        pins = " ".join((*self.packages, self.before, sys.version))
        return cache / "chat-sse" / "bench" / f"{self.name}-{hashlib.sha256(pins.encode()).hexdigest()[:12]}"

    @property
    def ready(self) -> bool:
        """Whether it was installed to the end."""
        return (self.folder / "ready").exists()

    def program(self, name: str, *, install: bool) -> str:
        """Give a program's path. Raises Unavailable when it is not installed and may or can not be."""
        if not self.ready:
            if not install:
                raise Unavailable(f"not installed (in {self.folder}); the full run installs it")
            self._install()
        return str(self.folder / "bin" / name)

    def _install(self) -> None:
        uv = find_uv()
        if uv is None:
            raise Unavailable("uv is not there to install it")
        self._run(uv, "venv", "--clear", "--python", sys.executable, str(self.folder))
        python = str(self.folder / "bin" / "python")
        self._run(uv, "pip", "install", "--python", python, "--exclude-newer", self.before, *self.packages)
        (self.folder / "ready").touch()

    def _run(self, *command: str) -> None:
        try:
            subprocess.run(command, check=True, capture_output=True, timeout=INSTALL_SECONDS)
        except subprocess.CalledProcessError as exc:
            lines = exc.stderr.decode(errors="replace").strip().splitlines() or ["no reason given"]
            raise Unavailable(f"cannot be installed: {lines[-1]}") from exc
        except subprocess.TimeoutExpired as exc:
            raise Unavailable(f"not installed within {INSTALL_SECONDS:g} s") from exc


MATPLOTLIB = Environment(name="plot", packages=("matplotlib==3.11.2",), before="2026-11-20")


def draw(script: Path, source: Path, picture: Path) -> None:
    """Run a script that draws a picture of a JSON file, with matplotlib. Raises Unavailable without it."""
    python = MATPLOTLIB.program("python", install=True)
    subprocess.run([python, str(script), str(source), str(picture)], check=True, timeout=PLOT_SECONDS)
