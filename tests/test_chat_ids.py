"""Chats are their owners': a stranger who names another's chat replaces nothing."""

from collections.abc import Iterator

import pytest

from tests.conftest import QUICK
from tests.support import plain_http
from tests.support.service import HELLO, RunningService, parse_sse, serve
from tests.support.upstream import Finish, Say, ScriptedUpstream, Silence


@pytest.fixture
def behind_a_proxy(upstream: ScriptedUpstream) -> Iterator[RunningService]:
    env = {"OPENAI_BASE_URL": upstream.base_url, "CHAT_SSE_TRUSTED_PROXIES": "127.0.0.1"}
    with serve({**QUICK, **env, "CHAT_SSE_DISCONNECT_GRACE": "20"}) as running:
        yield running


def visitor(number: int) -> dict[str, str]:
    return {"X-Forwarded-For": f"203.0.113.{number}"}


def test_a_stranger_cannot_replace_what_a_chat_resumes(
    behind_a_proxy: RunningService, upstream: ScriptedUpstream
) -> None:
    url, chat = behind_a_proxy.url, {**HELLO, "id": "a-chat-id-0001"}
    asynchronous = {"Prefer": "respond-async"}
    upstream.answer(Say("mine"), Silence())
    mine = plain_http.post(f"{url}/ask", json=chat, headers={**visitor(1), **asynchronous}, timeout=20)
    upstream.answer(Say("forged"), Finish())
    plain_http.post(f"{url}/ask", json=chat, headers=visitor(2), timeout=20)
    with plain_http.stream(
        "GET", f"{url}/ask/a-chat-id-0001/stream?format=sse", headers=visitor(1)
    ) as resumed:
        assert resumed.headers["Content-Location"] == mine.headers["Content-Location"]
    assert plain_http.get(f"{url}/ask/a-chat-id-0001/stream", headers=visitor(3)).status_code == 204
    stopped = plain_http.delete(url + mine.headers["Content-Location"], headers=visitor(1))
    assert stopped.status_code == 204
    assert parse_sse(plain_http.get(url + mine.headers["Content-Location"]).content)[-1][1]["type"] == "done"
