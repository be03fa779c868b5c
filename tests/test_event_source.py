"""The browser's own EventSource, in a real Chromium, on a network that breaks.

The page is the shortest that is right: it makes up the question's id once and keeps it over a reload.
"""

import re
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Page

from chat_sse.formats.sse import HEARTBEAT
from tests.support.browser import chromium
from tests.support.long_answer import FIRST_CUT_BYTES, HALF, PATIENT, PIECES, SECOND_CUT_BYTES, TEXT, text_of
from tests.support.proxy import BadNetwork
from tests.support.service import RunningService, serve
from tests.support.tables import Matrix
from tests.support.upstream import Finish, Hold, Pause, Say, ScriptedUpstream
from tests.support.web import Handler, web_server

PATIENCE_MS = 30_000
# Longer than the two seconds after which the stream's `retry` sends EventSource back.
QUIET_MS = 2_500

PAGE = b"""<!doctype html>
<meta charset="utf-8">
<title>EventSource</title>
<link rel="icon" href="data:,">
<script>
  sessionStorage.id ??= crypto.randomUUID();
  const service = new URLSearchParams(location.search).get("service");
  const messages = [];
  let ended = false;
  const source = new EventSource(`${service}/ask?q=Hello!&id=${sessionStorage.id}`);
  source.onmessage = ({ lastEventId, data }) => messages.push({ id: lastEventId, data });
  source.onerror = () => (ended = source.readyState === EventSource.CLOSED);
</script>
"""


class Site(Handler):
    """Serves the page under any path."""

    def do_GET(self) -> None:
        self.reply(200, PAGE, **{"Content-Type": "text/html"})


@pytest.fixture(scope="module")
def site() -> Iterator[str]:
    """The origin of a web site that is not the service's."""
    with web_server(Site) as port:
        yield f"http://127.0.0.1:{port}"


@pytest.fixture(scope="module")
def service(upstream_port: int, site: str) -> Iterator[RunningService]:
    upstream_url = f"http://127.0.0.1:{upstream_port}/v1"
    with serve({**PATIENT, "OPENAI_BASE_URL": upstream_url, "ALLOWED_ORIGIN": site}) as process:
        yield process


@pytest.fixture
def network(service: RunningService) -> Iterator[BadNetwork]:
    with BadNetwork(service.url) as proxy:
        yield proxy


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as running:
        yield running


Open = Callable[[], Page]


@pytest.fixture(params=["same origin", "cross-origin"])
def open_page(
    request: pytest.FixtureRequest, browser: Browser, network: BadNetwork, site: str
) -> Iterator[Open]:
    """Open the page in a new profile. It talks to the service over the bad network."""
    origin = site if request.param == "cross-origin" else network.url

    def open_it() -> Page:
        page = context.new_page()
        if origin == network.url:  # the service has no such page; this one stands in its place
            page.route(re.compile("/page"), lambda route: route.fulfill(body=PAGE, content_type="text/html"))
        page.goto(f"{origin}/page?service={network.url}")
        return page

    with browser.new_context() as context:
        context.set_default_timeout(PATIENCE_MS)
        yield open_it


@pytest.fixture
def name(request: pytest.FixtureRequest, browser: Browser) -> str:
    """Name this client in the matrix."""
    where = request.node.callspec.params["open_page"]
    return f"EventSource, {where}, Chromium {browser.version}"


def messages(page: Page) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = page.evaluate("messages")
    return found


def finish(page: Page) -> str:
    """Wait until the browser has stopped for good, and give the text."""
    page.wait_for_function("ended")
    return text_of(messages(page))


def requests_for_answers(service: RunningService) -> int:
    return service.log().count(" path=/ask status=")


def test_a_whole_answer_ends_with_a_204_and_no_request_after_it(
    open_page: Open,
    service: RunningService,
    network: BadNetwork,
    upstream: ScriptedUpstream,
    matrix: Matrix,
    name: str,
) -> None:
    upstream.answer(*map(Say, PIECES[:HALF]), Pause(1), *map(Say, PIECES[HALF:]), Finish())
    before = requests_for_answers(service)
    page = open_page()
    assert finish(page) == TEXT
    page.wait_for_timeout(QUIET_MS)
    assert requests_for_answers(service) == before + 2  # the answer and its 204
    assert network.answered.count(b" 204 ") == 1
    assert network.answered.count(HEARTBEAT) >= 2
    matrix.record(name, "whole answer", upstream.paid_calls)
    assert upstream.paid_calls == 1


def test_a_reset_and_a_cut_in_the_middle_lose_and_repeat_nothing(
    open_page: Open, network: BadNetwork, upstream: ScriptedUpstream, matrix: Matrix, name: str
) -> None:
    gate = threading.Event()
    upstream.answer(*map(Say, PIECES[:HALF]), Hold(gate), *map(Say, PIECES[HALF:]), Finish())
    network.cut_next(after=FIRST_CUT_BYTES)
    network.cut_next(after=SECOND_CUT_BYTES, reset=False)
    page = open_page()
    network.wait_for_cuts(2)
    gate.set()
    assert finish(page) == TEXT
    matrix.record(name, "reset in the middle", upstream.paid_calls)
    assert upstream.paid_calls == 1


def test_a_reset_before_the_first_event_asks_once_all_the_same(
    open_page: Open, network: BadNetwork, upstream: ScriptedUpstream, matrix: Matrix, name: str
) -> None:
    upstream.answer(*map(Say, PIECES), Finish())
    network.cut_next(after=1)
    page = open_page()
    network.wait_for_cuts(1)
    assert finish(page) == TEXT
    matrix.record(name, "reset before the first event", upstream.paid_calls)
    assert upstream.paid_calls == 1


def test_a_reload_attaches_to_the_running_answer_by_its_id(
    open_page: Open, upstream: ScriptedUpstream, matrix: Matrix, name: str
) -> None:
    gate = threading.Event()
    upstream.answer(*map(Say, PIECES[:HALF]), Hold(gate), *map(Say, PIECES[HALF:]), Finish())
    page = open_page()
    page.wait_for_function(f"messages.length > {HALF}")
    page.reload()
    page.wait_for_function(f"messages.length > {HALF}")
    gate.set()
    assert finish(page) == TEXT
    matrix.record(name, "reload / re-ask", upstream.paid_calls)
    assert upstream.paid_calls == 1
