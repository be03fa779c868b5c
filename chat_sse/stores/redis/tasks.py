"""The store's own tasks: started with a name, reported when they fail, cancelled until they end."""

import asyncio
import logging
from collections.abc import Coroutine, Sequence
from typing import Any

from chat_sse.stores.redis.lease import PROBE_SECONDS

log = logging.getLogger(__name__)


async def end(tasks: Sequence[asyncio.Task[None]]) -> None:
    """Cancel tasks until they have ended.

    Once may not do: before Python 3.12 `wait_for`, which redis-py sends with, swallows a cancellation that
    arrives together with its result (CPython issue 86296).
    """
    running = {task for task in tasks if not task.done()}
    while running:
        for task in running:
            task.cancel()
        _, running = await asyncio.wait(running, timeout=PROBE_SECONDS)


def spawn(work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
    """Return a started task. When it ends with an exception, that is logged."""

    def report(task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()):
            log.critical("store.crashed", extra={"fields": {"task": name}}, exc_info=error)

    task = asyncio.create_task(work, name=name)
    task.add_done_callback(report)
    return task
