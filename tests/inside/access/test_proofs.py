"""What proves who somebody is: keys and links; what an error may repeat; and what a caller may do."""

from typing import Any

import pytest
from starlette.requests import Request

from chat_sse.access.headers import RESPONSE_HEADERS, header, shown
from chat_sse.access.keys import KeyRing
from chat_sse.access.links import Link, Links
from chat_sse.access.principal import Principal, principal_of
from chat_sse.errors import Overloaded, Unauthenticated


def test_a_key_is_known_by_its_secret_alone() -> None:
    ring = KeyRing(["ada:one:with:colons", "bob:two"])
    secrets = (b"one:with:colons", b"two", b"one", b"", b"ada:one:with:colons")
    assert [ring.owner_of(secret) for secret in secrets] == ["ada", "bob", None, None, None]
    assert ("ada" in ring, "eve" in ring, bool(ring), bool(KeyRing([]))) == (True, False, True, False)
    assert "one" not in str(vars(ring))


def test_a_link_says_which_answer_and_whose_until_it_expires() -> None:
    links = Links("a secret key of thirty-two bytes!", life_seconds=60)
    token = links.token("a", "ada")
    link = links.read(token)
    assert isinstance(link, Link)
    assert (link.answer, link.owner) == ("a", "ada")
    assert Links("a secret key of thirty-two bytes!", life_seconds=1).read(token) == link
    for other in ("another key", None):
        assert Links(other, life_seconds=60).read(token) is None
    for forged in (token[:-1], token + "x", "", "x.y", token.swapcase()):
        assert links.read(forged) is None
    assert links.read(Links("a secret key of thirty-two bytes!", life_seconds=-1).token("a", "ada")) is None
    assert (
        links.read(Links("a secret key of thirty-two bytes!", life_seconds=0.5).token("a", "ada")) is not None
    )


def test_a_token_of_the_same_key_that_is_no_link_is_none() -> None:
    links = Links("key", life_seconds=60)
    serializer: Any = vars(links)["_serializer"]
    for other in ("text", ["a", "ada"], ["a", "ada", "soon"], {"answer": "a"}):
        assert links.read(serializer.dumps(other)) is None


def test_a_header_is_the_first_of_its_name_and_an_error_repeats_its_beginning() -> None:
    scope = {"headers": [(b"a", b"\xe9"), (b"b", b"2"), (b"a", b"3")]}
    assert (header(scope, b"a"), header(scope, b"b"), header(scope, b"c")) == ("é", "2", None)
    assert shown(b"x" * 500 + b"\xe9") == "x" * 200
    assert dict(RESPONSE_HEADERS)[b"cache-control"] == b"no-store"


def caller(principal: Principal, answer: str | None = None) -> Principal:
    return principal_of(Request({"type": "http", "state": {"principal": principal}}), answer)


def test_a_link_is_good_for_its_answer_alone_and_a_refused_caller_for_nothing() -> None:
    anybody, linked = Principal(client="c"), Principal(client="c", answer="a")
    assert caller(anybody) is caller(anybody, "a") is anybody
    assert caller(linked, "a") is linked
    refused = Principal(client="c", refusal="no credential")
    for principal, answer in ((linked, None), (linked, "b"), (refused, None), (refused, "a")):
        with pytest.raises(Unauthenticated):
            caller(principal, answer)
    unknown = Principal(client="c", refusal="the keys cannot be fetched", retry_after=0.0)
    with pytest.raises(Overloaded) as raised:
        caller(unknown)
    assert raised.value.retry_after == 0
    assert type(raised.value) is Overloaded


def test_a_name_that_an_application_gives_is_one_word_without_a_slash() -> None:
    named = Principal.named("ada/lovelace @ x")
    assert named.client == named.owner == "user:ada%2Flovelace%20@%20x"
    assert named.name == "ada/lovelace @ x"
