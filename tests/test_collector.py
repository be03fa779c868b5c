"""No answer is left to the garbage collector, however it ends: what it leaves would stay for minutes."""

import asyncio
import gc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import httpx2
import pytest

from chat_sse.relay.readers import Readers
from chat_sse.stores.base import Log, LogSpec
from chat_sse.stores.memory import MemoryStore
from tests.support import plain_http
from tests.support.redis_server import RedisServer
from tests.support.service import HELLO, serve
from tests.support.upstream import Eof, Finish, Refuse, Reset, Say, ScriptedUpstream, Silence


def read_one(client: httpx2.Client, url: str) -> None:
    assert client.post(url, json=HELLO).status_code in (200, 500, 504)


def leave(client: httpx2.Client, url: str) -> None:
    """Vanish in the middle of an answer."""
    with client.stream("POST", url, json=HELLO) as response:
        next(response.iter_raw())


def leave_text(client: httpx2.Client, url: str) -> None:
    """Vanish from a format that cannot resume."""
    with client.stream("POST", url, json=HELLO, headers={"Accept": "text/plain"}) as response:
        next(response.iter_raw())


def stop(client: httpx2.Client, url: str) -> None:
    accepted = client.post(url, json=HELLO, headers={"Prefer": "respond-async"})
    assert client.delete(str(url).removesuffix("/ask") + accepted.headers["location"]).status_code == 204


def attach(client: httpx2.Client, url: str) -> None:
    """Read an answer twice."""
    response = client.post(url, json=HELLO)
    client.get(str(url).removesuffix("/ask") + response.headers["content-location"])


@pytest.mark.parametrize("store", ["memory", "redis"])
@pytest.mark.parametrize(
    ("steps", "way"),
    [
        pytest.param([Say("Hi"), Say(" there"), Finish()], read_one, id="whole"),
        pytest.param([Say("Hi"), Say(" there"), Finish()], attach, id="read twice"),
        pytest.param([Say("Hi"), Silence()], leave, id="left"),
        pytest.param([Say("Hi"), Silence()], leave_text, id="left for good"),
        pytest.param([Say("Hi"), Silence()], stop, id="stopped"),
        pytest.param([Say("Hi"), Eof()], read_one, id="broken off"),
        pytest.param([Say("Hi"), Reset()], read_one, id="reset"),
        pytest.param([Refuse(400)], read_one, id="refused"),
        pytest.param([Say("Hi"), Silence()], read_one, id="silent"),
        pytest.param([Silence()], read_one, id="never accepted"),
    ],
)
def test_no_answer_is_left_to_the_garbage_collector(
    steps: list[Any],
    way: Callable[[httpx2.Client, str], None],
    store: str,
    upstream: ScriptedUpstream,
    upstream_port: int,
) -> None:
    questions = 80
    env = {
        "OPENAI_API_KEY": "sk-test",
        "OPENAI_BASE_URL": f"http://127.0.0.1:{upstream_port}/v1",
        "CHAT_SSE_DISCONNECT_GRACE": "0.05",
        "CHAT_SSE_ACCEPT_WAIT": "0.05",
        "CHAT_SSE_FIRST_TOKEN_TIMEOUT": "0.1",
        "CHAT_SSE_IDLE_TIMEOUT": "0.1",
    }
    upstream.answer(*steps)
    with ExitStack() as stack:
        if store == "redis":
            env["CHAT_SSE_REDIS_URL"] = stack.enter_context(RedisServer()).url
        service = stack.enter_context(serve(env, module="tests.support.uncollected"))
        client = stack.enter_context(plain_http.Client(timeout=20))
        way(client, f"{service.url}/ask")  # alone: four would each miss Redis's scripts
        pool = stack.enter_context(ThreadPoolExecutor(4))  # most ways wait for a deadline
        list(pool.map(lambda _: way(client, f"{service.url}/ask"), range(questions - 1)))
        assert service.terminate() == 0
        told = service.wait_for_log(r"objects left: .*")
    assert int(told.split(",")[0].rpartition(" ")[2]) < questions, told


class SlowStore(MemoryStore):
    """One that other processes share, and that takes its time to tell of them."""

    def __init__(self) -> None:
        super().__init__(ttl_seconds=60, max_kept=10, max_kept_bytes=1_000_000)
        self.asked = asyncio.Event()

    async def idle_elsewhere(self, log: Log) -> float:  # noqa: ARG002
        self.asked.set()
        await asyncio.sleep(60)
        return 0.0


async def test_an_answer_that_ends_while_its_readers_elsewhere_are_counted_is_not_left_either() -> None:
    store = SlowStore()
    log = await store.create(LogSpec(stream_id="a" * 32))
    assert log is not None
    gc.collect()
    gc.disable()
    try:
        readers = Readers(log, store, 0.0, lambda: None)
        with readers.reading(resumes=False, resumable=False):
            pass
        await asyncio.wait_for(store.asked.wait(), 5)
        readers.close()
        del readers
        await asyncio.sleep(0.1)  # the cancelled count ends
        assert not any(type(one) is Readers for one in gc.get_objects())
    finally:
        gc.enable()
