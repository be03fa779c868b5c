"""An event loop whose clock a test moves by waiting: an hour of deadlines takes milliseconds.

When nothing is ready to run, the clock jumps to the next timer instead of waiting for it. All that reads
`loop.time()` follows it: `asyncio.sleep`, `asyncio.timeout`, `call_later`. What is outside of the loop does
not: other processes, `time.time()`. So it is for tests without real sockets.
"""

import asyncio
import selectors
from typing import Any

# What a thread of this process may take; after that, nothing will ever happen, and the test is told so.
HANG_SECONDS = 5.0
# A test that gets here waits for something that does not come, while a timer runs for ever.
END_OF_TIME = 400 * 86_400.0
# Deadlines are set to the loop's clock plus a number: one that begins at 0 would hide a missing clock.
BEGIN_SECONDS = 1_000.0


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """An event loop that never waits for its timers."""

    def __init__(self) -> None:
        self._now = BEGIN_SECONDS
        self._faults: list[dict[str, Any]] = []
        super().__init__(_JumpingSelector(self))

    def time(self) -> float:
        """Return the virtual time, in seconds."""
        return self._now

    def timers(self) -> list[asyncio.TimerHandle]:
        """Return the timers that are set."""
        return [timer for timer in self._scheduled if not timer.cancelled()]  # type: ignore[attr-defined]

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Remember what a callback or a forgotten task has raised: the test fails for it."""
        self._faults.append(context)

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:  # noqa: ARG002
        """Wait for the threads in real time: the bound that Python 3.12 gives would be jumped over."""
        await super().shutdown_default_executor()

    def close(self) -> None:
        """Close it. Raises AssertionError for what was raised where nobody could catch it."""
        super().close()
        faults, self._faults = self._faults, []
        assert not faults, faults

    def settle(self) -> None:
        """Called before the clock jumps: wait for what others still have to do at this moment."""

    def jump(self, seconds: float) -> None:
        """Move the clock to the next timer. Raises RuntimeError at the end of time."""
        self._now += seconds
        if self._now > END_OF_TIME:
            raise RuntimeError("the test waits for something that does not come")


class _JumpingSelector(selectors.DefaultSelector):
    def __init__(self, loop: VirtualTimeLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[Any]:
        """Return what is ready; with nothing ready, let the clock jump instead of waiting."""
        ready: list[Any] = super().select(HANG_SECONDS if timeout is None else 0)
        if not ready and timeout:
            self._loop.settle()
            ready = super().select(0)
        if not ready:
            if timeout is None:
                raise RuntimeError("nothing will ever happen: there is no timer, and nothing is ready")
            self._loop.jump(max(timeout, 0))
        return ready
