"""The scripted upstream's resets: a RST, wherever it comes, which takes nothing away that was said before."""

import select
import threading

import pytest

from tests.support.upstream import Hold, Reset, Say, ScriptedUpstream
from tests.test_upstream import dial, read_to_end, read_until


def test_a_reset_is_a_rst_before_the_head(upstream: ScriptedUpstream) -> None:
    upstream.answer(Reset())
    with dial(upstream) as client, pytest.raises(ConnectionResetError):
        client.recv(1)
    assert upstream.calls[0].wait_finished()
    assert upstream.paid_calls == 1


def test_a_reset_is_a_rst_in_the_middle_of_the_body(upstream: ScriptedUpstream) -> None:
    gate = threading.Event()
    upstream.answer(Say("Hel"), Hold(gate), Reset())
    with dial(upstream) as client:
        read_until(client, b'"Hel"')
        gate.set()
        with pytest.raises(ConnectionResetError):
            read_to_end(client)


def test_a_reset_waits_until_the_client_has_read_what_was_sent(upstream: ScriptedUpstream) -> None:
    upstream.answer(Say("Hel"), Reset())
    with dial(upstream) as client:
        poll = select.poll()
        poll.register(client, select.POLLHUP)
        assert poll.poll(300) == []
        read_until(client, b'"Hel"')
        with pytest.raises(ConnectionResetError):
            read_to_end(client)
