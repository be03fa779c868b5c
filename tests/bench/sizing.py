"""What an answer asks of Redis and of the network: `python -m tests.bench.sizing`.

The workload is the benchmark's, 64 deltas, one each 20 ms, and answers of four times as many: once with all
readers beside the producer, and once with all in another process.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import httpx2
import redis

from tests.support.redis_server import RedisServer
from tests.support.service import HELLO, RunningService, serve
from tests.support.upstream import Finish, Pause, Say, ScriptedUpstream

ANSWERS, AT_ONCE = 200, 50
DELTAS = (64, 256)
PACE_SECONDS = 0.02
# Around the bytes of one write: Ethernet, IPv4 and TCP with timestamps.
FRAME_BYTES = 66
COLUMNS = ("commands", "scripts", "bytes in", "bytes out", "bytes kept", "Redis us", "to client")


def main() -> None:
    """Measure, and print a table."""
    with ExitStack() as stack:
        upstream = stack.enter_context(ScriptedUpstream())
        server = stack.enter_context(RedisServer())
        env = {
            "OPENAI_API_KEY": "none",
            "OPENAI_BASE_URL": upstream.base_url,
            "CHAT_SSE_REDIS_URL": server.url,
        }
        left, right = (stack.enter_context(serve(env)) for _ in range(2))
        client = redis.Redis.from_url(server.url)
        report(f"{'per answer':<26}", *(f"{name:>11}" for name in COLUMNS))
        for deltas in DELTAS:
            words = (step for _ in range(deltas) for step in (Say(" word"), Pause(PACE_SECONDS)))
            upstream.answer(*words, Finish())
            for where, read in (("beside", beside), ("elsewhere", elsewhere)):
                figures = measured(client, lambda read=read: read(left, right))  # type: ignore[misc]
                figures[-1] += FRAME_BYTES * deltas
                report(
                    f"{f'{deltas} deltas, read {where}':<26}", *(f"{math.ceil(one):>11}" for one in figures)
                )


def report(*columns: str) -> None:
    """Print a row."""
    print(*columns)  # noqa: T201 - it is a command


def beside(left: RunningService, _: RunningService) -> int:
    """Ask and read in one process; returns the bytes of the body."""
    return len(httpx2.post(f"{left.url}/ask", json=HELLO, timeout=60).content)


def elsewhere(left: RunningService, right: RunningService) -> int:
    """Ask in one process and read in another."""
    asked = httpx2.post(f"{left.url}/ask", json=HELLO, timeout=60, headers={"Prefer": "respond-async"})
    return len(httpx2.get(f"{right.url}{asked.headers['location']}", timeout=60).content)


def measured(client: redis.Redis, read: Callable[[], int]) -> list[float]:
    """Read many answers, and return what each has added to Redis's counts, and its bytes to the client."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(lambda _: read(), range(AT_ONCE)))  # connections, scripts, heads
        before = _counts(client)
        sizes = list(pool.map(lambda _: read(), range(ANSWERS)))
    after = _counts(client)
    figures = [(late - early) / ANSWERS for early, late in zip(before, after, strict=True)]
    return [*figures, sum(sizes) / ANSWERS]


def _counts(client: redis.Redis) -> tuple[float, ...]:
    stats, memory, cpu = client.info("stats"), client.info("memory"), client.info("cpu")
    scripts = client.info("commandstats").get("cmdstat_evalsha", {}).get("calls", 0)
    return (
        stats["total_commands_processed"],
        scripts,
        stats["total_net_input_bytes"],
        stats["total_net_output_bytes"],
        memory["used_memory_dataset"],
        1e6 * (cpu["used_cpu_user"] + cpu["used_cpu_sys"]),
    )


if __name__ == "__main__":
    main()
