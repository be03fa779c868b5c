"""Keys that an issuer publishes: fetched once, kept while it is away, changed under load."""

import base64
import json
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import jwt
import pytest
import trustme

from chat_sse.access.jwks import MAX_SET_BYTES, RENEW_SECONDS
from tests.conftest import QUICK
from tests.support import plain_http
from tests.support.service import RunningService, ask, serve, until
from tests.support.tokens import (
    AUDIENCE,
    ISSUER,
    JwksServer,
    bearer,
    claims,
    jwk,
    jwks_server,
    rsa_key,
    token,
)
from tests.support.upstream import ScriptedUpstream
from tests.support.web import Handler


@pytest.fixture
def jwks() -> Iterator[JwksServer]:
    with jwks_server("one") as server:
        yield server


@contextmanager
def serving(upstream: ScriptedUpstream, url: str, **env: str) -> Iterator[RunningService]:
    expected = {"CHAT_SSE_JWT_ISSUER": ISSUER, "CHAT_SSE_JWT_AUDIENCE": AUDIENCE}
    upstream_url = {"OPENAI_BASE_URL": upstream.base_url}
    with serve({**QUICK, **expected, **upstream_url, "CHAT_SSE_JWT_KEY": url, **env}) as service:
        yield service
        assert "eyJ" not in service.log()


def status(service: RunningService, text: str) -> int:
    return plain_http.get(f"{service.url}/me", headers=bearer(text), timeout=20).status_code


def test_keys_come_over_tls_once_for_all_that_ask(upstream: ScriptedUpstream, tmp_path: Path) -> None:
    authority, context = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    with jwks_server("one", tls=context) as jwks:
        with serving(upstream, jwks.url, SSL_CERT_FILE=str(tmp_path / "ca.pem")) as service:
            with ThreadPoolExecutor(8) as pool:
                asked = [pool.submit(ask, service.url, headers=bearer(token())) for _ in range(16)]
            assert {one.result().status_code for one in asked} == {200}
        assert jwks.requests == ["/jwks"]
        with serving(upstream, jwks.url) as stranger:  # it does not know who vouches for the issuer
            assert status(stranger, token()) == 503
    assert upstream.paid_calls == 16


def test_pages_and_health_checks_need_no_keys(upstream: ScriptedUpstream, jwks: JwksServer) -> None:
    with serving(upstream, jwks.url) as service:
        for path in ("/", "/ask.js", "/healthz", "/readyz"):
            assert plain_http.get(service.url + path).status_code == 200
        assert status(service, "no.good.token") == 401
    assert jwks.requests == []


def cut(request: Handler) -> None:
    request.connection.shutdown(socket.SHUT_RDWR)


def endless(request: Handler) -> None:
    request.send_response(200)
    request.end_headers()
    with suppress(OSError):
        while True:
            request.wfile.write(b'{"keys": [' + b" " * 65536)


AWAY: dict[str, Callable[[Handler], None]] = {
    "an error": lambda request: request.reply(500),
    "a redirect": lambda request: request.reply(302, Location="/elsewhere"),
    "a cut": cut,
    "without end": endless,
}


@pytest.mark.parametrize("kind", AWAY)
def test_while_the_issuer_is_away_known_keys_go_on_and_others_get_503(
    upstream: ScriptedUpstream, jwks: JwksServer, kind: str
) -> None:
    with serving(upstream, jwks.url) as service:
        assert status(service, token()) == 200
        time.sleep(1.1)  # the bound after a fetch that has brought a key
        jwks.answer = AWAY[kind]
        for _ in range(2):
            response = ask(service.url, headers=bearer(token(key="two")))
            assert (response.status_code, response.json()["error"]) == (503, "overloaded"), response.text
            assert 0 < int(response.headers["retry-after"]) <= RENEW_SECONDS
            assert status(service, token()) == 200
        service.wait_for_log("jwks.unavailable host=127.0.0.1 reason=")
    assert jwks.requests == ["/jwks", "/jwks"]
    assert upstream.calls == []


