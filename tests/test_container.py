"""The image, built with buildah and run with what Linux offers: the long form, CHAT_SSE_TEST_CONTAINER=1.

Its base is made of Debian's packages, since no registry of images need be within reach: `python3` for
`python:3.13-slim`. The build takes the machine's certificates, and so works behind a proxy that intercepts
TLS. As root, with the packages buildah, debootstrap and procps.
"""

import os
import re
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx2
import msgspec
import pytest

from tests.support import plain_http
from tests.support.ports import free_port
from tests.support.redis_server import RedisServer
from tests.support.service import HELLO, until
from tests.support.upstream import Finish, Hold, Say, ScriptedUpstream

pytestmark = pytest.mark.timeout(900)

ROOT = Path(__file__).parent.parent
DEBIAN = "http://deb.debian.org/debian"
BASE, IMAGE = "docker.io/library/python:3.13-slim", "localhost/chat-sse-under-test"
# Neither needs a daemon, nor a filesystem of its own.
BUILDAH = {**os.environ, "BUILDAH_ISOLATION": "chroot", "STORAGE_DRIVER": "vfs"}
AS_THE_IMAGE_SAYS = ("--reuid=10001", "--regid=10001", "--clear-groups", "--inh-caps=-all")
PATH = "/opt/chat-sse/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def buildah(*arguments: str) -> str:
    done = subprocess.run(
        ["buildah", *arguments], env=BUILDAH, cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.strip()


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Build it; gives the folder in which its files are."""
    base = tmp_path_factory.mktemp("base") / "root"
    packages = "--include=python3,python3-pip,python3-venv,ca-certificates"
    subprocess.run(["debootstrap", "--variant=minbase", packages, "trixie", base, DEBIAN], check=True)
    (base / "usr/bin/python").symlink_to("python3")
    for guard in base.glob("usr/lib/python3*/EXTERNALLY-MANAGED"):
        guard.unlink()
    start = buildah("from", "scratch")
    buildah("copy", "--quiet", start, str(base), "/")
    buildah("config", "--env", f"PATH=/usr/local/bin:{PATH}", start)
    buildah("commit", "--quiet", start, BASE)
    certificates = "/etc/ssl/certs:/etc/ssl/certs:ro"
    extras = "EXTRAS=redis jwt metrics otel"
    buildah(
        *("bud", "--format=docker", "--pull=never", "--volume", certificates, "--build-arg", extras),
        *("--tag", IMAGE, "."),
    )
    container = buildah("from", "--pull=never", IMAGE)
    try:
        yield Path(buildah("mount", container))
    finally:
        buildah("rm", start, container)
        buildah("rmi", IMAGE, BASE)
        shutil.rmtree(base)


@contextmanager
def running(image: Path, environ: dict[str, str], log: Path) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """Run it as process 1 of its own, with a read-only root, a `/tmp`, no capability and no way to get one.

    Gives the outer process, and the inner one's id out here.
    """
    script = f"""set -e
mount --make-rprivate /
mount --bind {image} {image}
mount -o remount,ro,bind {image}
mount -t proc proc {image}/proc
mount -t tmpfs -o size=64m tmpfs {image}{tempfile.gettempdir()}
exec chroot {image} setpriv --no-new-privs {" ".join(AS_THE_IMAGE_SAYS)} --bounding-set=-all \
    sh -c 'cd /app; exec chat-sse'
"""
    command = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", script]
    with log.open("wb") as output:
        outer = subprocess.Popen(command, env={"PATH": PATH, **environ}, stdout=output, stderr=output)
    try:
        until(lambda: _is_healthy(environ["CHAT_SSE_PORT"]), 60)
        found = subprocess.run(["pgrep", "-P", str(outer.pid)], capture_output=True, text=True, check=True)
        yield outer, int(found.stdout)
    finally:
        outer.kill()
        outer.wait(10)


def _is_healthy(port: str) -> bool:
    try:
        return plain_http.get(f"http://127.0.0.1:{port}/healthz").status_code == 200
    except httpx2.TransportError:
        return False


def inside(image: Path, pid: int, *command: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run a command in the container, as its user."""
    entered = ("nsenter", "-t", str(pid), "-m", "-p", "chroot", str(image), "setpriv", *AS_THE_IMAGE_SAYS)
    path = {"PATH": PATH, **environ}
    return subprocess.run([*entered, *command], env=path, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("workers", ["1", "2"])
def test_it_runs_as_nobody_on_a_read_only_root_and_ends_as_process_1_when_its_answers_have(
    image: Path, upstream: ScriptedUpstream, tmp_path: Path, workers: str
) -> None:
    gate = threading.Event()
    upstream.answer(Say("Hel"), Hold(gate), Say("lo"), Finish())
    port, metrics = str(free_port()), str(free_port())
    with RedisServer() as redis, ThreadPoolExecutor(1) as pool:
        environ = {
            "OPENAI_BASE_URL": upstream.base_url,
            "CHAT_SSE_REDIS_URL": redis.url,
            "CHAT_SSE_PORT": port,
            "CHAT_SSE_METRICS_PORT": metrics,
            "CHAT_SSE_WORKERS": workers,
        }
        with running(image, environ, tmp_path / "log") as (outer, pid):
            status = dict(
                re.findall(r"^(\w+):\s+(.*)$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
            )
            assert status["Uid"].split() == ["10001"] * 4
            assert (status["NSpid"].split()[1], status["NoNewPrivs"]) == ("1", "1")
            assert {status["CapEff"], status["CapBnd"]} == {"0" * 16}
            assert "Read-only" in inside(image, pid, "touch", "/app/file").stderr
            [config] = [msgspec.json.decode(buildah("inspect", "--type", "image", IMAGE))["Docker"]["config"]]
            assert (config["User"], config["Cmd"]) == ("10001:10001", ["chat-sse"])
            check = config["Healthcheck"]["Test"][1:]
            assert inside(image, pid, *check, CHAT_SSE_PORT=port).returncode == 0
            asked = pool.submit(httpx2.post, f"http://127.0.0.1:{port}/ask", json=HELLO, timeout=60)
            upstream.wait_for_calls(1)
            page = plain_http.get(f"http://127.0.0.1:{metrics}/metrics").text
            assert "chat_sse_running_answers" in page
            os.kill(pid, signal.SIGTERM)
            until(lambda: "relay.draining" in (tmp_path / "log").read_text())
            gate.set()
            assert '"finish_reason":"stop"' in asked.result(60).text
            assert outer.wait(20) == 0
    assert "Traceback" not in (tmp_path / "log").read_text()
