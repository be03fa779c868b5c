"""The log, driven in random orders: what `stores/base.py` promises, as one model for every store.

Producers append, finish, fail and forget; readers join at any cursor, by id, key and chat, take what they are
offered or lag behind, and leave; anybody stops; logs expire; processes crash, freeze until others take over,
and lose their connections; Redis lags. After each step every reader has a piece of what was appended, and in
the end all agree on one end. Longer, and with other orders each time: `CHAT_SSE_TEST_EXAMPLES=20`.
"""

from __future__ import annotations

import os
import secrets
import time
import traceback
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    invariant,
    multiple,
    precondition,
    rule,
    run_state_machine_as_test,
)

from chat_sse.errors import KeyReused, StreamNotFound, UpstreamTimeout
from chat_sse.events import Delta, Done, Event, failure, is_terminal, new_stream_id
from chat_sse.stores.base import PRODUCER_GONE, Log, LogSpec, Store
from chat_sse.stores.redis.lease import LEASE_SECONDS
from tests.support.log_model import Answer, Reader, Sites, encode, in_ascii, patiently
from tests.support.redis_server import RedisServer
from tests.support.service import until
from tests.support.site import SPEED, MemorySite, Process, RedisSite, Site

TIMES = int(os.environ.get("CHAT_SSE_TEST_EXAMPLES", "1"))
FAILED = failure(UpstreamTimeout("too late"), "r1")
wheres = st.integers(0, 2)
keys = st.sampled_from(["a", "b"])
prints = st.sampled_from([b"f", b"f", b"g"])
words = st.lists(st.text(min_size=1, max_size=3), min_size=1, max_size=3)


def when(condition: Callable[[Answer], bool]) -> Callable[[Any], Any]:
    """A step that takes its time is worth it only while there is such an answer."""
    return precondition(lambda logs: any(condition(answer) for answer in logs.all))


def is_running(answer: Answer) -> bool:
    return answer.end is None and not answer.is_crashed and not answer.is_gone


def is_read(answer: Answer) -> bool:
    return is_running(answer) and any(not reader.is_over for reader in answer.readers)


def step(**strategies: Any) -> Callable[[Callable[..., Any]], Any]:
    """A rule. When it fails its site is given up and its story told: a second try may go otherwise."""

    def decorate(function: Callable[..., Any]) -> Any:
        @wraps(function)
        def run(self: Logs, **arguments: Any) -> Any:
            self.trail.append(f"{function.__name__} {arguments}")
            try:
                return function(self, **arguments)
            except BaseException:
                self.has_failed = True
                traceback.print_exc()
                print("after", *self.trail, sep="\n  ")  # noqa: T201 - pytest shows it
                raise

        return rule(**strategies)(run)  # type: ignore[no-untyped-call]

    return decorate


