"""Keys that an issuer publishes: when they are fetched, which are used, and what its failures cost."""

import asyncio
import base64
import json
from collections.abc import Awaitable
from typing import Any

import jwt
import pytest

from chat_sse.access.jwks import Jwk, JwksKeys
from chat_sse.access.jwt import KeysUnavailable
from tests.support.fakes import turns
from tests.support.network import Wire, network
from tests.support.tokens import jwk

URL = "http://127.0.0.1:9000/keys"
FRESH, RENEW, SOON, DEADLINE = 300, 10, 1, 5
AES = {"kty": "oct", "kid": "secret", "k": base64.urlsafe_b64encode(b"x" * 32).decode()}


def publish(*keys: Any, status: str = "200 OK", body: bytes | None = None) -> None:
    """Let the issuer answer from now on with these keys; each answer ends its connection."""
    text = json.dumps({"keys": keys}).encode() if body is None else body

    def play(wire: Wire, _: bytes) -> None:
        wire.reply(b"HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n%s" % (status.encode(), len(text), text))

    network().play = play


def silence() -> None:
    """Let the issuer take requests, and say nothing to them."""
    network().play = lambda *_: None


def fetches() -> int:
    return len(network().wires)


def published() -> JwksKeys:
    return JwksKeys(URL, network().time)


async def renewed(keys: JwksKeys) -> bool:
    """Look for new keys. Returns whether they were fetched."""
    renewal: Awaitable[None] | None = keys.renew()
    if renewal is None:
        return False
    await renewal
    await turns()
    return True


async def failure(keys: JwksKeys) -> float:
    """Look for new keys in vain. Returns when one may try again."""
    with pytest.raises(KeysUnavailable) as raised:
        await renewed(keys)
    await turns()
    return raised.value.retry_after


async def loaded(*keys: Any) -> JwksKeys:
    publish(*keys)
    found = published()
    assert await renewed(found)
    return found


async def test_keys_are_fetched_when_one_is_wanted_that_is_not_known() -> None:
    publish(jwk("one"))
    keys = published()
    assert keys.find("one", "RS256") is None
    assert fetches() == 0
    assert await renewed(keys)
    key = keys.find("one", "RS256")
    assert isinstance(key, jwt.PyJWK)
    assert keys.find("one", "RS256") is key
    [wire] = network().wires
    head = wire.requests[0].lower()
    assert head.startswith(b"get /keys http/1.1\r\n")
    assert b"\r\naccept: application/json\r\n" in head
    assert b"\r\naccept-encoding: identity\r\n" in head
    assert network().destinations == [("127.0.0.1", 9000)]
    await keys.aclose()


async def test_all_who_want_keys_wait_for_one_fetch_and_one_who_leaves_does_not_end_it() -> None:
    publish(jwk("one"))
    keys = published()
    waiting = [asyncio.ensure_future(renewed(keys)) for _ in range(5)]
    await asyncio.sleep(0)
    waiting.pop().cancel()
    assert await asyncio.gather(*waiting) == [True] * 4
    assert fetches() == 1


async def test_unknown_keys_are_looked_for_once_in_ten_seconds_and_in_one_after_a_new_one() -> None:
    keys = await loaded(jwk("one"))
    publish(jwk("one"), jwk("two"))
    await asyncio.sleep(SOON - 0.1)
    assert not await renewed(keys)
    await asyncio.sleep(0.1)
    assert await renewed(keys)  # it has brought a new one
    await asyncio.sleep(SOON)
    assert await renewed(keys)
    await asyncio.sleep(RENEW - 0.1)
    assert not await renewed(keys)
    await asyncio.sleep(0.1)
    assert await renewed(keys)
    assert fetches() == 4
    assert keys.find("two", "RS256") is not None


async def test_a_key_that_was_taken_back_is_forgotten_after_five_minutes() -> None:
    keys = await loaded(jwk("one"))
    publish(jwk("two"))
    await asyncio.sleep(FRESH - 0.1)
    keys.find("one", "RS256")
    await turns()
    assert fetches() == 1
    await asyncio.sleep(0.1)
    assert keys.find("one", "RS256") is not None  # nobody waits for the new set
    await asyncio.sleep(0.1)
    assert keys.find("one", "RS256") is None
    assert keys.find("two", "RS256") is not None
    assert fetches() == 2
    await asyncio.sleep(FRESH - 0.1)
    keys.find("two", "RS256")
    await asyncio.sleep(0.1)
    assert fetches() == 3


async def test_keys_outlive_an_issuer_that_is_away() -> None:
    keys = await loaded(jwk("one"))
    publish(status="500 No")
    for number in range(3):
        await asyncio.sleep(FRESH)
        assert keys.find("one", "RS256") is not None
        assert await failure(keys) == RENEW
        assert await failure(keys) == RENEW
        await asyncio.sleep(RENEW - 3)
        assert await failure(keys) == 3
        assert fetches() == number + 2
        assert keys.find("one", "RS256") is not None
    await asyncio.sleep(2.9)
    assert await failure(keys) == 1  # a tenth of a second is no time to wait
    publish(jwk("one"))
    await asyncio.sleep(0.1)
    assert await renewed(keys)
    await asyncio.sleep(1)
    assert await renewed(keys) is False  # it brought none that is new