def test_made_up_ids_of_keys_make_one_request_and_none_to_where_they_lead(
    upstream: ScriptedUpstream, jwks: JwksServer
) -> None:
    with jwks_server("evil") as trap, serving(upstream, jwks.url) as service:
        assert status(service, token()) == 200
        time.sleep(1.1)
        names = ["../one", "one/../one", "/etc/passwd", trap.url, "one\x00", "x" * 2000, "'; --", "{}", ""]
        heads = [{"kid": name, "jku": trap.url, "x5u": trap.url} for name in names]
        evil = [token(key="evil", headers=head) for head in heads]
        with ThreadPoolExecutor(8) as pool:
            statuses = list(pool.map(lambda text: status(service, text), evil * 3))
        assert set(statuses) == {401}
        assert status(service, token(headers={"jku": trap.url})) == 200  # it is ours, and leads nowhere
        assert trap.requests == []
    assert jwks.requests == ["/jwks", "/jwks"]


def test_keys_change_under_load_and_nobody_notices(upstream: ScriptedUpstream, jwks: JwksServer) -> None:
    enough, statuses = threading.Event(), list[tuple[str, int]]()
    current = ["one"]

    def keep_asking(service: RunningService, signer: Callable[[], str]) -> None:
        while not enough.is_set():
            name = signer()
            statuses.append((name, ask(service.url, headers=bearer(token(key=name))).status_code))

    with serving(upstream, jwks.url) as service, ThreadPoolExecutor(6) as pool:
        for _ in range(3):
            pool.submit(keep_asking, service, lambda: "one")
            pool.submit(keep_asking, service, lambda: current[0])
        try:
            for following in ("two", "three"):
                until(lambda: (current[0], 200) in statuses)
                time.sleep(1.1)
                jwks.keys.append(jwk(following))
                current[0] = following
            until(lambda: ("three", 200) in statuses)
        finally:
            enough.set()
    assert {code for _, code in statuses} == {200}
    assert len(jwks.requests) == 3
    assert upstream.paid_calls == len(statuses)


def hmac_of(secret: bytes, kid: str) -> str:
    return jwt.encode(claims(), secret, "HS256", {"kid": kid})


def test_only_public_keys_of_a_set_that_fit_the_algorithm_verify_anything(
    upstream: ScriptedUpstream, jwks: JwksServer
) -> None:
    secret = b"a secret of 32 bytes, and of some more"
    oct_key = {"kty": "oct", "kid": "oct", "k": base64.urlsafe_b64encode(secret).rstrip(b"=").decode()}
    jwks.keys = [
        oct_key,
        jwk("encrypts", use="enc"),
        jwk("other", alg="RS512"),
        jwk("broken", n="AQ"),
        {"kty": "RSA", "kid": "empty"},
        {"kid": "none at all"},
        jwk("one"),
    ]
    with serving(upstream, jwks.url) as service:
        assert status(service, token()) == 200
        refused = [hmac_of(secret, "oct"), hmac_of(b"x" * 40, "one")]
        refused += [token(key=name) for name in ("encrypts", "other", "broken", "empty")]
        assert [status(service, text) for text in refused] == [401] * len(refused)


def without_kid(name: str) -> str:
    return jwt.encode(claims(), rsa_key(name), "RS256")


def test_a_token_that_names_no_key_means_the_only_one(upstream: ScriptedUpstream, jwks: JwksServer) -> None:
    with serving(upstream, jwks.url) as service:
        assert status(service, without_kid("one")) == 200
    jwks.keys.append(jwk("two"))
    with serving(upstream, jwks.url) as service:
        assert status(service, without_kid("one")) == 401
        assert status(service, token(key="two")) == 200


def test_a_set_of_thousands_of_keys_is_only_a_long_list(upstream: ScriptedUpstream, jwks: JwksServer) -> None:
    jwks.keys = [jwk("many", kid=str(number)) for number in range(2_200)] + [jwk("one")]
    assert len(json.dumps({"keys": jwks.keys})) < MAX_SET_BYTES
    with serving(upstream, jwks.url) as service:
        assert status(service, token()) == 200
        assert status(service, token(key="evil", headers={"kid": "2199"})) == 401
        assert status(service, token(key="many", headers={"kid": "2199"})) == 200
