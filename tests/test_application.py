"""What an application can give to the service: the README's example, and what holds beside it."""

import asyncio
import re
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path

import httpx2
import pytest

from chat_sse.access.principal import Principal
from chat_sse.app import ChatService
from chat_sse.errors import Forbidden, UpstreamUnavailable
from chat_sse.events import Delta, Done, Reasoning, Usage
from chat_sse.messages import Question
from chat_sse.records import AnsweredQuestion
from chat_sse.settings import Settings
from chat_sse.upstreams.generator import Generate, GeneratorUpstream
from tests.conftest import QUICK
from tests.support import plain_http
from tests.support.readme import code_block
from tests.support.redis_server import RedisServer
from tests.support.service import (
    HELLO,
    RunningService,
    ask,
    events,
    serve_under_uvicorn,
    text_of,
    until,
)
from tests.support.upstream import Cut, Finish, Refuse, Say, ScriptedUpstream, Silence

SHOWN = (
    code_block("python", "GeneratorUpstream(")
    .replace("print(", "print('record', flush=True, *(")
    .replace("record.text)", "record.text))")
)
SHOWN += "\nfrom starlette.applications import Starlette\nfrom starlette.routing import Mount\n"
SHOWN += 'app = Starlette(routes=[Mount("/chat", app=chat)])\n'
ALICE = {"x-user": "alice"}


def mounted(folder: Path, env: Mapping[str, str]) -> AbstractContextManager[RunningService]:
    (folder / "application.py").write_text(SHOWN)
    return serve_under_uvicorn("application:app", folder, env)


@pytest.fixture
def shown(tmp_path: Path) -> Iterator[RunningService]:
    """The README's example, mounted."""
    with mounted(tmp_path, {}) as running:
        yield running


def test_the_example_answers_knows_who_asks_refuses_and_keeps(shown: RunningService) -> None:
    chat = f"{shown.url}/chat"
    answer = ask(chat, headers=ALICE)
    assert [event["type"] for event in events(answer)] == ["start", "reasoning", *["delta"] * 3, "done"]
    assert text_of(events(answer)) == "Hello, you there."
    place = shown.url + answer.headers["content-location"]
    assert plain_http.get(place, headers=ALICE).text == answer.text
    assert plain_http.get(place, headers={"x-user": "bob"}).json()["error"] == "stream_not_found"
    assert ask(chat).json()["error"] == "unauthenticated"
    refusal = ask(chat, headers={"x-user": "mallory"})
    assert (refusal.status_code, refusal.json()["error"]) == (403, "forbidden")
    assert (refusal.json()["content"], refusal.json()["details"]) == ("You have been bad.", "not you")
    until(lambda: "record" in shown.log())
    assert re.findall(r"record .*", shown.log()) == [
        re.search(r"record user:alice done [\d.]+ None Hello, you there\.", shown.log())[0]  # type: ignore[index]
    ]


def test_a_link_to_an_answer_works_for_whoever_has_it(shown: RunningService) -> None:
    accepted = plain_http.post(
        f"{shown.url}/chat/ask", json=HELLO, headers={**ALICE, "Prefer": "respond-async"}
    )
    assert text_of(events(plain_http.get(shown.url + accepted.headers["location"]))) == "Hello, you there."


class Kept:
    """Records that `after_answer` was given."""

    def __init__(self) -> None:
        self.records: list[AnsweredQuestion] = []
        self._kept = asyncio.Event()

    async def keep(self, record: AnsweredQuestion) -> None:
        self.records.append(record)
        self._kept.set()

    async def only(self) -> AnsweredQuestion:
        """Wait for the one record there is."""
        await asyncio.wait_for(self._kept.wait(), 10)
        await asyncio.sleep(0.05)  # for a second one, which must not come
        [record] = self.records
        return record


def client_of(chat: ChatService) -> httpx2.AsyncClient:
    return plain_http.AsyncClient(transport=httpx2.ASGITransport(app=chat), base_url="http://localhost")


