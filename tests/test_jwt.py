"""People's tokens: which are believed, whose an answer then is, and what a bad one is told."""

import base64
import json
import time
from collections.abc import Iterator
from typing import Any

import httpx2
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from chat_sse.settings import SettingsError, load_settings
from tests.conftest import QUICK
from tests.support import plain_http
from tests.support.service import HELLO, RunningService, ask, events, refused_start, serve, text_of, until
from tests.support.streams import streaming
from tests.support.tokens import AUDIENCE, ISSUER, SECRET, bearer, claims, jwk, pem, rsa_key, token
from tests.support.upstream import Finish, Hold, Pause, Say, ScriptedUpstream

KEY = "machine-canary-0123456789abcdef"
EXPECTED = {"CHAT_SSE_JWT_ISSUER": ISSUER, "CHAT_SSE_JWT_AUDIENCE": AUDIENCE}


def part(value: object) -> str:
    text = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(text).rstrip(b"=").decode()


def unsigned(head: object, signature: str = "") -> str:
    return f"{part(head)}.{part(claims())}.{signature}"


@pytest.fixture(scope="module")
def service(upstream_port: int) -> Iterator[RunningService]:
    """A service that knows the key "one", a cookie, and one machine. No line of its log holds a token."""
    env = {
        **QUICK,
        **EXPECTED,
        "OPENAI_BASE_URL": f"http://127.0.0.1:{upstream_port}/v1",
        "CHAT_SSE_JWT_KEY": pem("one").replace("\n", "\\n"),
        "CHAT_SSE_JWT_COOKIE": "session",
        "CHAT_SSE_API_KEYS": f"robot:{KEY}",
        "CHAT_SSE_LOG_LEVEL": "debug",
    }
    with serve(env) as running:
        yield running
        log = running.log()
        assert "eyJ" not in log  # how every token begins
        assert "canary" not in log


def test_a_token_asks_in_the_header_or_in_the_cookie_and_so_does_a_key(
    service: RunningService, upstream: ScriptedUpstream
) -> None:
    upstream.answer(Say("Hi"), Finish())
    for headers in (
        bearer(token()),
        {"Cookie": f"theme=dark; session={token()}; a=b"},
        {"Cookie": f'session="{token()}"'},
        bearer(token(), Cookie="session=garbage"),  # the header comes first
        bearer(KEY),
    ):
        assert text_of(events(ask(service.url, headers=headers))) == "Hi", headers
    assert upstream.paid_calls == 5
    service.wait_for_log("path=/ask status=200 client=jwt:ada")
    service.wait_for_log("path=/ask status=200 client=key:robot")


@pytest.mark.parametrize(
    "good",
    [
        {"aud": [AUDIENCE, "another"]},
        {"nbf": -60},
        {"exp": -5},  # clocks differ
        {"headers": {"kid": "another"}},  # there is one key, whatever it is called
        {"chat_sse": {"rate": "10/minute"}},
    ],
)
def test_good_tokens_are_taken(
    service: RunningService, upstream: ScriptedUpstream, good: dict[str, Any]
) -> None:
    times: dict[str, float] = {name: time.time() + good[name] for name in ("nbf", "exp") if name in good}
    assert ask(service.url, headers=bearer(token(**(good | times)))).status_code == 200


def bad_tokens() -> dict[str, str]:
    good = token()
    head, body, signature = good.split(".")
    named = {"jku": "http://127.0.0.1:9/jwks", "x5u": "http://127.0.0.1:9/x", "jwk": jwk("evil")}
    return {
        "another algorithm of the same key": token(algorithm="RS512"),
        "none": unsigned({"alg": "none", "typ": "JWT"}),
        "None": unsigned({"alg": "None"}),
        "no algorithm": unsigned({"typ": "JWT"}, signature),
        "an algorithm that is a list": unsigned({"alg": ["RS256"]}, signature),
        "the public key as a secret": hmac_with_public_key(),
        "no signature": f"{head}.{body}.",
        "another body": f"{head}.{part(claims('eve'))}.{signature}",
        "another's key": token(key="evil"),
        "another's key that calls itself ours": token(key="evil", headers={"kid": "one"}),
        "no expiry": token(exp=None),
        "expired": token(exp=time.time() - 60),
        "an expiry that is no number": token(exp="soon"),
        "an endless expiry": f"{head}.{part(claims() | {'exp': 1e999})}.{signature}",
        "not valid yet": token(nbf=time.time() + 60),
        "issued in the future": token(iat=time.time() + 600),
        "another audience": token(aud="another"),
        "no audience": token(aud=None),
        "another issuer": token(iss="https://evil.example/"),
        "no issuer": token(iss=None),
        "no person": token(sub=None),
        "a person without a name": token(sub=""),
        "a person whose name is too long": token(sub="x" * 256),
        "too large": token(filler="x" * 9000),
        "a path for a key's id": token(key="evil", headers={"kid": "../../../../dev/null"}),
        "a URL for a key's id": token(key="evil", headers={"kid": "http://127.0.0.1:9/jwks"}),
        "a key's id that is a number": unsigned({"alg": "RS256", "kid": 1}, signature),
        "keys of its own": token(key="evil", headers=named),
        "an extension that must be understood": token(headers={"crit": ["exp2"], "exp2": 1}),
        "claims of ours that nobody knows": token(chat_sse={"rates": "1/day"}),
        "claims of ours that are wrong": token(chat_sse={"rate": "often"}),
        "claims of ours that are a list": token(chat_sse=["gpt-4o"]),
        "nested without end": f"{part(b'[' * 3000)}.{body}.{signature}",
        "a head that is a list": f"{part([1])}.{body}.{signature}",
        "four parts": f"{good}.{signature}",
        "two parts": f"{head}.{body}",
        "dots": "...",
        "no base64": "a!b.c!d.e!f",
    }


