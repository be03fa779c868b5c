"""Which tokens are believed and whose they are; the key is one of the settings, or comes while one waits."""

import time
from collections.abc import Awaitable
from typing import Any

import jwt
import pytest
from jwt.warnings import InsecureKeyLengthWarning

from chat_sse.access.jwt import KeysUnavailable, StaticKey, Tokens
from chat_sse.access.principal import Allowance, Principal
from tests.support.tokens import AUDIENCE, ISSUER, SECRET, pem, rsa_key, token

ADDRESS = "203.0.113.9"


def tokens(keys: Any = None, **options: Any) -> Tokens:
    expected = {"algorithms": ["RS256"], "issuer": ISSUER, "audience": [AUDIENCE], "principal_claim": "sub"}
    return Tokens(keys or StaticKey(pem("one"), ["RS256"]), **(expected | options))


def read(text: str, **options: Any) -> Principal:
    found = tokens(**options).principal_of(text.encode(), ADDRESS)
    assert isinstance(found, Principal)
    return found


def refused(text: str, **options: Any) -> str | None:
    found = read(text, **options)
    assert (found.owner, found.client, found.retry_after) == ("", ADDRESS, None)
    return found.refusal


def test_a_good_token_is_its_persons() -> None:
    assert read(token("ada/x@y")) == Principal(
        owner="jwt:ada%2Fx@y", client="jwt:ada%2Fx@y", name="ada/x@y", allowance=Allowance()
    )
    for name in ("Ada", "A"):
        assert read(token("a", name=name)).name == name
    for none in ("", "x" * 256, 1, None):
        assert read(token("a", name=none)).name == "a"
    assert read(token("a", name="x" * 255)).name == "x" * 255
    assert read(token("\ud800")).client == "jwt:%3F"
    assert read(token(headers={"kid": "another"})).name == "ada"  # there is one key, whatever it is called


@pytest.mark.parametrize(
    ("claim", "name"),
    [
        *(("x", "x"), ("x" * 255, "x" * 255), (42, "42"), (0, "0")),
        *(("x" * 256, None), ("", None), (None, None), (True, None), (1.5, None), (["a"], None)),
    ],
)
def test_a_person_has_a_name_or_a_number(claim: Any, name: str | None) -> None:
    text = token(person=claim)
    if name is None:
        assert refused(text, principal_claim="person") == "MissingRequiredClaimError"
    else:
        assert read(text, principal_claim="person").name == name


def test_a_token_counts_from_its_time_to_its_end_with_ten_seconds_for_clocks_that_differ() -> None:
    now = time.time()
    assert read(token(exp=now - 8)).refusal is None
    assert refused(token(exp=int(now) - 10)) == "ExpiredSignatureError"
    assert read(token(nbf=now + 9)).refusal is None
    assert refused(token(nbf=now + 30)) == "ImmatureSignatureError"
    assert refused(token(exp=None)) == "MissingRequiredClaimError"


def test_a_token_is_for_us_and_of_our_issuer_where_we_say_so() -> None:
    assert refused(token(aud="another")) == "InvalidAudienceError"
    assert refused(token(iss="another")) == "InvalidIssuerError"
    assert refused(token(), audience=[]) == "InvalidAudienceError"
    assert read(token(aud=None, iss=None), audience=[], issuer=None).name == "ada"
    assert read(token(aud="b"), audience=["a", "b"]).name == "ada"


def test_only_the_settings_say_how_a_token_is_verified() -> None:
    good = token()
    assert refused(token(algorithm="RS512")) == "InvalidAlgorithmError"
    assert refused(token(key=None)) == "InvalidAlgorithmError"
    assert refused(token(key="evil")) == "InvalidSignatureError"
    assert refused(good + "x" * (8193 - len(good))) == "InvalidTokenError"
    assert refused(good + "x" * (8192 - len(good))) != "InvalidTokenError"
    assert refused("no.good.token") == "DecodeError"


class WeakKey:
    """The key "weak", as a set of keys may have it."""

    def find(self, _: str | None, __: str) -> Any:
        return rsa_key("weak", 1024).public_key()

    def renew(self) -> None:
        raise AssertionError("there is a key")


