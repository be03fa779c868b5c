"""`chat-sse check` and `--print-config`: what is wrong is told before anybody asks."""

import os
import ssl
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest
import trustme

from chat_sse.settings import Settings, variable
from tests.support.ports import free_port
from tests.support.redis_server import PASSWORD, RedisServer
from tests.support.service import run_to_end
from tests.support.upstream import ScriptedUpstream
from tests.support.web import Handler, web_server
from tests.test_redis_urls import sentinel

KEY = "sk-test-canary-0123456789"


def run(command: str, *more: str, folder: Path, **env: str) -> subprocess.CompletedProcess[str]:
    return run_to_end(command, *more, folder=folder, env={"PATH": os.environ["PATH"], **env})


def check(folder: Path, exit_code: int, **env: str) -> list[str]:
    """Run it, and return its lines."""
    done = run("check", folder=folder, **env)
    assert done.returncode == exit_code, done.stdout + done.stderr
    assert "canary" not in done.stdout + done.stderr
    assert done.stderr == ""
    return done.stdout.splitlines()


@contextmanager
def answering(status: int, body: bytes, context: ssl.SSLContext | None = None) -> Iterator[str]:
    """A server that answers every GET so; gives its base URL."""

    class Models(Handler):
        def do_GET(self) -> None:
            assert self.path == "/v1/models"
            self.reply(status, body)

    with web_server(Models, tls=context) as port:
        yield f"{'https' if context else 'http'}://127.0.0.1:{port}/v1"


def test_all_is_well_and_nothing_was_paid(tmp_path: Path, upstream: ScriptedUpstream) -> None:
    with RedisServer() as redis:
        env = {"OPENAI_BASE_URL": upstream.base_url, "OPENAI_API_KEY": KEY, "CHAT_SSE_REDIS_URL": redis.url}
        lines = check(tmp_path, 0, **env, OPENAI_MODEL="scripted-model")
    assert lines[:2] == ["ok     the settings", "ok     Redis: usable"]
    assert f" {upstream.base_url}: " in lines[2]
    assert upstream.paid_calls == 0


def test_the_embedded_model_is_looked_for(tmp_path: Path) -> None:
    assert check(tmp_path, 0)[1] == "ok     the embedded model smollm2-135m-instruct: usable"
    [fault] = check(tmp_path, 2, CHAT_SSE_LOCAL_MODEL="/nowhere.gguf")
    assert fault.startswith("wrong  ")
    assert "/nowhere.gguf" in fault


def test_every_wrong_setting_is_told(tmp_path: Path) -> None:
    env = {"OPENAI_API_KEY": KEY, "CHAT_SSE_PORT": "canary", "CHAT_SSE_MODELS_FILE": "nowhere.toml"}
    lines = check(tmp_path, 2, **env)
    assert {line.split()[1] for line in lines} == {"CHAT_SSE_PORT", "CHAT_SSE_MODELS_FILE"}
    lines = check(
        tmp_path, 2, CHAT_SSE_DEFAULT_FORMAT="xml", CHAT_SSE_WORKERS="2", OPENAI_API_KEY=KEY, PATH="/nowhere"
    )
    assert [line.split()[1] for line in lines] == ["CHAT_SSE_DEFAULT_FORMAT", "several"]


@pytest.mark.parametrize(
    ("status", "body", "exit_code", "told"),
    [
        (200, {"data": [{"id": "gpt-4o-mini"}]}, 0, "ok     {}: usable"),
        (200, {"data": [{"id": "models/gpt-4o-mini"}]}, 0, "ok     {}: usable"),
        (200, {"data": []}, 0, "ok     {}: usable"),
        (200, {"data": [{"id": "a"}]}, 0, "note   {}: answers, and does not list gpt-4o-mini among"),
        (200, ["canary"], 0, "note   {}: answers, with something that is no list of models"),
        (401, {"error": "canary"}, 3, "wrong  {}: refuses the API key (401)"),
        (403, {}, 3, "wrong  {}: refuses the API key (403)"),
        (404, {}, 0, "note   {}: answers, and has no list of models (404): the key was not checked"),
        (500, {}, 3, "wrong  {}: answers its list of models with 500"),
    ],
)
def test_each_upstream_is_asked_for_its_models(
    tmp_path: Path, status: int, body: object, exit_code: int, told: str
) -> None:
    with answering(status, msgspec.json.encode(body)) as url:
        lines = check(tmp_path, exit_code, OPENAI_API_KEY=KEY, OPENAI_BASE_URL=url)
    assert lines[1].startswith(told.format(url))


