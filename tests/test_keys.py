"""API keys: who may ask, whose an answer is, and what somebody without a key is told."""

import re
import socket
import time
from collections.abc import Iterator
from typing import Any

import httpx2
import msgspec
import pytest
from starlette.routing import Route

from chat_sse.access.keys import KeyRing
from chat_sse.access.links import Links
from chat_sse.app import create_app
from chat_sse.settings import Settings, SettingsError, load_settings
from tests.conftest import QUICK
from tests.support import plain_http
from tests.support.service import HELLO, RunningService, ask, events, parse_sse, serve, text_of
from tests.support.upstream import Finish, Say, ScriptedUpstream, Silence

ALICE = "alice-canary-0123456789abcdef"
BOB = "bob-canary-0123456789abcdef=="
ORIGIN = "http://localhost:3000"

BAD_CREDENTIALS = {
    "none": {},
    "empty": {"Authorization": ""},
    "a scheme alone": {"Authorization": "Bearer"},
    "a wrong key": {"Authorization": "Bearer alice-canary-0123456789abcdeX"},
    "the beginning of a key": {"Authorization": f"Bearer {ALICE[:-1]}"},
    "a key's name": {"Authorization": "Bearer alice"},
    "name and key": {"Authorization": f"Bearer alice:{ALICE}"},
    "another scheme": {"Authorization": f"Basic {ALICE}"},
    "no scheme": {"Authorization": ALICE},
    "two keys": {"Authorization": f"Bearer {ALICE} {BOB}"},
    "no ASCII": {"Authorization": b"Bearer \xff\xfe"},
    "a cookie": {"Cookie": f"token={ALICE}"},
}


def bearer(key: str, **headers: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}", **headers}


@pytest.fixture(scope="module")
def service(upstream_port: int) -> Iterator[RunningService]:
    """A service with two keys, which no line of its log may hold."""
    env = {
        **QUICK,
        "OPENAI_BASE_URL": f"http://127.0.0.1:{upstream_port}/v1",
        "CHAT_SSE_API_KEYS": f"alice:{ALICE}, bob:{BOB}",
        "CHAT_SSE_LOG_LEVEL": "debug",
    }
    with serve(env) as running:
        yield running
        assert "canary" not in running.log()


def refused(response: httpx2.Response) -> dict[str, Any]:
    """Check that a response is the refusal, and give its body without what differs between any two."""
    assert response.status_code == 401, response.text
    assert response.headers["www-authenticate"] == "Bearer"
    return {**response.json(), "request_id": ""}


def test_a_key_asks(service: RunningService, upstream: ScriptedUpstream) -> None:
    upstream.answer(Say("Hi"), Finish())
    assert text_of(events(ask(service.url, headers=bearer(ALICE)))) == "Hi"
    assert text_of(events(ask(service.url, headers={"authorization": f"bearer   {BOB}"}))) == "Hi"
    assert upstream.paid_calls == 2


@pytest.mark.parametrize("credentials", BAD_CREDENTIALS.values(), ids=BAD_CREDENTIALS.keys())
def test_without_a_valid_key_there_is_one_answer_to_everything(
    service: RunningService, upstream: ScriptedUpstream, credentials: dict[str, Any]
) -> None:
    told = refused(ask(service.url, headers=credentials))
    assert (told["error"], told["retryable"]) == ("unauthenticated", False)
    assert told == refused(plain_http.get(f"{service.url}/ask?q=Hello", headers=credentials))
    assert told == refused(plain_http.get(f"{service.url}/ask/{'f' * 32}", headers=credentials))
    assert told == refused(plain_http.get(f"{service.url}/ask/chat/stream", headers=credentials))
    assert told == refused(plain_http.delete(f"{service.url}/ask/{'f' * 32}", headers=credentials))
    assert upstream.calls == []


def test_no_route_of_answers_works_without_a_key(service: RunningService) -> None:
    routes = [
        route for route in create_app(Settings(openai_api_key="none")).routes if isinstance(route, Route)
    ]
    doors = [route for route in routes if route.path.split("/")[1] == "ask"]
    assert len(doors) == 5
    for route in doors:
        path = re.sub(r"\{.*?\}", "x", route.path)
        for method in route.methods or ():
            response = plain_http.request(method, service.url + path, content=b"x" * 2_000_000)
            assert response.status_code == 401, (method, path)


def test_pages_documents_and_health_need_no_key_and_hold_none(service: RunningService) -> None:
    pages = ("/", "/ask.js", "/ask-requests.js", "/ask-stream.js", "/page/main.js", "/docs", "/redoc")
    for path in (*pages, "/openapi.json", "/healthz", "/readyz"):
        response = plain_http.get(service.url + path)
        assert response.status_code == 200, path
        assert "canary" not in response.text