async def answer_of(generate: Generate, *, body: object = HELLO) -> tuple[httpx2.Response, AnsweredQuestion]:
    """Ask a generator, and return the answer with its record."""
    kept = Kept()
    upstream = GeneratorUpstream(generate, models=("m",))
    async with ChatService(Settings(), upstream=upstream, after_answer=kept.keep) as chat:
        async with client_of(chat) as client:
            answer = await client.post("/ask", json=body)
        return answer, await kept.only()


async def test_events_of_a_generator_are_those_of_the_answer() -> None:
    usage = Usage(prompt_tokens=1, completion_tokens=2, total_tokens=3)

    async def generate(question: Question) -> AsyncGenerator[str | Delta | Reasoning | Done, None]:
        assert question.model == "m"
        yield Reasoning("hm")
        yield ""  # a sign of life
        yield Delta("a")
        yield "b"
        yield Done(finish_reason="length", usage=usage)
        raise AssertionError("nothing is asked of it after its end")

    answer, record = await answer_of(generate, body={**HELLO, "id": "chat-1"})
    assert [event["type"] for event in events(answer)] == ["start", "reasoning", "delta", "delta", "done"]
    assert (record.text, record.reasoning, record.usage) == ("ab", "hm", usage)
    assert (record.outcome, record.finish_reason, record.may_cost) == ("done", "length", True)
    assert (record.question.chat_id, record.question.messages[0].content) == ("chat-1", "Hello!")
    assert record.events == 5
    assert record.first_event_seconds is not None
    assert 0 <= record.first_event_seconds <= record.seconds


async def test_a_generator_that_says_nothing_has_ended_with_stop() -> None:
    async def generate(_: Question) -> AsyncGenerator[str, None]:
        return
        yield ""

    answer, record = await answer_of(generate)
    assert events(answer)[-1]["finish_reason"] == "stop"
    assert (record.text, record.outcome) == ("", "done")


async def test_a_generators_fault_is_an_event_without_its_message(caplog: pytest.LogCaptureFixture) -> None:
    async def generate(_: Question) -> AsyncGenerator[str, None]:
        yield "half"
        raise RuntimeError("canary")

    answer, record = await answer_of(generate)
    assert [event["type"] for event in events(answer)] == ["start", "delta", "error"]
    assert (record.text, record.outcome, record.error) == ("half", "error", "internal_error")
    assert "canary" not in answer.text
    assert "answer.crashed" in caplog.text


async def test_an_error_of_a_generator_before_its_first_piece_is_a_response_and_no_record() -> None:
    async def generate(_: Question) -> AsyncGenerator[str, None]:
        raise UpstreamUnavailable("the agent sleeps")
        yield ""

    kept = Kept()
    upstream = GeneratorUpstream(generate, models=("m",))
    async with (
        ChatService(Settings(), upstream=upstream, after_answer=kept.keep) as chat,
        client_of(chat) as c,
    ):
        answer = await c.post("/ask", json=HELLO)
    assert (answer.status_code, answer.json()["details"]) == (500, "the agent sleeps")
    assert kept.records == []


async def test_a_stop_closes_the_generator_and_the_record_holds_what_was_said() -> None:
    said, closed = asyncio.Event(), asyncio.Event()

    async def generate(_: Question) -> AsyncGenerator[str, None]:
        try:
            yield "so far"
            said.set()
            await asyncio.Event().wait()
        finally:
            closed.set()

    async def stop(chat: ChatService) -> None:
        async with client_of(chat) as client:
            accepted = await client.post("/ask", json=HELLO, headers={"Prefer": "respond-async"})
            await said.wait()
            await client.delete(accepted.headers["location"])

    kept = Kept()
    upstream = GeneratorUpstream(generate, models=("m",))
    async with ChatService(Settings(), upstream=upstream, after_answer=kept.keep) as chat:
        await stop(chat)
        await asyncio.wait_for(closed.wait(), 5)
        record = await kept.only()
    assert (record.text, record.outcome, record.finish_reason) == ("so far", "cancelled", "cancelled")


@pytest.fixture(params=["memory", "Redis"])
def keeping(request: pytest.FixtureRequest) -> Iterator[str | None]:
    """The URL of the Redis that keeps the answers; None for memory."""
    if request.param == "memory":
        yield None
        return
    with RedisServer() as server:
        yield server.url


