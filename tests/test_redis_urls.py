"""The ways to a Redis: a password, a database, a Unix socket, TLS; and what is refused."""

from collections.abc import Callable
from pathlib import Path

import pytest
import trustme

from chat_sse.redis_access import read_info
from tests.conftest import QUICK
from tests.support import plain_http
from tests.support.ports import free_port
from tests.support.redis_server import PASSWORD, RedisServer
from tests.support.service import ask, events, refused_start, serve, text_of
from tests.support.upstream import Finish, Say, ScriptedUpstream


def over_tcp(_: Path) -> tuple[RedisServer, str]:
    server = RedisServer()
    return server, f"redis://default:{PASSWORD}@127.0.0.1:{server.port}/3"


def over_a_socket(folder: Path) -> tuple[RedisServer, str]:
    path = folder / "redis.sock"
    return RedisServer("--unixsocket", str(path)), f"unix://:{PASSWORD}@{path}?db=1"


def over_tls(folder: Path) -> tuple[RedisServer, str]:
    authority = trustme.CA()
    certificate = authority.issue_cert("localhost")
    names = {name: folder / name for name in ("ca", "cert", "key")}
    authority.cert_pem.write_to_path(names["ca"])
    certificate.cert_chain_pems[0].write_to_path(names["cert"])
    certificate.private_key_pem.write_to_path(names["key"])
    port = RedisServer().port
    server = RedisServer(
        *("--tls-port", str(port), "--tls-auth-clients", "no", "--tls-ca-cert-file", str(names["ca"])),
        *("--tls-cert-file", str(names["cert"]), "--tls-key-file", str(names["key"])),
    )
    return server, f"rediss://:{PASSWORD}@localhost:{port}/0?ssl_ca_certs={names['ca']}"


@pytest.mark.parametrize("way", [over_tcp, over_a_socket, over_tls])
def test_two_processes_share_a_redis(
    way: Callable[[Path], tuple[RedisServer, str]], upstream: ScriptedUpstream, tmp_path: Path
) -> None:
    upstream.answer(Say("Hello"), Finish())
    redis_server, url = way(tmp_path)
    with redis_server:
        env = {**QUICK, "OPENAI_BASE_URL": upstream.base_url, "CHAT_SSE_REDIS_URL": url}
        with serve(env) as left, serve(env) as right:
            asked = ask(left.url)
            read = plain_http.get(right.url + asked.headers["Content-Location"], timeout=30)
            assert text_of(events(read)) == text_of(events(asked)) == "Hello"
            assert PASSWORD not in left.log() + right.log()


def sentinel(folder: Path) -> RedisServer:
    server, config = RedisServer(), folder / "sentinel.conf"
    config.write_text(f"port {server.port}\nbind 127.0.0.1\nrequirepass {PASSWORD}\n")
    server.command = ["redis-server", str(config), "--sentinel"]
    return server


def cluster_node(folder: Path) -> RedisServer:
    nodes, port = str(folder / "nodes.conf"), str(free_port())
    return RedisServer("--cluster-enabled", "yes", "--cluster-config-file", nodes, "--cluster-port", port)


@pytest.mark.parametrize(("start", "mode"), [(cluster_node, "cluster"), (sentinel, "sentinel")])
def test_a_redis_that_is_no_single_server_is_refused_at_start(
    start: Callable[[Path], RedisServer], mode: str, tmp_path: Path
) -> None:
    with start(tmp_path) as server:
        said = refused_start({"CHAT_SSE_REDIS_URL": server.url}, exit_code=3)
    assert f"leads to a Redis in the mode {mode}: it must be a single server" in said
    assert PASSWORD not in said


@pytest.mark.parametrize("field", ["redis_mode", "server_mode"])  # Redis's word, and Valkey's
@pytest.mark.parametrize("mode", ["standalone", "cluster", "sentinel"])
def test_the_mode_of_redis_and_of_valkey_is_read(field: str, mode: str) -> None:
    assert (
        read_info(f"# Server\r\nredis_version:7.2.4\r\n{field}:{mode}\r\nos:Linux\r\n".encode()).mode == mode
    )