@pytest.mark.parametrize(
    "answer",
    [
        {"status": "500 No"},
        {"status": "302 Elsewhere"},
        {"status": "201 Created"},
        {"body": b""},
        {"body": b"<!doctype html>"},
        {"body": b'{"key": []}'},
        {"body": b"[]"},
        {"body": b'{"keys": ["one"]}'},
        {"body": b'{"keys": {}}'},
        {"body": b'{"keys": [{"kty": "\xff"}]}'},
        {"body": b"[" * 100_000},
        {"body": b'{"keys": []}' + b" " * 1_048_565},
    ],
)
async def test_what_is_no_set_of_keys_is_an_issuer_that_is_away(answer: dict[str, Any]) -> None:
    publish(jwk("one"), **answer)
    keys = published()
    assert await failure(keys) == RENEW
    assert keys.find("one", "RS256") is None
    await asyncio.sleep(FRESH + 1)
    keys.find("one", "RS256")  # a set that never came is not stale
    await turns()
    assert fetches() == 1


async def test_a_set_may_be_as_large_as_a_mebibyte() -> None:
    publish(body=json.dumps({"keys": [jwk("one")]}).encode().ljust(1_048_576))
    keys = published()
    assert await renewed(keys)
    assert keys.find("one", "RS256") is not None


async def test_silence_and_a_cut_are_an_issuer_that_is_away() -> None:
    silence()
    keys = published()
    began = network().time()
    assert await failure(keys) == RENEW
    assert network().time() == began + DEADLINE
    network().play = lambda wire, _: wire.abort()
    await asyncio.sleep(RENEW)
    assert await failure(keys) == RENEW
    assert network().time() == began + DEADLINE + RENEW
    assert all(wire.is_closed for wire in network().wires)
    publish(jwk("one"))
    await asyncio.sleep(RENEW)
    assert await renewed(keys)
    assert keys.find("one", "RS256") is not None


async def test_a_set_that_drips_in_has_five_seconds_as_a_whole() -> None:
    def drip(wire: Wire, _: bytes) -> None:
        wire.reply(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        for second in range(20):
            network().call_later(second, wire.reply, b" ")

    network().play = drip
    keys = published()
    began = network().time()
    await failure(keys)
    assert network().time() == began + DEADLINE


async def test_closing_ends_a_fetch_that_is_under_way() -> None:
    silence()
    keys = published()
    waiting = asyncio.ensure_future(renewed(keys))
    await turns(20)
    assert fetches() == 1
    began = network().time()
    await keys.aclose()
    assert network().wires[0].is_closed
    await waiting
    assert network().time() == began
    await keys.aclose()


async def test_no_proxy_leads_to_this_machine_and_one_may_lead_to_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for variable in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"):
        monkeypatch.setenv(variable, "http://192.0.2.9:3128")
    await loaded(jwk("one"))
    network().play = lambda wire, _: wire.abort()
    await failure(JwksKeys("https://login.example/keys", network().time))
    assert network().destinations == [("127.0.0.1", 9000), ("192.0.2.9", 3128)]


async def test_only_public_keys_for_signatures_that_fit_the_algorithm_verify_anything() -> None:
    broken = jwk("broken", n="AQ")
    keys = await loaded(
        AES,
        {"kid": "no kind"},
        {"kty": 1, "kid": "a number's kind"},
        {"kty": "RSA", "kid": "empty"},
        broken,
        jwk("encrypts", use="enc"),
        jwk("private", d="AQ"),
        jwk("other", alg="RS512"),
        jwk("any", use=None, alg=None),
        jwk("one"),
    )
    for kid in ("secret", "no kind", "a number's kind", "empty", "broken", "encrypts", "private", "other"):
        assert keys.find(kid, "RS256") is None, kid
    assert keys.find("secret", "HS256") is None
    assert keys.find("one", "ES256") is None
    assert keys.find("one", "RS256") is not None
    for algorithm in ("RS256", "PS384"):
        assert keys.find("any", algorithm) is not None


async def test_a_token_that_names_no_key_means_the_only_one() -> None:
    only = await loaded(jwk("one"), {"kid": "no kind"}, jwk("encrypts", use="enc"))
    assert only.find(None, "RS256") is not None
    several = await loaded(jwk("one"), jwk("two"))
    assert several.find(None, "RS256") is None
    assert several.find("two", "RS256") is not None
    unnamed = await loaded({key: value for key, value in jwk("one").items() if key != "kid"})
    assert unnamed.find(None, "RS256") is not None
    assert unnamed.find("one", "RS256") is None


@pytest.mark.parametrize(
    ("kind", "algorithm", "fits"),
    [
        *(("RSA", "RS256", True), ("RSA", "PS512", True), ("EC", "ES384", True), ("OKP", "EdDSA", True)),
        *(("RSA", "ES256", False), ("EC", "RS256", False), ("oct", "HS256", False), ("RSA", "none", False)),
    ],
)
def test_a_key_fits_the_algorithms_of_its_kind(kind: str, algorithm: str, fits: bool) -> None:
    assert Jwk(kty=kind).fits(algorithm) == fits
    assert Jwk(kty=kind, alg=algorithm).fits(algorithm) == fits
    assert not Jwk(kty=kind, alg="another").fits(algorithm)