def hmac_with_public_key() -> str:
    """The oldest attack: what everybody knows is the secret. PyJWT does not make one, so by hand."""
    import hashlib  # noqa: PLC0415
    import hmac  # noqa: PLC0415

    signed = f"{part({'alg': 'HS256', 'typ': 'JWT'})}.{part(claims())}"
    return f"{signed}.{part(hmac.digest(pem('one').encode(), signed.encode(), hashlib.sha256))}"


def without_id(response: httpx2.Response) -> dict[str, Any]:
    assert response.status_code == 401, response.text
    assert response.headers["www-authenticate"] == "Bearer"
    return {**response.json(), "request_id": ""}


@pytest.mark.parametrize("kind", bad_tokens())
def test_a_bad_token_is_refused_in_the_one_way_and_nothing_is_asked(
    service: RunningService, upstream: ScriptedUpstream, kind: str
) -> None:
    bad = bad_tokens()[kind]
    told = without_id(ask(service.url))
    assert (told["error"], told["retryable"], told["accepts"]) == ("unauthenticated", False, ["keys", "jwt"])
    for headers in (bearer(bad), {"Cookie": f"session={bad}"}):
        assert without_id(ask(service.url, headers=headers)) == told
        assert without_id(plain_http.get(f"{service.url}/ask?q=Hi", headers=headers)) == told
        assert without_id(plain_http.get(f"{service.url}/ask/{'f' * 32}", headers=headers)) == told
        assert without_id(plain_http.delete(f"{service.url}/ask/{'f' * 32}", headers=headers)) == told
        assert without_id(plain_http.get(f"{service.url}/me", headers=headers)) == told
    assert upstream.calls == []


def test_the_log_says_why_a_token_was_refused_and_nothing_of_it(service: RunningService) -> None:
    without_id(ask(service.url, headers=bearer(token(exp=time.time() - 60, jti="said-in-the-token"))))
    service.wait_for_log("path=/ask status=401 refused=ExpiredSignatureError")
    assert "said-in-the-token" not in service.log()


def test_what_is_said_twice_is_refused_even_if_both_are_good(
    service: RunningService, upstream: ScriptedUpstream
) -> None:
    good = token()
    for headers in (
        [("Authorization", f"Bearer {good}"), ("Authorization", f"Bearer {good}")],
        [("Authorization", f"Bearer {good}"), ("Authorization", "Basic eDp5")],
        [("Cookie", f"session={good}; session={good}")],
        [("Cookie", f"session={good}"), ("Cookie", "session=")],
    ):
        assert without_id(plain_http.post(f"{service.url}/ask", json=HELLO, headers=headers))
    assert upstream.calls == []


def test_a_wrong_credential_is_not_made_up_for_by_the_next(service: RunningService) -> None:
    good = f"session={token()}"
    without_id(ask(service.url, headers=bearer("wrong", Cookie=good)))
    without_id(ask(service.url, headers={"Authorization": "Basic eDp5"}))
    without_id(ask(service.url, headers={"Cookie": f"Session={token()}"}))  # another cookie
    without_id(ask(service.url, params={"access_token": token(), "token": token()}))  # no token in a URL