def test_all_upstreams_of_a_models_file_are_asked(tmp_path: Path) -> None:
    with (
        answering(200, b'{"data":[{"id":"real-a"}]}') as good,
        answering(401, b"") as bad,
    ):
        (tmp_path / "models.toml").write_text(
            f'[a]\nmodel="real-a"\nbase_url="{good}"\n[b]\nbase_url="{bad}"\n'
            f'[c]\nbase_url="http://127.0.0.1:{free_port()}/v1"\n'
        )
        lines = check(tmp_path, 3, CHAT_SSE_MODELS_FILE="models.toml")
    assert lines[1] == f"ok     {good}: usable"
    assert lines[2] == f"wrong  {bad}: refuses the API key (401)"
    assert lines[3].endswith("/v1: cannot be reached")


def test_a_certificate_that_is_not_trusted_is_told_as_such(tmp_path: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    with answering(200, b"{}", context) as url:
        lines = check(tmp_path, 3, OPENAI_API_KEY=KEY, OPENAI_BASE_URL=url)
    assert lines[1].startswith(f"wrong  {url}: has a certificate that is not trusted here: ")


def test_a_redis_that_cannot_be_used_is_told(tmp_path: Path, upstream: ScriptedUpstream) -> None:
    env = {"OPENAI_BASE_URL": upstream.base_url}
    with RedisServer() as redis:
        for url, told in {
            redis.url.replace(PASSWORD, "wrong"): "refuses the user or the password",
            redis.url.replace(f":{PASSWORD}@", ""): "refuses the user or the password",
            redis.url.replace("/0", "/99"): "refuses the number of the database, or the command INFO",
            f"redis://127.0.0.1:{free_port()}": "cannot be reached",
        }.items():
            assert check(tmp_path, 3, **env, CHAT_SSE_REDIS_URL=url)[1] == f"wrong  Redis: {told}"
    with sentinel(tmp_path) as other:
        assert "in the mode sentinel" in check(tmp_path, 3, **env, CHAT_SSE_REDIS_URL=other.url)[1]


def printed(folder: Path, *arguments: str, **env: str) -> Mapping[str, tuple[str, str]]:
    """Return what is printed of each variable: its value, and where it comes from."""
    done = run(*arguments, "--print-config", folder=folder, **env)
    assert done.returncode == 0, done.stderr
    assert "canary" not in done.stdout
    pairs = (line.partition("=") for line in done.stdout.splitlines())
    return {name: (rest.partition(" # ")[0].rstrip(), rest.rpartition(" # ")[2]) for name, _, rest in pairs}


def test_each_setting_is_printed_with_where_it_was_set(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("CHAT_SSE_HEARTBEAT=3\nOPENAI_MODEL=small\nCHAT_SSE_PORT=1\n")
    found = printed(tmp_path, "--workers", "1", OPENAI_MODEL="large", PORT="2")
    assert list(found) == [variable(field) for field in Settings.__struct_fields__]
    assert found["OPENAI_MODEL"] == ("large", "environment")
    assert found["CHAT_SSE_HEARTBEAT"] == ("3", ".env")
    assert found["CHAT_SSE_WORKERS"] == ("1", "command line")
    assert found["CHAT_SSE_PORT"] == ("1", ".env")
    assert found["CHAT_SSE_MAX_STREAMS"] == ("1000", "default")
    (tmp_path / ".env").unlink()
    assert printed(tmp_path, PORT="2")["CHAT_SSE_PORT"] == ("2", "environment, PORT")


def test_no_secret_is_printed(tmp_path: Path) -> None:
    found = printed(
        tmp_path,
        OPENAI_API_KEY=KEY,
        OPENAI_BASE_URL="https://user:canary@host/v1?key=canary",
        CHAT_SSE_API_KEYS="web:canary-0123456789,app:canary-abcdefghij",
        CHAT_SSE_SECRET_KEY="canary-0123456789",
        CHAT_SSE_REQUEST_HEADERS='{"X-Key":"canary"}',
        CHAT_SSE_REQUEST_BODY='{"user":"canary"}',
        CHAT_SSE_REDIS_URL="redis://:canary@127.0.0.1:6379/0",
    )
    assert found["OPENAI_API_KEY"][0] == found["CHAT_SSE_SECRET_KEY"][0] == "***"
    assert found["OPENAI_BASE_URL"][0] == "https://***@host/v1?***"
    assert found["CHAT_SSE_API_KEYS"][0] == "web:***,app:***"
    assert found["CHAT_SSE_REQUEST_HEADERS"][0] == '{"X-Key": "***"}'
    assert found["CHAT_SSE_REDIS_URL"][0] == "redis://***@127.0.0.1:6379/0"


def test_wrong_settings_are_printed_and_then_told(tmp_path: Path) -> None:
    done = run("--print-config", folder=tmp_path, OPENAI_API_KEY=KEY, CHAT_SSE_PORT="many")
    assert done.returncode == 2
    assert "CHAT_SSE_PORT=many " in done.stdout
    assert done.stderr == "chat-sse: CHAT_SSE_PORT must be a port number, 0 to 65535\n"


def test_a_command_takes_no_options_of_the_server(tmp_path: Path) -> None:
    done = run("--print-config", "check", folder=tmp_path)
    assert done.returncode == 2
