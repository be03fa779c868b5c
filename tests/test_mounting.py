"""The service inside other applications: Starlette, FastAPI, and beside Django."""

import asyncio
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

import httpx2
import pytest

from chat_sse.app import ChatService, create_app
from chat_sse.messages import Question
from chat_sse.settings import Settings
from chat_sse.upstreams.generator import GeneratorUpstream
from tests.conftest import QUICK
from tests.support import plain_http
from tests.support.readme import code_block
from tests.support.service import HELLO, RunningService, ask, events, serve_under_uvicorn, text_of
from tests.support.upstream import Finish, Say, ScriptedUpstream, Silence

STARLETTE = code_block("python", "Mount(")
FASTAPI = STARLETTE.replace(
    'app = Starlette(routes=[Mount("/chat", app=chat)], lifespan=lifespan)',
    """
from fastapi import FastAPI

app = FastAPI(lifespan=lifespan)


@app.get("/own")
async def own() -> str:
    return "own"


app.mount("/chat", chat)
""",
)
DJANGO = STARLETTE.replace(
    "lifespan=lifespan)",
    'lifespan=lifespan)\napp.routes.append(Mount("/", app=get_asgi_application()))',
).replace(
    "from chat_sse.app",
    """
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.http import HttpResponse
from django.urls import path

urlpatterns = [path("own", lambda request: HttpResponse("own"))]
settings.configure(ROOT_URLCONF=__name__, ALLOWED_HOSTS=["*"])

from chat_sse.app""",
)
NOBODY_ENTERS_IT = STARLETTE.replace(", lifespan=lifespan", "")
BARE = (
    STARLETTE.replace("app=chat)", "app=create_app())")
    .replace("import ChatService", "import ChatService, create_app")
    .replace(", lifespan=lifespan", "")
)
HOSTS = {
    "Starlette": STARLETTE,
    "FastAPI": FASTAPI,
    "Django": DJANGO,
    "nobody enters it": NOBODY_ENTERS_IT,
    "create_app": BARE,
}


class Run(Protocol):
    """Runs an application that has the service at `/chat`."""

    def __call__(self, source: str) -> AbstractContextManager[RunningService]: ...


@pytest.fixture
def run(upstream: ScriptedUpstream, tmp_path: Path) -> Run:
    env: Mapping[str, str] = {**QUICK, "OPENAI_BASE_URL": upstream.base_url}

    def run_application(source: str) -> AbstractContextManager[RunningService]:
        (tmp_path / "application.py").write_text(source)
        return serve_under_uvicorn("application:app", tmp_path, env)

    return run_application


@pytest.fixture(params=HOSTS)
def hosting(request: pytest.FixtureRequest, run: Run) -> Iterator[RunningService]:
    with run(HOSTS[request.param]) as running:
        yield running


def test_a_question_is_answered_read_again_and_stopped_under_the_mount(
    hosting: RunningService, upstream: ScriptedUpstream
) -> None:
    upstream.answer(Say("Grüße "), Say("von unten"), Finish())
    chat = f"{hosting.url}/chat"
    answer = ask(chat)
    assert text_of(events(answer)) == "Grüße von unten"
    place = answer.headers["content-location"]
    assert place.startswith("/chat/ask/")
    assert plain_http.get(hosting.url + place).text == answer.text
    assert plain_http.delete(hosting.url + place).status_code == 204
    later = plain_http.post(f"{chat}/ask", json=HELLO, headers={"Prefer": "respond-async"}, timeout=30)
    assert text_of(events(plain_http.get(hosting.url + later.headers["location"]))) == "Grüße von unten"
    assert upstream.paid_calls == 2
    assert plain_http.get(f"{chat}/healthz").status_code == 200
    assert plain_http.get(f"{chat}/readyz").status_code == 200
    assert "page/main.js" in plain_http.get(f"{chat}/").text
    assert plain_http.get(f"{chat}/page/main.js").status_code == 200
    assert plain_http.get(f"{chat}/openapi.json").json()["servers"][0]["url"] == "/chat"
    assert hosting.terminate() in (0, -15)
    assert "Traceback" not in hosting.log()


