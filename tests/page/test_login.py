"""The page where visitors log in somewhere else: a session's cookie, and the way to the login and back."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from urllib.parse import parse_qs, urlsplit

import pytest
from playwright.sync_api import expect

from tests.conftest import QUICK
from tests.page.reader import Reader, Visit, check
from tests.support.ports import free_port
from tests.support.service import RunningService, serve
from tests.support.tokens import SECRET, token
from tests.support.upstream import Finish, Say, ScriptedUpstream
from tests.support.web import Handler, web_server

OTHER_HOST = "a request to another host"


class LoginServer:
    """A site's login, which asks nothing and lets everybody in, or nobody."""

    def __init__(self, port: int) -> None:
        self.lets_in = True
        self.visits: list[str] = []
        owner = self

        class Login(Handler):
            def do_GET(self) -> None:
                [back] = parse_qs(urlsplit(self.path).query)["next"]
                owner.visits.append(back)
                self.send_response(303)
                self.send_header("Location", back)
                if owner.lets_in:  # a cookie belongs to a host with all its ports
                    session = token(key=None, aud=None)
                    self.send_header("Set-Cookie", f"session={session}; Path=/; HttpOnly; SameSite=Lax")
                self.end_headers()

        self._server = web_server(Login, port=port)

    @contextmanager
    def running(self) -> Iterator["LoginServer"]:
        with self._server:
            yield self


@pytest.fixture(scope="module")
def login_port() -> int:
    return free_port()


@pytest.fixture
def login(login_port: int) -> Iterator[LoginServer]:
    with LoginServer(login_port).running() as running:
        yield running


@pytest.fixture(scope="module")
def site(upstream_port: int, login_port: int) -> Iterator[RunningService]:
    env = {
        **QUICK,
        "OPENAI_BASE_URL": f"http://127.0.0.1:{upstream_port}/v1",
        "CHAT_SSE_JWT_KEY": SECRET,
        "CHAT_SSE_JWT_COOKIE": "session",
        "CHAT_SSE_LOGIN_URL": f"http://127.0.0.1:{login_port}/login?next={{url}}",
    }
    with serve(env) as running:
        yield running


@pytest.fixture
def come(visit: Visit, site: RunningService) -> Iterator[Callable[[], Reader]]:
    """A visitor, who meets no fault but the login's own host."""
    readers: list[Reader] = []

    def open_page() -> Reader:
        readers.append(visit(site.url))
        return readers[-1]

    yield open_page
    for reader in readers:
        reader.faults[:] = [fault for fault in reader.faults if not fault.startswith(OTHER_HOST)]


def test_a_stranger_is_sent_to_the_login_and_the_question_is_asked_on_the_way_back(
    come: Callable[[], Reader], login: LoginServer, upstream: ScriptedUpstream
) -> None:
    upstream.answer(Say("Welcome."), Finish())
    reader = come()
    reader.ask("Do you know me?")
    expect(reader.prose).to_have_text("Welcome.")
    reader.wait_for_end()
    assert len(login.visits) == 1
    assert reader.page.url == login.visits[0]
    assert len(reader.page.locator(".turn").all()) == 1
    reader.ask("And now?")
    reader.wait_for_end()
    expect(reader.page.get_by_label("This service asks for a key")).to_be_hidden()
    assert (len(login.visits), upstream.paid_calls) == (1, 2)


def test_a_login_that_lets_nobody_in_is_visited_once_and_then_offered(
    come: Callable[[], Reader], login: LoginServer, upstream: ScriptedUpstream
) -> None:
    login.lets_in = False
    reader = come()
    reader.ask("Do you know me?")
    offer = reader.button("Log in")
    expect(offer).to_be_visible()
    expect(reader.page.locator(".failure")).to_contain_text("Please log in")
    expect(reader.page.get_by_label("This service asks for a key")).to_be_hidden()
    check(reader, "login")
    assert (len(login.visits), upstream.calls) == (1, [])
    login.lets_in = True
    upstream.answer(Say("Welcome."), Finish())
    offer.click()
    expect(reader.prose).to_have_text("Welcome.")
    assert (len(login.visits), upstream.paid_calls) == (2, 1)


def test_a_visitor_with_a_session_is_asked_nothing(
    come: Callable[[], Reader], login: LoginServer, upstream: ScriptedUpstream, site: RunningService
) -> None:
    upstream.answer(Say("Hello, Ada."), Finish())
    reader = come()
    session = token(key=None, aud=None)
    reader.context.add_cookies([{"name": "session", "value": session, "url": site.url, "httpOnly": True}])
    reader.ask("Hello!")
    expect(reader.prose).to_have_text("Hello, Ada.")
    assert (login.visits, upstream.paid_calls) == ([], 1)