class Logs(RuleBasedStateMachine):
    """The model, and the steps."""

    answers: Bundle[Answer] = Bundle("answers")
    readers: Bundle[Reader] = Bundle("readers")

    def __init__(self, sites: Sites) -> None:
        super().__init__()
        self.site = sites.take()
        self._sites = sites
        self.trail: list[str] = []
        self.has_failed = False
        self.all: list[Answer] = []
        self.claims: dict[str, Answer] = {}
        self.chats: dict[str, Answer] = {}
        self._run = secrets.token_hex(4)  # logs of other examples are in the same store

    # Steps.

    @step(target=answers, where=wheres, key=st.none() | keys, fingerprint=prints, chat=st.none() | keys)
    def create(self, where: int, key: str | None, fingerprint: bytes, chat: str | None) -> Any:
        process = self.process(where)
        key, chat = (name and f"{self._run} {name}" for name in (key, chat))
        holder = self.claims.get(key) if key else None
        tried: list[LogSpec] = []

        def create() -> Log | None:
            spec = LogSpec(
                stream_id=new_stream_id(), idempotency_key=key, fingerprint=fingerprint, chat_id=chat
            )
            tried.append(spec)
            return process.create(spec)

        if holder is not None:
            if holder.spec.fingerprint == fingerprint:
                assert patiently(create) is None
            else:
                with pytest.raises(KeyReused):
                    patiently(create)
            return multiple()
        log = patiently(create)
        assert log is not None
        answer = Answer(tried[-1], process, log)

        def tell() -> None:
            answer.told += 1

        log.on_stop = tell
        self.all.append(answer)
        if key:
            self.claims[key] = answer
        if chat:
            self.chats[chat] = answer
        return answer

    @step(answer=answers, texts=words, alone=st.booleans(), times=st.sampled_from([1, 1, 1, 400]))
    def append(self, answer: Answer, texts: list[str], alone: bool, times: int) -> None:
        deltas = [Delta(text) for text in texts * times]
        if alone:
            for delta in deltas:
                self.appended(answer, [delta], answer.log.append_entry, encode(delta))
        else:
            self.appended(answer, deltas, answer.log.append, deltas)

    @step(answer=answers, texts=words)
    def finish(self, answer: Answer, texts: list[str]) -> None:
        self.end(answer, texts, Done(finish_reason="stop"))

    @step(answer=answers)
    def fail_and_discard(self, answer: Answer) -> None:
        if answer.is_crashed or answer.is_gone or answer.end is not None:
            return
        for reader in answer.readers:  # one that has not opened it yet may find nothing
            until(lambda reader=reader: reader.is_over or reader.has_opened)  # type: ignore[misc]
        self.end(answer, ["x"], FAILED)
        answer.home.run(answer.home.store.discard(answer.log))
        self.forget(answer)

    @step(answer=answers, where=wheres, number=st.integers(0, 9))
    def stop(self, answer: Answer, where: int, number: int) -> None:
        process, event = self.process(where), Done(finish_reason=f"stopped {number}")
        tries: list[None] = []

        def seal() -> bool:
            tries.append(None)
            return process.run(process.store.seal(answer.spec.stream_id, event))

        if answer.is_gone:
            with pytest.raises(StreamNotFound):
                patiently(seal)
            return
        has_sealed, was_running = patiently(seal), answer.end is None
        if has_sealed:
            assert was_running
            self.note_end(answer, encode(event))
        elif was_running and not answer.is_shaken:
            assert len(tries) > 1  # an earlier one has done it
            self.learn_end(answer, process, encode(event))
        if not answer.is_crashed and not answer.is_shaken:
            is_exact = patiently(lambda: process.run(_extent(process.store, answer.spec.stream_id))).is_exact
            answer.is_shaken = not is_exact  # its producer did not answer in time
            assert answer.is_shaken or not answer.home.call(answer.log.append, [Delta("never")])
            if was_running and not answer.is_shaken:
                assert answer.told == 1

    @step(
        target=readers,
        answer=answers,
        where=wheres,
        after=st.integers(-1, 9),
        refuses=st.integers(0, 3),
        lag=st.sampled_from([0, 0, 0.05]),
    )
    def read(self, answer: Answer, where: int, after: int, refuses: int, lag: float) -> Any:
        process = self.process(where)
        if answer.is_gone:
            with pytest.raises(StreamNotFound):
                patiently(lambda: process.run(process.store.open(answer.spec.stream_id)))
            return multiple()
        reader = Reader(answer, process, after, refuses, lag)
        answer.readers.append(reader)
        return reader

    @step(reader=readers)
    def leave(self, reader: Reader) -> None:
        if not reader.is_over:
            reader.leave()

    @step(where=wheres, name=keys, fingerprint=st.none() | prints)
    def look_up(self, where: int, name: str, fingerprint: bytes | None) -> None:
        store, name = self.process(where).store, f"{self._run} {name}"
        self.finds(where, lambda: store.find_chat(name), self.chats.get(name))
        holder = self.claims.get(name)
        if holder is not None and fingerprint not in (None, holder.spec.fingerprint):
            with pytest.raises(KeyReused):
                self.finds(where, lambda: store.find_key(name, fingerprint), holder)
        else:
            self.finds(where, lambda: store.find_key(name, fingerprint), holder)

    @when(lambda answer: answer.end is not None and not answer.is_gone)
    @step()
    def expire(self) -> None:
        for answer in self.all:
            if answer.is_shaken and answer.end is None and not answer.is_gone:
                self.settle(answer)
        ended = [answer for answer in self.all if answer.end is not None and not answer.is_gone]
        for answer in ended:
            for reader in answer.readers:
                reader.wait()
            for process in self.site.processes:
                self.whole(answer, process)
        self.site.expire()
        for answer in ended:
            self.forget(answer)
            for process in self.site.processes:
                until(lambda process=process, answer=answer: self.is_unknown(answer, process))  # type: ignore[misc]

    @when(is_running)
    @step(where=wheres)
    def crash(self, where: int) -> None:
        process = self.process(where)
        self.site.crash(where)
        for answer in self.all:
            if answer.home is process and not answer.is_crashed:
                answer.is_crashed = True
                answer.is_shaken = True
                if answer.end is not None and not answer.is_gone and self.site.is_shared:
                    self.learn_end(answer, self.process(where), answer.end)  # it may not have got that far
            if not self.site.is_shared:
                self.forget(answer)

    @when(is_read)
    @step(where=wheres, texts=words)
    def freeze_until_taken_for_dead(self, where: int, texts: list[str]) -> None:
        process = self.process(where)
        running = [a for a in self.all if a.home is process and a.end is None and not a.is_crashed]
        abandoned = [r for a in running for r in a.readers if r.where is not process and not r.is_over]
        thaw = process.freeze()
        self.site.lose_lease(where)
        for answer in running:
            if any(reader in answer.readers for reader in abandoned):
                answer.is_shaken = True
            answer.entries += [in_ascii(Delta(text)) for text in texts]
            process.loop.call_soon_threadsafe(answer.log.append, [Delta(text) for text in texts])
        if self.site.is_shared:
            until(lambda: all(reader.is_over for reader in abandoned))  # by their end, which others wrote
            time.sleep(LEASE_SECONDS / SPEED if running else 0)  # its own lease, by its own clock
        thaw()
        process.call(lambda: None)

    @when(is_running)
    @step(where=wheres)
    def cut(self, where: int) -> None:
        self.site.cut(where % len(self.site.processes))

    @when(is_read)
    @step(milliseconds=st.sampled_from([20, 100, 500]))
    def lag(self, milliseconds: int) -> None:
        self.site.lag(milliseconds)

    @invariant()
    def what_was_read_is_a_piece_of_what_was_appended(self) -> None:
        for answer in self.all:
            for reader in answer.readers:
                answer.check(list(reader.found), reader.after)

    def teardown(self) -> None:
        if self.has_failed:
            return
        for answer in self.all:
            if answer.end is None and not answer.is_crashed:
                self.end(answer, ["last"], Done(finish_reason="length"))
        for answer in self.all:
            if not answer.is_gone:
                wholes = [self.whole(answer, process) for process in self.site.processes]
                assert wholes.count(wholes[0]) == len(wholes)
            for reader in answer.readers:
                reader.wait()
            assert answer.told <= 1
        self._sites.give_back()

    # Parts of steps.

    def process(self, where: int) -> Process:
        return self.site.processes[where % len(self.site.processes)]

    def appended(
        self, answer: Answer, deltas: list[Delta], append: Callable[..., bool], what: bytes | Sequence[Event]
    ) -> bool:
        """Append, unless its process is gone. It must succeed just when nobody has ended the log."""
        if answer.is_crashed:
            return False
        accepted = answer.home.call(append, what)
        assert accepted == (answer.end is None) or answer.is_shaken
        if accepted:
            answer.entries += map(in_ascii, deltas)
        return accepted

    def end(self, answer: Answer, texts: list[str], event: Done | Any) -> None:
        deltas = [Delta(text) for text in texts]
        if self.appended(answer, deltas, answer.log.append, [*deltas, event, Delta("never")]):
            self.note_end(answer, encode(event))
            assert not answer.home.call(answer.log.append, [Delta("never")]) or answer.is_shaken

    def note_end(self, answer: Answer, entry: bytes) -> None:
        """Note a terminal entry that was taken. Of a shaken log it may be overruled."""
        if answer.is_shaken:
            answer.possible_ends.append(entry)
        else:
            answer.end = entry

    def settle(self, answer: Answer) -> None:
        """End what others may have ended already, or may be about to: it expires from then on."""
        process = next(process for process in self.site.processes if process is not answer.home)
        event = Done(finish_reason="settled")
        patiently(lambda: process.run(process.store.seal(answer.spec.stream_id, event)))
        self.learn_end(answer, process, encode(event), *answer.possible_ends)

    def learn_end(self, answer: Answer, process: Process, *expected: bytes) -> None:
        """Look how it has ended: as expected, or because its producer is gone."""
        reader = Reader(answer, process, -1, 0, 0)
        until(lambda: reader.is_over)
        answer.end = reader.found[-1]
        assert answer.end in expected or PRODUCER_GONE.encode() in answer.end
        answer.check(reader.found)

    def forget(self, answer: Answer) -> None:
        answer.is_gone = True
        for names in (self.claims, self.chats):
            for name in [name for name, there in names.items() if there is answer]:
                del names[name]

    def finds(self, where: int, find: Callable[[], Any], expected: Answer | None) -> None:
        process = self.process(where)
        try:
            found = patiently(lambda: process.run(find())).id
        except StreamNotFound:
            found = None
        assert found == (expected and expected.spec.stream_id)

    def is_unknown(self, answer: Answer, process: Process) -> bool:
        try:
            patiently(lambda: process.run(process.store.open(answer.spec.stream_id)))
        except StreamNotFound:
            return True
        return False

    def whole(self, answer: Answer, process: Process) -> list[bytes]:
        """Read it all, as somebody who comes now."""
        reader = Reader(answer, process, -1, 0, 0)
        reader.wait()
        assert is_terminal(reader.found[-1])
        return reader.found


async def _extent(store: Store, stream_id: str) -> Any:
    return await (await store.open(stream_id)).extent()


def run(start: Callable[[], Site], examples: int, *phases: Phase) -> None:
    sites = Sites(start)
    try:
        run_state_machine_as_test(
            lambda: Logs(sites),  # type: ignore[arg-type] # any factory will do
            settings=settings(
                max_examples=examples * TIMES,
                stateful_step_count=30,
                derandomize=TIMES == 1,
                database=None,
                phases=phases,
                suppress_health_check=list(HealthCheck),
            ),
        )
    finally:
        sites.close()


@pytest.mark.timeout(60 * TIMES)
def test_memory_keeps_to_the_model() -> None:
    run(MemorySite, 100, Phase.generate, Phase.shrink)


@pytest.mark.timeout(60 * TIMES)
def test_redis_keeps_to_the_model() -> None:
    with RedisServer() as server:
        run(lambda: RedisSite(server), 15, Phase.generate)  # too slow to look for a shorter way
