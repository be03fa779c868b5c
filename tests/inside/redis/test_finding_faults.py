"""What is wrong with a Redis or its URL, told before anything depends on it."""

import asyncio
from pathlib import Path

import pytest
import trustme
from redis.asyncio import Connection

from chat_sse.redis_access import Server, connector, find_fault, read_info
from tests.support.ports import free_port
from tests.support.redis_server import RedisServer
from tests.support.redis_time import RedisBeside


async def test_a_redis_that_serves_has_no_fault(redis: RedisBeside) -> None:
    assert await find_fault(redis.url) is None
    await asyncio.sleep(0.01)
    assert len(redis.data.client_list(_type="normal")) == 2


async def test_what_is_wrong_with_a_redis_is_said_in_words(redis: RedisBeside) -> None:
    for url, words in (
        (redis.url.replace("canary", "wrong"), "refuses the user or the password"),
        (redis.url.replace("/0", "/99"), "refuses the number of the database, or the command INFO"),
        ("redis://127.0.0.1:1/0", "cannot be reached"),
    ):
        assert await find_fault(url) == words
    redis.data.acl_setuser("weak", enabled=True, nopass=True, categories=["-@all"], commands=["+auth"])
    assert await find_fault(redis.url.replace("//:", "//weak:")) == "refuses the user or the password"
    redis.hang()
    began = redis.loop.time()
    assert await find_fault(redis.url) == "cannot be reached"
    assert redis.loop.time() == began + 4
    redis.go_on()


async def test_a_node_of_a_cluster_is_of_no_use(redis: RedisBeside, tmp_path: Path) -> None:
    nodes = str(tmp_path / "nodes.conf")
    options = "--cluster-enabled", "yes", "--cluster-config-file", nodes, "--cluster-port", str(free_port())
    with RedisServer(*options) as server:
        redis.loop.wait_for(server)
        words = "leads to a Redis in the mode cluster: it must be a single server"
        assert await find_fault(server.url) == words
        redis.loop.wait_for(redis.server)


async def test_a_certificate_that_nobody_here_trusts_is_named(redis: RedisBeside, tmp_path: Path) -> None:
    authority, port = trustme.CA(), str(free_port())
    certificate, files = authority.issue_cert("127.0.0.1"), [str(tmp_path / name) for name in "abc"]
    certificate.cert_chain_pems[0].write_to_path(files[0])
    certificate.private_key_pem.write_to_path(files[1])
    authority.cert_pem.write_to_path(files[2])
    names = "--tls-cert-file", "--tls-key-file", "--tls-ca-cert-file"
    options = [part for pair in zip(names, files, strict=True) for part in pair]
    with RedisServer("--tls-port", port, "--tls-auth-clients", "no", *options) as server:
        redis.loop.wait_for(server)
        url = server.url.replace("redis:", "rediss:").replace(str(server.port), port)
        fault = await find_fault(url)
        assert fault is not None
        assert fault.startswith("has a certificate that is not trusted here: self-signed")
        assert await find_fault(f"{url}?ssl_ca_certs={files[2]}") is None
        redis.loop.wait_for(redis.server)


def test_the_mode_is_redis_or_valkeys_or_single() -> None:
    assert read_info(b"# Server\r\nredis_mode:cluster\r\nrun_id:1f\r\nx:1:2\r\n") == Server("cluster", "1f")
    assert read_info(b"redis_mode:standalone\r\nserver_mode:sentinel\r\n").mode == "sentinel"
    assert read_info(b"\r\nnothing\r\n").mode == "standalone"


@pytest.mark.parametrize("url", ["redis://h?no_such_option=1", "redis://h/x?socket_timeout=y", "http://h"])
def test_a_url_that_is_none_is_refused_and_not_quoted(url: str) -> None:
    with pytest.raises(ValueError, match="redis-py does not know one of its options") as raised:
        connector(url)
    assert raised.value.__cause__ is None


def test_a_url_has_no_say_in_how_long_anything_takes() -> None:
    connection = connector("redis://u:p@h:1/2?socket_timeout=9&decode_responses=true&protocol=3")()
    assert isinstance(connection, Connection)
    assert (connection.host, connection.port, connection.db) == ("h", 1, 2)
    assert (connection.socket_timeout, connection.socket_connect_timeout) == (None, 2)
    assert connection.get_protocol() == 2  # type: ignore[no-untyped-call]
    assert connection.retry.get_retries() == 0
    assert connection.encoder.decode_responses is False