async def test_it_is_told_once_of_each_paid_call_whatever_readers_do(
    upstream: ScriptedUpstream, keeping: str | None
) -> None:
    upstream.answer_next(Say("a "), Say("whole one"), Finish())
    upstream.answer_next(Say("one cut short"), Cut())
    upstream.answer_next(Refuse(400))
    kept = Kept()
    settings = Settings(openai_api_key="none", openai_base_url=upstream.base_url, redis_url=keeping)
    async with ChatService(settings, after_answer=kept.keep) as chat, client_of(chat) as client:
        key = {"Idempotency-Key": "k"}
        answers = await asyncio.gather(*(client.post("/ask", json=HELLO, headers=key) for _ in range(5)))
        assert {text_of(events(answer)) for answer in answers} == {"a whole one"}
        assert (await client.post("/ask", json=HELLO)).status_code == 200
        assert (await client.post("/ask", json=HELLO)).status_code >= 400
    assert [(record.text, record.outcome) for record in kept.records] == [
        ("a whole one", "done"),
        ("one cut short", "error"),
    ]


async def test_a_running_answer_is_told_of_when_the_service_closes(upstream: ScriptedUpstream) -> None:
    upstream.answer(Say("half"), Silence())
    kept = Kept()
    settings = Settings(openai_api_key="none", openai_base_url=upstream.base_url)
    async with ChatService(settings, after_answer=kept.keep) as chat, client_of(chat) as client:
        accepted = await client.post("/ask", json=HELLO, headers={"Prefer": "respond-async"})
        assert accepted.status_code == 202
        await asyncio.to_thread(until, lambda: upstream.paid_calls == 1)
    assert [record.outcome for record in kept.records] == ["error"]


async def test_a_hook_that_fails_harms_no_answer(
    upstream: ScriptedUpstream, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(_: AnsweredQuestion) -> None:
        raise RuntimeError("the database is away")

    settings = Settings(openai_api_key="none", openai_base_url=upstream.base_url)
    async with ChatService(settings, after_answer=fail) as chat, client_of(chat) as client:
        assert (await client.post("/ask", json=HELLO)).status_code == 200
        assert (await client.post("/ask", json=HELLO)).status_code == 200
    assert [record.message for record in caplog.records].count("after_answer.failed") == 2


async def test_a_question_is_changed_or_refused_before_it_costs_and_never_for_a_reader(
    upstream: ScriptedUpstream,
) -> None:
    upstream.answer(Say("hi"), Finish())
    asked: list[str] = []

    async def before_ask(question: Question, principal: Principal) -> Question:
        asked.append(principal.owner)
        if question.chat_id == "closed":
            raise Forbidden("this chat is closed")
        return Question(messages=question.messages, model="another", max_output_tokens=7)

    settings = Settings(openai_api_key="none", openai_base_url=upstream.base_url, token_budget="off")
    async with ChatService(settings, before_ask=before_ask) as chat, client_of(chat) as client:
        key = {"Idempotency-Key": "k"}
        answer = await client.post("/ask", json=HELLO, headers=key)
        assert (await client.post("/ask", json=HELLO, headers=key)).text == answer.text
        assert (await client.get(answer.headers["content-location"])).text == answer.text
        refused = await client.post("/ask", json={**HELLO, "id": "closed"})
        assert (refused.status_code, refused.json()["details"]) == (403, "this chat is closed")
        assert (await client.get("/ask?q=Hi")).status_code == 200
    assert asked == ["anonymous"] * 3
    assert [call.body["model"] for call in upstream.calls] == ["another"] * 2
    assert upstream.paid_calls == 2


def test_with_keys_an_application_is_asked_about_the_others_alone(tmp_path: Path) -> None:
    key = "canary-0123456789"
    with mounted(tmp_path, {**QUICK, "CHAT_SSE_API_KEYS": f"robot:{key}"}) as running:
        chat = f"{running.url}/chat"
        assert ask(chat, headers={"Authorization": f"Bearer {key}"}).status_code == 200
        assert ask(chat, headers=ALICE).status_code == 200
        assert ask(chat).status_code == 401
        until(lambda: running.log().count("record ") == 2)
    assert "record robot done" in running.log()
