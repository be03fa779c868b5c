"""A proxy that logs people in: nginx as the README shows it, and a small authority for oauth2-proxy."""

import re
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.conftest import QUICK
from tests.support import plain_http
from tests.support.nginx import run_nginx
from tests.support.ports import free_port
from tests.support.readme import README, code_block
from tests.support.service import HELLO, RunningService, ask, events, serve, text_of
from tests.support.streams import streaming
from tests.support.tokens import token
from tests.support.upstream import Finish, Hold, Say, ScriptedUpstream
from tests.support.web import Handler, web_server

FORGED = {"X-Forwarded-User": "admin", "X-Auth-Request-User": "admin", "Remote-User": "admin"}


class Authority(Handler):
    """Knows people by a cookie that holds their name, as oauth2-proxy does by one that it can read."""

    def do_GET(self) -> None:
        found = re.search(r"_oauth2_proxy=(\w+)", self.headers.get("Cookie", ""))
        if self.path == "/oauth2/auth" and found:
            self.reply(202, b"", **{"X-Auth-Request-User": found[1]})
        else:
            self.reply(401 if self.path == "/oauth2/auth" else 200, b"log in here")


@pytest.fixture(scope="module")
def behind(
    upstream_port: int, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[RunningService, str]]:
    """The service with the README's settings, and the address of the README's nginx before it."""
    settings = dict(line.split("=", 1) for line in code_block("sh", "CHAT_SSE_USER_HEADER=").splitlines())
    env = {**QUICK, **settings, "OPENAI_BASE_URL": f"http://127.0.0.1:{upstream_port}/v1"}
    port, folder = free_port(), tmp_path_factory.mktemp("nginx")
    with ExitStack() as stack:
        service = stack.enter_context(serve(env))
        authority = stack.enter_context(web_server(Authority))
        config = code_block("nginx", "auth_request")
        for shown, real in (
            ("listen 80;", f"listen 127.0.0.1:{port};"),
            ("http://127.0.0.1:8000", service.url),
            ("127.0.0.1:4180", f"127.0.0.1:{authority}"),
        ):
            assert shown in config
            config = config.replace(shown, real)
        yield service, stack.enter_context(run_nginx(Path(folder), config, port))


def of(who: str) -> dict[str, str]:
    return {"Cookie": f"_oauth2_proxy={who}"}


def test_people_whom_the_proxy_knows_ask_and_own_their_answers(
    behind: tuple[RunningService, str], upstream: ScriptedUpstream
) -> None:
    service, url = behind
    upstream.answer(Say("Hi"), Finish())
    answer = ask(url, headers=of("ada"))
    assert text_of(events(answer)) == "Hi"
    path = answer.headers["content-location"]
    assert plain_http.get(url + path, headers=of("ada")).content == answer.content
    assert plain_http.get(url + path, headers=of("bob")).status_code == 404
    assert text_of(events(plain_http.get(f"{url}/ask?q=Hi", headers=of("bob")))) == "Hi"
    service.wait_for_log("path=/ask status=200 client=proxy:bob")
    assert upstream.paid_calls == 2


def test_events_arrive_one_by_one_behind_it(
    behind: tuple[RunningService, str], upstream: ScriptedUpstream
) -> None:
    gate = threading.Event()
    upstream.answer(Say("Hel"), Hold(gate), Say("lo"), Finish())
    with streaming("POST", f"{behind[1]}/ask", json=HELLO, headers=of("ada")) as stream:
        stream.wait_for(b"Hel")
        gate.set()
        assert stream.last_event()["finish_reason"] == "stop"


def test_nobody_names_himself(behind: tuple[RunningService, str], upstream: ScriptedUpstream) -> None:
    _, url = behind
    assert plain_http.get(f"{url}/me", headers={**of("ada"), **FORGED}).json()["name"] == "ada"
    for headers in (FORGED, {**FORGED, "X-Forwarded-For": "127.0.0.1"}):
        response = ask(url, headers=headers)
        assert (response.status_code, response.json()["accepts"]) == (401, ["proxy"])
        assert plain_http.get(f"{url}/me", headers=headers).status_code == 401
    assert upstream.calls == []


def test_a_stranger_gets_the_page_and_is_told_where_to_log_in(behind: tuple[RunningService, str]) -> None:
    _, url = behind
    assert "<!doctype html>" in plain_http.get(f"{url}/").text.lower()
    told = plain_http.get(f"{url}/me").json()
    assert (told["error"], told["login_url"]) == ("unauthenticated", "/oauth2/start?rd={url}")
    assert plain_http.get(f"{url}/oauth2/start?rd=/").text == "log in here"
    assert plain_http.get(f"{url}/oauth2/auth").status_code == 404  # for nginx alone


def test_a_foreign_page_asks_nothing_with_what_its_visitors_browser_sends(
    behind: tuple[RunningService, str], upstream: ScriptedUpstream
) -> None:
    _, url = behind
    for foreign in ({"Origin": "https://evil.example"}, {"Sec-Fetch-Site": "cross-site"}):
        headers = {**of("ada"), **foreign}
        assert ask(url, headers=headers).status_code == 403
        assert plain_http.get(f"{url}/ask?q=Hi", headers=headers).status_code == 403
        assert plain_http.get(f"{url}/me", headers=headers).status_code == 403
    assert upstream.calls == []


def test_the_cookies_example_starts(upstream: ScriptedUpstream) -> None:
    shown = dict(line.split("=", 1) for line in code_block("sh", "CHAT_SSE_JWT_COOKIE=").splitlines())
    assert f"Set-Cookie: {shown['CHAT_SSE_JWT_COOKIE']}=<token>;" in README
    with serve({**QUICK, **shown, "OPENAI_BASE_URL": upstream.base_url}) as service:
        session = token(key=None, secret=shown["CHAT_SSE_JWT_KEY"], aud=None)
        assert ask(service.url, headers={"Cookie": f"session={session}"}).status_code == 200