@pytest.mark.parametrize("source", [FASTAPI, DJANGO], ids=["FastAPI", "Django"])
def test_the_outer_application_answers_beside_it(run: Run, source: str) -> None:
    with run(source) as hosting:
        assert "own" in plain_http.get(f"{hosting.url}/own").text


@pytest.mark.parametrize("source", [STARLETTE, NOBODY_ENTERS_IT], ids=["entered", "not entered"])
def test_an_answer_that_runs_at_the_end_of_the_outer_application_ends_truthfully(
    run: Run, upstream: ScriptedUpstream, source: str
) -> None:
    upstream.answer(Say("half"), Silence())
    with (
        run(source) as hosting,
        plain_http.stream("POST", f"{hosting.url}/chat/ask", json=HELLO, timeout=30) as answer,
    ):
        lines = answer.iter_lines()
        assert any("half" in line for line in lines)
        hosting.terminate()
        assert any("server_draining" in line for line in lines)


def test_many_first_requests_start_it_once(run: Run, upstream: ScriptedUpstream) -> None:
    async def ask_all(url: str) -> list[httpx2.Response]:
        async with plain_http.AsyncClient(timeout=30) as client:
            return await asyncio.gather(*(client.post(f"{url}/chat/ask", json=HELLO) for _ in range(20)))

    with run(NOBODY_ENTERS_IT) as hosting:
        answers = asyncio.run(ask_all(hosting.url))
    assert {answer.status_code for answer in answers} == {200}
    assert upstream.paid_calls == 20


def service_of(upstream: ScriptedUpstream) -> ChatService:
    return ChatService(Settings(openai_api_key="none", openai_base_url=upstream.base_url))


async def ask_within(chat: ChatService) -> httpx2.Response:
    transport = httpx2.ASGITransport(app=chat)
    async with plain_http.AsyncClient(transport=transport, base_url="http://localhost") as client:
        return await client.post("/ask", json=HELLO, headers={"Accept": "application/json"})


async def test_a_closed_service_says_how_to_open_it_and_can_be_entered_again(
    upstream: ScriptedUpstream,
) -> None:
    chat = service_of(upstream)
    async with chat:
        assert (await ask_within(chat)).status_code == 200
    refusal = await ask_within(chat)
    assert (refusal.status_code, refusal.json()["error"]) == (503, "server_draining")
    assert "async with" in refusal.json()["details"]
    async with chat:
        assert (await ask_within(chat)).status_code == 200
    assert upstream.paid_calls == 2


def test_a_service_of_another_event_loop_says_so() -> None:
    async def hello(_: Question) -> AsyncGenerator[str, None]:
        yield "Hello"

    upstream = GeneratorUpstream(hello, models=("m",))  # without sockets, which would outlive their loop
    chat = ChatService(Settings(), upstream=upstream)
    assert asyncio.run(ask_within(chat)).status_code == 200
    refusal = asyncio.run(ask_within(chat))
    assert (refusal.status_code, refusal.json()["error"]) == (500, "internal_error")
    assert "another event loop" in refusal.json()["details"]


async def test_one_that_cannot_start_refuses_and_tries_again(
    upstream: ScriptedUpstream, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    chat = ChatService(Settings(local_model=tmp_path / "none.gguf"))
    for _ in range(2):
        refusal = await ask_within(chat)
        assert refusal.status_code == 500
        assert "could not be started" in refusal.json()["details"]
    assert [record.message for record in caplog.records].count("service.start_failed") == 2


async def test_the_outer_applications_state_is_left_alone(upstream: ScriptedUpstream) -> None:
    chat, state = service_of(upstream), {"service": "theirs", "request_id": "theirs"}

    async def outer(scope: dict, receive: object, send: object) -> None:  # type: ignore[type-arg]
        scope["state"] = state
        await chat(scope, receive, send)  # type: ignore[arg-type]

    async with chat:
        transport = httpx2.ASGITransport(app=outer)  # type: ignore[arg-type]
        async with plain_http.AsyncClient(transport=transport, base_url="http://localhost") as client:
            assert (await client.get("/readyz")).status_code == 200
    assert state == {"service": "theirs", "request_id": "theirs"}


def test_the_application_itself_is_a_starlette_one() -> None:
    assert create_app(Settings(openai_api_key="none")).router.redirect_slashes is False