def test_an_answer_is_its_persons_who_comes_back_with_a_new_token(
    service: RunningService, upstream: ScriptedUpstream
) -> None:
    upstream.answer(*(step for _ in range(40) for step in (Say("secret"), Pause(0.5))), Finish())
    body = {**HELLO, "id": "chat-1"}
    ada = bearer(token("ada"), **{"Prefer": "respond-async", "Idempotency-Key": "k"})
    location = ask(service.url, body, headers=ada).headers["content-location"]
    stream_id = location.rpartition("/")[2]
    for other in (bearer(token("bob")), bearer(token("ADA")), bearer(KEY)):
        for method, path, headers in (
            ("GET", location, {}),
            ("GET", location, {"Last-Event-ID": f"{stream_id}.0"}),
            ("POST", "/ask", {"Last-Event-ID": f"{stream_id}.0"}),
            ("DELETE", location, {}),
        ):
            response = plain_http.request(method, service.url + path, headers={**other, **headers})
            assert (response.status_code, response.json()["error"]) == (404, "stream_not_found")
        assert plain_http.get(f"{service.url}/ask/chat-1/stream", headers=other).status_code == 204
    again = bearer(token("ada", jti="another"))
    with plain_http.stream("GET", f"{service.url}/ask/chat-1/stream", headers=again) as running:
        assert running.status_code == 200
    assert plain_http.delete(service.url + location, headers=again).status_code == 204
    assert upstream.paid_calls == 1


def test_people_whose_names_hold_slashes_do_not_share_keys_of_questions(
    service: RunningService, upstream: ScriptedUpstream
) -> None:
    upstream.answer_next(Say("for a"), Finish())
    upstream.answer_next(Say("for a/b"), Finish())
    one = ask(service.url, headers=bearer(token("a"), **{"Idempotency-Key": "b/c"}))
    other = ask(service.url, headers=bearer(token("a/b"), **{"Idempotency-Key": "c"}))
    assert (text_of(events(one)), text_of(events(other))) == ("for a", "for a/b")


@pytest.mark.parametrize(
    "who", ["2001:db8::1/64", "key:robot", "robot", "anonymous", "ad\nmin client=key:robot", "世界"]
)
def test_a_name_is_only_a_name(service: RunningService, upstream: ScriptedUpstream, who: str) -> None:
    response = ask(service.url, headers=bearer(token(who)))
    assert response.status_code == 200, response.text
    assert plain_http.get(f"{service.url}/me", headers=bearer(token(who))).json()["name"] == who
    path = response.headers["content-location"]
    assert plain_http.get(service.url + path, headers=bearer(KEY)).status_code == 404


def test_an_expired_token_does_not_cut_its_answer_but_a_resume_needs_a_new_one(
    upstream: ScriptedUpstream,
) -> None:
    from threading import Event  # noqa: PLC0415

    gate = Event()
    upstream.answer(Say("Hel"), Hold(gate), Say("lo"), Finish())
    env = {
        **QUICK,
        "CHAT_SSE_IDLE_TIMEOUT": "30",
        "CHAT_SSE_JWT_KEY": SECRET,
        "OPENAI_BASE_URL": upstream.base_url,
    }
    with serve(env) as service:
        short = bearer(token(key=None, iss=None, aud=None, exp=time.time() - 8))  # two seconds more
        with streaming("POST", f"{service.url}/ask", json=HELLO, headers=short) as stream:
            stream.wait_for(b"Hel")
            url, place = f"{service.url}/ask/{stream.id}", {"Last-Event-ID": f"{stream.id}.1"}
            until(lambda: plain_http.get(f"{service.url}/me", headers=short).status_code == 401)
            assert plain_http.get(url, headers={**short, **place}).status_code == 401
            assert plain_http.delete(url, headers=short).status_code == 401
            gate.set()
            assert stream.last_event()["finish_reason"] == "stop"
        fresh = bearer(token(key=None, iss=None, aud=None))
        resumed = plain_http.get(url, headers={**fresh, **place})
        assert text_of(events(resumed)) == "lo"
    assert upstream.paid_calls == 1


@pytest.mark.parametrize("algorithm", ["HS512", "ES256", "EdDSA", "PS256"])
def test_other_algorithms_verify_what_they_have_signed(upstream: ScriptedUpstream, algorithm: str) -> None:
    private: Any = {
        "HS512": SECRET * 2,
        "ES256": ec.generate_private_key(ec.SECP256R1()),
        "EdDSA": ed25519.Ed25519PrivateKey.generate(),
        "PS256": rsa_key("one"),
    }[algorithm]
    public = private
    if algorithm != "HS512":
        public = private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    env = {"CHAT_SSE_JWT_KEY": public, "CHAT_SSE_JWT_ALGORITHMS": algorithm, **EXPECTED}
    with serve({**QUICK, **env, "OPENAI_BASE_URL": upstream.base_url}) as service:
        assert ask(service.url, headers=bearer(jwt.encode(claims(), private, algorithm))).status_code == 200
        without_id(ask(service.url, headers=bearer(token())))


