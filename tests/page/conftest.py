"""The chat page in a real Chromium, against the real service.

Each test leaves nothing behind: a new context is a new reader with an empty storage. Every page is watched
for requests to other hosts, faults in its console (CSP violations are such) and uncaught errors.
"""

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from playwright.sync_api import Browser, expect

from tests.conftest import QUICK
from tests.page.reader import DESKTOP, WAIT_MS, Reader, Visit
from tests.support.browser import chromium
from tests.support.service import RunningService, serve


@pytest.fixture(scope="module")
def service(upstream_port: int) -> Iterator[RunningService]:
    """A service whose deadlines outlast the two seconds that a client waits before it reconnects."""
    env = {
        **QUICK,
        "OPENAI_BASE_URL": f"http://127.0.0.1:{upstream_port}/v1",
        "CHAT_SSE_DISCONNECT_GRACE": "20",
        "CHAT_SSE_FIRST_TOKEN_TIMEOUT": "30",
        "CHAT_SSE_IDLE_TIMEOUT": "30",
    }
    with serve(env) as running:
        yield running


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    expect.set_options(timeout=WAIT_MS)
    with chromium() as running:
        yield running


@pytest.fixture
def visit(browser: Browser, service: RunningService) -> Iterator[Visit]:
    """Open the page for a new reader; at the end none may have met a fault."""
    readers: list[Reader] = []
    with ExitStack() as stack:

        def open_page(url: str = service.url, **options: Any) -> Reader:
            context = browser.new_context(**{"viewport": DESKTOP, **options})
            stack.callback(context.close)
            readers.append(Reader(context, url))
            return readers[-1]

        yield open_page
        for reader in readers:
            assert reader.faults == []
