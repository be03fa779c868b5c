"""A log whose producer may have been taken for dead: what it holds back, and for how long."""

from chat_sse.stores.base import LogSpec
from chat_sse.stores.redis.logs import ProducedLog
from tests.support.stores import STOPPED, deltas


async def test_a_log_that_others_have_ended_holds_nothing_more() -> None:
    noted: list[str] = []
    log = ProducedLog(LogSpec(stream_id="a"), lambda produced: noted.append(produced.id), lambda: True)
    assert log.append(deltas("held"))
    assert (log.length, noted) == (0, ["a"])
    log.overrule(STOPPED)
    assert not log.append(deltas("late"))
    assert not log.append_entry(b'{"type":"delta","content":"late"}')
    assert (log.length, noted) == (1, ["a"])


async def test_a_log_whose_end_is_held_is_sealed() -> None:
    log = ProducedLog(LogSpec(stream_id="a"), lambda _: None, lambda: True)
    told: list[None] = []
    log.on_stop = lambda: told.append(None)
    assert log.append(deltas("held"))
    assert log.stop(STOPPED)
    assert not log.stop(STOPPED)
    assert not log.append(deltas("late"))
    assert not log.append_entry(b'{"type":"delta","content":"late"}')
    log.confirm()
    assert (log.length, log.terminal, told) == (2, STOPPED, [None])


async def test_an_end_that_is_held_in_the_middle_of_an_append_is_one() -> None:
    log = ProducedLog(LogSpec(stream_id="a"), lambda _: None, lambda: True)
    assert log.append([*deltas("held"), STOPPED, *deltas("never appended")])
    assert not log.append(deltas("late"))
    log.confirm()
    assert (log.length, log.terminal) == (2, STOPPED)