def test_without_an_audience_a_token_for_one_is_refused_and_any_issuer_will_do(
    upstream: ScriptedUpstream,
) -> None:
    env = {"CHAT_SSE_JWT_KEY": SECRET, "CHAT_SSE_JWT_PRINCIPAL": "user_id"}
    with serve({**QUICK, **env, "OPENAI_BASE_URL": upstream.base_url}) as service:
        said: dict[str, Any] = {"key": None, "user_id": 42}
        without_id(ask(service.url, headers=bearer(token(**said))))
        good = bearer(token(**said, aud=None, sub=None))
        assert ask(service.url, headers=good).status_code == 200
        assert plain_http.get(f"{service.url}/me", headers=good).json()["name"] == "42"
        without_id(ask(service.url, headers=bearer(token(key=None, aud=None))))  # it has no such claim


# Settings


FAULTS = [
    ({"JWT_KEY": "too short"}, "CHAT_SSE_JWT_KEY must have 32 bytes or more where it is a secret"),
    ({"JWT_KEY": SECRET, "JWT_ALGORITHMS": "HS512"}, "CHAT_SSE_JWT_KEY must have 64 bytes"),
    (
        {"JWT_KEY": SECRET, "JWT_ALGORITHMS": "RS256"},
        "CHAT_SSE_JWT_ALGORITHMS must be of the key's kind: HS256",
    ),
    ({"JWT_KEY": SECRET, "JWT_ALGORITHMS": "HS256,none"}, "CHAT_SSE_JWT_ALGORITHMS must be"),
    ({"JWT_KEY": pem("one"), "JWT_ALGORITHMS": "HS256"}, "CHAT_SSE_JWT_ALGORITHMS must be"),
    ({"JWT_KEY": pem("one"), "JWT_ALGORITHMS": "RS256,HS256"}, "CHAT_SSE_JWT_ALGORITHMS must be"),
    ({"JWT_KEY": pem("one").replace("PUBLIC", "RSA PRIVATE")}, "CHAT_SSE_JWT_KEY must be a public key"),
    ({"JWT_KEY": "http://login.example/jwks", "JWT_AUDIENCE": "x"}, "CHAT_SSE_JWT_KEY must be an https URL"),
    ({"JWT_KEY": "https://login.example/jwks"}, "CHAT_SSE_JWT_AUDIENCE must be set with a JWKS"),
    (
        {"JWT_KEY": "https://h/jwks", "JWT_AUDIENCE": "x", "JWT_ALGORITHMS": "HS256"},
        "CHAT_SSE_JWT_ALGORITHMS",
    ),
    ({"JWT_COOKIE": "session"}, "CHAT_SSE_JWT_COOKIE needs CHAT_SSE_JWT_KEY"),
    ({"JWT_KEY": SECRET, "JWT_COOKIE": "a b"}, "CHAT_SSE_JWT_COOKIE must be the name of a cookie"),
    (
        {"JWT_KEY": SECRET, "JWT_COOKIE": "s", "ALLOWED_ORIGIN": "*"},
        "ALLOWED_ORIGIN=* with CHAT_SSE_JWT_COOKIE",
    ),
    ({"USER_HEADER": "X-User"}, "CHAT_SSE_USER_HEADER needs CHAT_SSE_TRUSTED_PROXIES"),
    ({"USER_HEADER": "a b", "TRUSTED_PROXIES": "::1"}, "CHAT_SSE_USER_HEADER must be the name of a header"),
    (
        {"USER_HEADER": "Cookie", "TRUSTED_PROXIES": "::1"},
        "CHAT_SSE_USER_HEADER must be the name of a header",
    ),
    ({"MAY_ASK": "jwt"}, "CHAT_SSE_MAY_ASK=jwt needs CHAT_SSE_JWT_KEY"),
    ({"MAY_ASK": "everybody"}, "CHAT_SSE_MAY_ASK must be some of keys, jwt, proxy, anonymous"),
    ({"LOGIN_URL": "javascript:alert(1)"}, "CHAT_SSE_LOGIN_URL must be an https URL"),
    ({"LOGIN_URL": "//evil.example"}, "CHAT_SSE_LOGIN_URL must be an https URL"),
    ({"LOGIN_URL": "http://login.example"}, "CHAT_SSE_LOGIN_URL must be an https URL"),
    ({"API_KEYS": f"anonymous:{KEY}"}, "CHAT_SSE_API_KEYS must not use the name anonymous"),
]


