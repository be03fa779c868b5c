"""Real parts: a service process for each test module, and an upstream with a new script for each test."""

import os
import signal
from collections.abc import Iterator

import hypothesis
import pytest

from tests.support.ports import free_port
from tests.support.service import RunningService, serve
from tests.support.upstream import ScriptedUpstream

pytest_plugins = [
    "tests.support.tables",
    "tests.support.stores",
    "tests.support.counts",
    "tests.support.readers",
]

# How long an example takes says more about the machine than about the code.
hypothesis.settings.register_profile("suite", deadline=None)
hypothesis.settings.load_profile("suite")

# The long form: building the image takes five minutes.
collect_ignore = [] if "CHAT_SSE_TEST_CONTAINER" in os.environ else ["test_container.py"]

# The files that take longest begin first, so that the others run beside them and not after them.
LONGEST = (
    *("test_redis_service", "test_hostile", "test_install", "test_matrix"),
    *("test_rolling_restart", "test_jwks", "test_clients", "test_root_path"),
    *("test_real_servers", "test_collector", "test_event_source", "test_docs_pages", "test_bench"),
    *("test_openai_clients", "test_limits", "test_own_redis", "test_draining"),
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest files first. Their tests keep their order."""
    ranks = {name: rank for rank, name in enumerate(LONGEST)}
    items.sort(key=lambda item: ranks.get(item.path.stem, len(LONGEST)))


# A shell that runs the suite in the background has Ctrl-C ignored, and every program that a test starts would
# inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Deadlines short enough for a test to meet them, long enough for a slow machine not to.
QUICK = {
    "OPENAI_API_KEY": "sk-test-canary-0123456789",
    "CHAT_SSE_ACCEPT_WAIT": "2.5",
    "CHAT_SSE_FIRST_TOKEN_TIMEOUT": "4",
    "CHAT_SSE_IDLE_TIMEOUT": "4",
    "CHAT_SSE_DISCONNECT_GRACE": "0.5",
    "CHAT_SSE_SHUTDOWN_GRACE": "2",
    "CHAT_SSE_HEARTBEAT": "0.3",
}


@pytest.fixture(scope="module")
def upstream_port() -> int:
    """A free port that this module's upstreams listen on, one after the other."""
    return free_port()


@pytest.fixture
def upstream(upstream_port: int) -> Iterator[ScriptedUpstream]:
    """An upstream that does what the test says, with its own count of paid calls."""
    with ScriptedUpstream(port=upstream_port) as scripted:
        yield scripted


@pytest.fixture(scope="module")
def service(upstream_port: int) -> Iterator[RunningService]:
    """A service in front of the scripted upstreams, with short deadlines. Starting one takes a second."""
    with serve({**QUICK, "OPENAI_BASE_URL": f"http://127.0.0.1:{upstream_port}/v1"}) as running:
        yield running
