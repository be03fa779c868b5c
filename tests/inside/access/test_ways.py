"""From the settings to the ways in that are open."""

from typing import Any

import pytest

from chat_sse.access.authentication import Ways
from chat_sse.access.jwks import JwksKeys
from chat_sse.access.jwt import Tokens
from chat_sse.access.opening import open_ways
from chat_sse.access.principal import Principal
from chat_sse.settings import SettingsError, load_settings
from tests.support.tokens import SECRET, pem, token

ADA = "ada:0123456789abcdef"


def ways(*, asks_application: bool | None = None, **variables: str) -> Ways:
    env = {f"CHAT_SSE_{name.upper()}": value for name, value in variables.items()}
    settings = load_settings({"OPENAI_API_KEY": "sk-x", **env})
    if asks_application is None:
        return open_ways(settings)
    return open_ways(settings, asks_application=asks_application)


def test_without_settings_anybody_may_ask_and_nobody_can_prove_anything() -> None:
    open_ = ways()
    assert (open_.anonymous, open_.need_nothing) == (True, True)
    assert (open_.tokens, open_.cookie, open_.user_header) == (None, None, None)
    beside = ways(asks_application=True)
    assert (beside.anonymous, beside.need_nothing) == (False, True)
    assert ways(asks_application=True, may_ask="anonymous").anonymous


def test_what_the_settings_set_up_is_open_unless_they_leave_it_out() -> None:
    told: dict[str, Any] = {"api_keys": ADA, "jwt_key": SECRET, "jwt_cookie": "session"}
    told |= {"user_header": "X-User", "trusted_proxies": "10.0.0.1", "login_url": "/login"}
    all_ = ways(**told)
    assert all_.keys.owner_of(b"0123456789abcdef") == "ada"
    assert all_.tokens is not None
    assert (all_.cookie, all_.user_header) == (b"session", b"x-user")
    assert (all_.anonymous, all_.need_nothing) == (False, False)
    some = ways(may_ask="keys", **told)
    assert "ada" in some.keys
    assert (some.tokens, some.user_header, some.anonymous) == (None, None, False)
    others = ways(may_ask="jwt,proxy,anonymous", **told)
    assert not others.keys
    assert (others.tokens is not None, others.user_header, others.anonymous) == (True, b"x-user", True)


def test_a_tokens_key_is_in_the_settings_or_where_they_say() -> None:
    said: dict[str, Any] = {"jwt_issuer": "i", "jwt_audience": "a,b", "jwt_principal": "email"}
    reader = ways(jwt_key=pem("one"), **said).tokens
    assert isinstance(reader, Tokens)
    for audience, issuer in (("a", "i"), ("b", "i")):
        found = reader.principal_of(token(email="x@y", aud=audience, iss=issuer).encode(), "")
        assert isinstance(found, Principal)
        assert found.name == "x@y"
    for audience, issuer in (("c", "i"), ("a", "j")):
        found = reader.principal_of(token(email="x@y", aud=audience, iss=issuer).encode(), "")
        assert isinstance(found, Principal)
        assert found.refusal
    published = ways(jwt_key="https://login.example/keys", **said).tokens
    assert isinstance(vars(published)["_keys"], JwksKeys)


def test_a_key_that_is_none_is_named_and_not_quoted() -> None:
    broken = pem("one").replace("M", "!")
    with pytest.raises(SettingsError, match="CHAT_SSE_JWT_KEY is no key for RS256") as raised:
        ways(jwt_key=broken)
    assert broken[40:80] not in str(raised.value)