@pytest.mark.parametrize(("given", "fault"), FAULTS)
def test_a_faulty_setting_is_told_without_its_value(given: dict[str, str], fault: str) -> None:
    named = {name if name == "ALLOWED_ORIGIN" else f"CHAT_SSE_{name}": value for name, value in given.items()}
    with pytest.raises(SettingsError) as caught:
        load_settings(named, env_file=None)
    assert [told for told in caught.value.faults if told.startswith(fault)], caught.value.faults
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize(
    "url", ["https://login.example.org/?next={url}", "/oauth2/start?rd={url}", "http://localhost:1/"]
)
def test_a_login_address_may_be_on_this_host_or_another(url: str) -> None:
    assert load_settings({"CHAT_SSE_LOGIN_URL": url}, env_file=None).login_url == url


@pytest.mark.parametrize(
    ("key", "fault"),
    [
        ("-----BEGIN PUBLIC KEY-----\ncanary\n-----END PUBLIC KEY-----", "is no key for RS256"),
        ("weak", "is too short a key for RS256"),
        ("curve", "is no key for RS256"),
    ],
)
def test_a_key_that_cannot_be_used_stops_the_start(key: str, fault: str) -> None:
    if key in ("weak", "curve"):
        made: Any = rsa_key("weak", 1024) if key == "weak" else ec.generate_private_key(ec.SECP256R1())
        key = made.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    said = refused_start({"CHAT_SSE_JWT_KEY": key})
    assert said == f"chat-sse: CHAT_SSE_JWT_KEY {fault}\n"


def test_the_start_tells_who_may_ask(upstream: ScriptedUpstream) -> None:
    env = {**QUICK, "OPENAI_BASE_URL": upstream.base_url, "CHAT_SSE_API_KEYS": f"robot:{KEY}"}
    env |= {"CHAT_SSE_JWT_KEY": SECRET, "CHAT_SSE_JWT_COOKIE": "session", "CHAT_SSE_JWT_ISSUER": ISSUER}
    with serve(env) as service:
        token_in = f"with a token (of {ISSUER}, also in the cookie session); pages"
        assert f"this machine, with a key (robot) or {token_in}" in service.log()
    with serve({**env, "CHAT_SSE_MAY_ASK": "jwt"}) as service:
        assert f"this machine, {token_in}" in service.log()
        without_id(ask(service.url, headers=bearer(KEY)))


def test_anonymous_callers_may_be_let_in_beside_the_others_but_not_with_a_bad_token(
    upstream: ScriptedUpstream,
) -> None:
    env = {**QUICK, "OPENAI_BASE_URL": upstream.base_url, "CHAT_SSE_JWT_KEY": SECRET}
    with serve({**env, "CHAT_SSE_MAY_ASK": "jwt,anonymous"}) as service:
        assert plain_http.get(f"{service.url}/me").json()["name"] is None
        answer = ask(service.url)
        path = answer.headers["content-location"]
        assert plain_http.get(service.url + path).content == answer.content
        ada = bearer(token(key=None, aud=None))
        assert plain_http.get(service.url + path, headers=ada).status_code == 404  # not hers
        hers = ask(service.url, headers=ada).headers["content-location"]
        assert plain_http.get(service.url + hers).status_code == 404
        without_id(ask(service.url, headers=bearer("bad")))
    assert upstream.paid_calls == 2


def test_a_refusal_says_where_to_log_in(upstream: ScriptedUpstream) -> None:
    env = {**QUICK, "OPENAI_BASE_URL": upstream.base_url, "CHAT_SSE_JWT_KEY": SECRET}
    with serve({**env, "CHAT_SSE_LOGIN_URL": "/login?next={url}"}) as service:
        told = without_id(ask(service.url))
    assert (told["accepts"], told["login_url"]) == (["jwt"], "/login?next={url}")
    assert told["content"] == "Please log in to use this service."


def test_a_link_of_a_persons_opens_that_answer_alone(
    service: RunningService, upstream: ScriptedUpstream
) -> None:
    upstream.answer(Say("Hi"), Finish())
    location = ask(service.url, headers=bearer(token(), Prefer="respond-async")).headers["location"]
    assert text_of(events(plain_http.get(service.url + location))) == "Hi"
    without_id(plain_http.get(f"{service.url}/me?{location.partition('?')[2]}"))


def test_openai_is_told_one_name_for_one_person_and_another_for_the_next() -> None:
    from chat_sse.upstreams.openai.request_body import safety_identifier  # noqa: PLC0415

    assert len({safety_identifier(b"k", f"jwt:{who}") for who in ("ada", "bob", "ada")}) == 2