def test_a_page_can_preflight_without_a_key_and_read_the_refusal(service: RunningService) -> None:
    wanted = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
    preflight = plain_http.options(f"{service.url}/ask", headers={"Origin": ORIGIN, **wanted})
    assert preflight.status_code == 200
    response = ask(service.url, headers={"Origin": ORIGIN})
    assert refused(response)["content"] == "This service needs an API key."
    assert response.headers["access-control-allow-origin"] == ORIGIN


def test_without_a_key_the_refusal_comes_before_the_body(service: RunningService) -> None:
    host, port = service.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as client:
        client.sendall(
            b"POST /ask HTTP/1.1\r\nHost: localhost\r\n"
            b"Content-Type: application/json\r\nContent-Length: 99\r\n\r\n"
        )
        assert client.recv(1024).startswith(b"HTTP/1.1 401 ")


def test_a_flood_of_wrong_keys_is_429_and_takes_nothing_from_those_who_have_one(
    upstream: ScriptedUpstream,
) -> None:
    limits = {"CHAT_SSE_RATE_LIMIT": "3/hour", "CHAT_SSE_RATE_LIMIT_TOTAL": "3/hour"}
    keys = {"CHAT_SSE_API_KEYS": f"alice:{ALICE}", "CHAT_SSE_TRUSTED_PROXIES": "127.0.0.1"}
    wrong = bearer("alice-canary-0123456789abcdeX", Origin=ORIGIN)
    with serve({**QUICK, **limits, **keys, "OPENAI_BASE_URL": upstream.base_url}) as service:
        doors = [("POST", "/ask"), ("GET", "/ask?q=Hi"), ("GET", "/ask/x"), ("DELETE", "/ask/x")]
        tried = [plain_http.request(method, service.url + path, headers=wrong) for method, path in doors]
        assert [response.status_code for response in tried] == [401, 401, 401, 429]
        for method, path in doors:
            response = plain_http.request(method, service.url + path, headers=wrong)
            assert (response.status_code, response.json()["error"]) == (429, "too_many_requests")
            assert int(response.headers["retry-after"]) > 0
            assert response.headers["ratelimit"].startswith('"requests";r=0;t=')
            assert response.headers["access-control-allow-origin"] == ORIGIN
        refused(ask(service.url, headers={**wrong, "X-Forwarded-For": "198.51.100.7"}))
        assert [ask(service.url, headers=bearer(ALICE)).status_code for _ in range(4)] == [200] * 3 + [429]
    assert upstream.paid_calls == 3


def test_another_key_finds_nothing_behind_any_door(
    service: RunningService, upstream: ScriptedUpstream
) -> None:
    upstream.answer(Say("secret"), Silence())
    body = {**HELLO, "id": "chat-1"}
    alice = bearer(ALICE, **{"Prefer": "respond-async", "Idempotency-Key": "k"})
    location = ask(service.url, body, headers=alice).headers["location"].partition("?")[0]
    stream_id = location.rpartition("/")[2]
    unknown = plain_http.get(f"{service.url}/ask/{'f' * 32}", headers=bearer(BOB))
    for method, path, headers in (
        ("GET", location, {}),
        ("HEAD", location, {}),
        ("GET", location, {"Last-Event-ID": f"{stream_id}.0"}),
        ("GET", f"{location}?last_event_id={stream_id}.0", {}),
        ("GET", "/ask", {"Last-Event-ID": f"{stream_id}.0"}),
        ("GET", f"/ask?q=Hello!&last_event_id={stream_id}.0", {}),
        ("POST", "/ask", {"Last-Event-ID": f"{stream_id}.0"}),
        ("DELETE", location, {}),
    ):
        response = plain_http.request(method, service.url + path, headers=bearer(BOB, **headers))
        assert response.status_code == 404, (method, path, headers)
        if method != "HEAD":
            assert {**response.json(), "request_id": ""} == {**unknown.json(), "request_id": ""}
    assert plain_http.get(f"{service.url}/ask/chat-1/stream", headers=bearer(BOB)).status_code == 204
    with plain_http.stream("GET", f"{service.url}/ask/chat-1/stream", headers=bearer(ALICE)) as running:
        assert running.status_code == 200
    assert plain_http.delete(service.url + location, headers=bearer(ALICE)).status_code == 204
    assert upstream.paid_calls == 1


