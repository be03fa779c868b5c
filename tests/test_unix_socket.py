"""`chat-sse --uds`: who may open the socket, what it replaces, and that its workers share it."""

import os
import signal
import stat
from pathlib import Path

import httpx2
import pytest

from chat_sse.access.address import UNIX, ClientAddresses
from tests.conftest import QUICK
from tests.support import plain_http
from tests.support.service import HELLO, RunningService, parse_sse, refused_start, serve, text_of, workers_of
from tests.support.upstream import Finish, Say, ScriptedUpstream


def ask_over(path: Path) -> str:
    """Ask over a socket; gives the answer's text."""
    with plain_http.Client(transport=httpx2.HTTPTransport(uds=str(path)), timeout=20) as client:
        answer = client.post("http://localhost/ask", json=HELLO)
    assert answer.status_code == 200, answer.text
    return text_of([event for _, event in parse_sse(answer.content)])


def serving(upstream: ScriptedUpstream) -> dict[str, str]:
    upstream.answer(Say("Hello"), Finish())
    return {**QUICK, "OPENAI_BASE_URL": upstream.base_url}


def end(service: RunningService) -> None:
    assert service.terminate(signal.SIGTERM) == 0


def test_it_is_open_to_its_owner_and_group_and_goes_with_the_service(
    upstream: ScriptedUpstream, tmp_path: Path
) -> None:
    path = tmp_path / "a.sock"
    with serve({**serving(upstream), "CHAT_SSE_UDS": str(path)}) as service:
        assert service.url == f"unix:{path}"
        assert stat.filemode(path.stat().st_mode) == "srw-rw----"
        assert ask_over(path) == "Hello"
        end(service)
    assert not path.exists()


def test_workers_share_it(upstream: ScriptedUpstream, tmp_path: Path) -> None:
    path = tmp_path / "a.sock"
    with serve(serving(upstream), "--uds", str(path), "--workers", "2") as service:
        assert [ask_over(path) for _ in range(4)] == ["Hello"] * 4
        os.kill(workers_of(service)[0], signal.SIGKILL)
        assert ask_over(path) == "Hello"
        end(service)
    assert not path.exists()


def test_one_that_a_killed_service_left_is_replaced(upstream: ScriptedUpstream, tmp_path: Path) -> None:
    path = tmp_path / "a.sock"
    for _ in range(2):
        with serve(serving(upstream), "--uds", str(path)) as service:
            assert ask_over(path) == "Hello"
            service.process.kill()
            service.process.wait()
        assert path.exists()


def test_one_that_another_process_listens_on_is_left_to_it(
    upstream: ScriptedUpstream, tmp_path: Path
) -> None:
    path = tmp_path / "a.sock"
    with serve(serving(upstream), "--uds", str(path)):
        said = refused_start({}, "--uds", str(path), exit_code=3)
        assert said == f"chat-sse: {path}: another process listens there\n"
        assert ask_over(path) == "Hello"


def test_any_other_file_is_refused_and_kept(tmp_path: Path) -> None:
    path, link = tmp_path / "notes", tmp_path / "link"
    path.write_text("mine")
    link.symlink_to(path)
    for name in (path, link):
        said = refused_start({"CHAT_SSE_UDS": str(name)}, exit_code=3)
        assert said == f"chat-sse: {name} exists, and is no socket\n"
    assert (path.read_text(), link.is_symlink()) == ("mine", True)


@pytest.mark.parametrize("name", ["nowhere/a.sock", "x" * 200])
def test_a_path_that_cannot_be_used_is_an_error_and_no_traceback(tmp_path: Path, name: str) -> None:
    said = refused_start({}, "--uds", str(tmp_path / name), exit_code=3)
    assert said.startswith(f"chat-sse: {tmp_path}")
    assert "Traceback" not in said


def test_it_is_instead_of_host_and_port(tmp_path: Path) -> None:
    said = refused_start({}, "--uds", str(tmp_path / "a"), "--port", "1")
    assert "--uds is instead of --host and --port" in said


def test_a_tcp_peer_whose_address_is_lost_is_no_socket() -> None:
    forwarded = [(b"x-forwarded-for", b"203.0.113.9")]
    addresses = ClientAddresses([UNIX])
    for server, counted in (
        (("/a.sock", None), "203.0.113.9"),
        (("10.0.0.1", 80), "unknown"),
        (None, "unknown"),
    ):
        scope = {"client": None, "server": server, "headers": forwarded}
        assert addresses.client_of(scope) == counted
    trusted = {
        "client": ("10.0.0.1", 1),
        "server": ("10.0.0.2", 80),
        "headers": [(b"x-forwarded-for", b"unix")],
    }
    assert addresses.client_of(trusted) == "10.0.0.1"