def test_a_published_key_that_is_too_short_verifies_nothing() -> None:
    said = {"sub": "ada", "exp": time.time() + 60}
    with pytest.warns(InsecureKeyLengthWarning):
        weak = jwt.encode(said, rsa_key("weak", 1024), "RS256")
    assert refused(weak, keys=WeakKey(), audience=[], issuer=None) == "InvalidKeyError"


def test_a_tokens_own_limits_are_obeyed_and_one_with_others_is_refused() -> None:
    own = {"models": ["m"], "tokens": "10/day", "rate": "5/minute"}
    assert read(token(chat_sse=own)).allowance == Allowance(models=("m",), tokens="10/day", rate="5/minute")
    for wrong in ({"rates": "1/day"}, {"rate": "often"}, ["m"]):
        assert refused(token(chat_sse=wrong)) == "InvalidTokenError"


def test_a_key_is_for_its_algorithms_or_is_refused_without_being_quoted() -> None:
    one_line = StaticKey(pem("one").replace("\n", "\\n"), ["RS256", "PS256"])
    assert read(token(), keys=one_line).name == "ada"
    assert one_line.find(None, "RS512") is None
    for text, algorithm, words in (
        ("no key", "RS256", "is no key for RS256"),
        (SECRET, "ES256", "is no key for ES256"),
        (pem("one"), "EdDSA", "is no key for EdDSA"),
        ("x" * 31, "HS256", "is too short a key for HS256"),
        (SECRET, "HS512", "is too short a key for HS512"),
    ):
        with pytest.raises(ValueError, match=words) as raised:
            StaticKey(text, [algorithm])
        assert str(raised.value) == words
    assert StaticKey("x" * 32, ["HS256"]).find("any", "HS256") == b"x" * 32


class LateKeys:
    """Keys that have to be fetched first; or cannot be."""

    def __init__(self, *, brings: bool = True, away: float | None = None, at_once: bool = False) -> None:
        self._keys = StaticKey(pem("one"), ["RS256"])
        self._brings, self._away, self._at_once = brings, away, at_once
        self.is_there = self.is_closed = False

    def find(self, kid: str | None, algorithm: str) -> Any:
        return self._keys.find(kid, algorithm) if self.is_there and self._brings else None

    def renew(self) -> Awaitable[None] | None:
        if self._away is not None and self._at_once:
            raise KeysUnavailable(self._away)
        return None if self._at_once else self._fetch()

    async def _fetch(self) -> None:
        if self._away is not None:
            raise KeysUnavailable(self._away)
        self.is_there = True

    async def aclose(self) -> None:
        self.is_closed = True


async def outcome(keys: LateKeys, text: str) -> Principal:
    found = tokens(keys).principal_of(text.encode(), ADDRESS)
    return found if isinstance(found, Principal) else await found


async def test_a_token_whose_key_is_not_known_waits_for_it() -> None:
    keys = LateKeys()
    assert (await outcome(keys, token())).name == "ada"
    assert isinstance(tokens(keys).principal_of(token().encode(), ADDRESS), Principal)
    for late, why in (
        (LateKeys(brings=False), "InvalidKeyError"),
        (LateKeys(at_once=True), "InvalidKeyError"),
    ):
        found = await outcome(late, token())
        assert found == Principal(owner="", client=ADDRESS, refusal=why)


@pytest.mark.parametrize("at_once", [False, True])
async def test_while_keys_cannot_be_fetched_a_token_is_neither_good_nor_bad(at_once: bool) -> None:
    found = await outcome(LateKeys(away=7.0, at_once=at_once), token())
    assert found == Principal(owner="", client=ADDRESS, refusal="KeysUnavailable", retry_after=7.0)


async def test_closing_ends_what_the_keys_have_under_way() -> None:
    keys = LateKeys()
    await tokens(keys).aclose()
    assert keys.is_closed
    static = StaticKey(SECRET, ["HS256"])
    await tokens(static).aclose()