def test_the_same_idempotency_key_of_two_owners_is_two_questions(
    service: RunningService, upstream: ScriptedUpstream
) -> None:
    upstream.answer_next(Say("for Alice"), Finish())
    upstream.answer_next(Say("for Bob"), Finish())
    other = {"messages": [{"role": "user", "content": "Something else"}]}
    assert (
        text_of(events(ask(service.url, headers=bearer(ALICE, **{"Idempotency-Key": "one"})))) == "for Alice"
    )
    assert (
        text_of(events(ask(service.url, other, headers=bearer(BOB, **{"Idempotency-Key": "one"}))))
        == "for Bob"
    )
    by_url = plain_http.get(f"{service.url}/ask?q=Hello!&id=two", headers=bearer(ALICE), timeout=20)
    again = plain_http.get(f"{service.url}/ask?q=Hello!&id=two", headers=bearer(BOB), timeout=20)
    assert parse_sse(by_url.content)[0][0] != parse_sse(again.content)[0][0]
    assert upstream.paid_calls == 4


def test_the_digests_of_keys_decide_and_a_repr_shows_none() -> None:
    keys = KeyRing([f"alice:{ALICE}", "colon:with:a:colon-0123456789"])
    assert keys.owner_of(ALICE.encode()) == "alice"
    assert keys.owner_of(b"with:a:colon-0123456789") == "colon"
    assert keys.owner_of(b"") is None
    assert "canary" not in repr(keys) + repr(vars(keys))


# Links


@pytest.fixture
def link(service: RunningService, upstream: ScriptedUpstream) -> str:
    """A link to an answer of Alice's."""
    upstream.answer(Say("Hello"), Say(" there"), Finish())
    response = ask(service.url, headers=bearer(ALICE, Prefer="respond-async"))
    assert response.status_code == 202
    assert "token" not in response.headers["content-location"]
    return response.headers["location"]


def test_a_link_reads_resumes_and_stops_its_answer(service: RunningService, link: str) -> None:
    url = service.url + link
    read = plain_http.get(url, timeout=20)
    first, *_, last = [event_id for event_id, _ in parse_sse(read.content)]
    assert text_of(events(read)) == "Hello there"
    assert plain_http.head(url).status_code == 200
    rest = plain_http.get(url, headers={"Last-Event-ID": first}, timeout=20)
    assert parse_sse(rest.content) == parse_sse(read.content)[1:]
    assert parse_sse(plain_http.get(f"{url}&last_event_id={first}", timeout=20).content) == parse_sse(
        rest.content
    )
    assert plain_http.get(url, headers={"Last-Event-ID": last}).status_code == 204
    assert plain_http.delete(url).status_code == 204


def test_a_link_starts_nothing_and_opens_nothing_else(
    service: RunningService, upstream: ScriptedUpstream, link: str
) -> None:
    path, _, token = link.partition("?")
    other = ask(service.url, headers=bearer(ALICE, Prefer="respond-async")).headers["location"]
    other_path, _, other_token = other.partition("?")
    paid = upstream.paid_calls
    tampered = token[:-2] + ("AA" if token[-2:] != "AA" else "BB")
    for method, target, headers in (
        ("GET", f"/ask?q=Hello!&{token}", {}),
        ("POST", f"/ask?{token}", {}),
        ("POST", f"/ask?{token}", {"Last-Event-ID": f"{path[5:]}.0"}),
        ("GET", f"/ask?{token}", {"Last-Event-ID": f"{path[5:]}.0"}),
        ("GET", f"/ask/chat/stream?{token}", {}),
        ("GET", f"{other_path}?{token}", {}),
        ("GET", f"{path}?{other_token}", {}),
        ("DELETE", f"{path}?{other_token}", {}),
        ("GET", f"{path}?{tampered}", {}),
        ("GET", f"{path}?token=", {}),
        ("GET", f"{path}?token=x&{token}", {}),
        ("GET", f"{path}?token={ALICE}", {}),
        ("GET", path, {}),
        ("GET", f"{path}?{token}", {"Authorization": "Bearer wrong"}),
    ):
        body = HELLO if method == "POST" else None
        response = plain_http.request(method, service.url + target, headers=headers, json=body, timeout=20)
        assert refused(response) == refused(ask(service.url)), (method, target)
    # On its own path, but naming an event of the other answer.
    foreign = plain_http.get(service.url + link, headers={"Last-Event-ID": f"{other_path[5:]}.0"})
    assert foreign.status_code == 404
    assert upstream.paid_calls == paid


def test_a_links_token_is_in_no_line_of_the_log(service: RunningService, link: str) -> None:
    plain_http.get(service.url + link, timeout=20)
    plain_http.get(service.url + link.replace("/ask", "/nowhere"))
    service.wait_for_log("path=/nowhere")
    assert link.partition("token=")[2] not in service.log()
    assert "token=" not in service.log()


def test_a_link_expires() -> None:
    past, present = Links("k" * 16, life_seconds=-5), Links("k" * 16, life_seconds=60)
    assert present.read(past.token("a", "alice")) is None
    link = present.read(present.token("a", "alice"))
    assert link is not None
    assert (link.answer, link.owner) == ("a", "alice")
    assert 60 <= link.expires - time.time() <= 62


def test_a_link_is_read_by_those_who_share_the_key_and_by_nobody_else() -> None:
    token = Links("k" * 16, life_seconds=60).token("a", "alice")
    assert re.fullmatch(r"[A-Za-z0-9._-]+", token)
    assert Links("k" * 16, life_seconds=1).read(token) is not None
    assert Links("l" * 16, life_seconds=60).read(token) is None
    assert Links(None, life_seconds=60).read(token) is None
    assert Links(None, life_seconds=60).read(Links(None, life_seconds=60).token("a", "alice")) is None


def test_an_expired_link_is_refused_as_any_other(upstream: ScriptedUpstream) -> None:
    env = {
        **QUICK,
        "OPENAI_BASE_URL": upstream.base_url,
        "CHAT_SSE_API_KEYS": f"alice:{ALICE}",
        "CHAT_SSE_SECRET_KEY": "canary-of-the-signer",
        "CHAT_SSE_TOTAL_TIMEOUT": "600",
        "CHAT_SSE_STREAM_TTL": "300",
    }
    with serve(env) as service:
        upstream.answer(Say("Hi"), Finish())
        location = ask(service.url, headers=bearer(ALICE, Prefer="respond-async")).headers["location"]
        path = location.partition("?")[0]
        signer = Links("canary-of-the-signer", life_seconds=-5)
        expired = signer.token(path.rpartition("/")[2], "alice")
        revoked = Links("canary-of-the-signer", life_seconds=60).token(path.rpartition("/")[2], "carol")
        assert refused(plain_http.get(f"{service.url}{path}?token={expired}")) == refused(ask(service.url))
        assert refused(plain_http.get(f"{service.url}{path}?token={revoked}")) == refused(ask(service.url))
        assert text_of(events(plain_http.get(service.url + location, timeout=20))) == "Hi"
        assert "canary" not in service.log()


def test_without_keys_the_link_is_there_and_harmless(upstream: ScriptedUpstream) -> None:
    with serve({**QUICK, "OPENAI_BASE_URL": upstream.base_url}) as service:
        upstream.answer(Say("Hi"), Finish())
        location = ask(service.url, headers={"Prefer": "respond-async"}).headers["location"]
        assert "?token=" in location
        for url in (location, location.partition("?")[0], f"{location}x"):
            assert text_of(events(plain_http.get(service.url + url, timeout=20))) == "Hi"


# Settings and the start


@pytest.mark.parametrize(
    ("entries", "fault"),
    [
        ("canary", "name:secret"),
        ("alice:canary", "16 or more"),
        (":canary-0123456789", "name:secret"),
        ("al/ice:canary-0123456789", "letters, digits"),
        ("10.0.0.1:canary-0123456789", "letters, digits"),
        ("alice:canary 0123456789", "letters, digits"),
        ("alice:canary-0123456789,alice:canary-9876543210", "a name twice"),
        ("alice:canary-0123456789,bob:canary-0123456789", "a secret twice"),
    ],
)
def test_wrong_keys_are_told_without_their_value(entries: str, fault: str) -> None:
    with pytest.raises(SettingsError, match=fault) as caught:
        load_settings({"CHAT_SSE_API_KEYS": entries}, env_file=None)
    assert "CHAT_SSE_API_KEYS" in str(caught.value)
    assert "canary" not in str(caught.value)


def test_a_short_secret_key_and_hosts_with_ports_are_told() -> None:
    environ = {"CHAT_SSE_SECRET_KEY": "canary", "CHAT_SSE_ALLOWED_HOSTS": "a.example:8000,https://b.example"}
    with pytest.raises(SettingsError) as caught:
        load_settings(environ, env_file=None)
    assert len(caught.value.faults) == 2
    assert "canary" not in str(caught.value)


def test_the_start_says_who_needs_a_key_and_never_which(service: RunningService) -> None:
    assert "open to this machine, with a key (alice, bob)" in service.log()


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_a_service_open_to_everybody_says_so_louder(upstream: ScriptedUpstream, log_format: str) -> None:
    env = {
        **QUICK,
        "OPENAI_BASE_URL": upstream.base_url,
        "CHAT_SSE_HOST": "0.0.0.0",
        "CHAT_SSE_LOG_FORMAT": log_format,
    }
    with serve(env) as service:
        said = service.log()
    assert "open to everybody who can reach this address, without a key" in said
    line = next(line for line in said.splitlines() if "service.open_to_everybody" in line)
    if log_format == "json":
        assert msgspec.json.decode(line)["level"] == "warning"
    else:
        assert " WARNING " in line
