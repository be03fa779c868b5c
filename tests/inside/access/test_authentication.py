"""Who a request comes from: by a key, a token, a cookie, a proxy, a link, or the application around."""

import asyncio
from collections.abc import Awaitable
from typing import Any

import msgspec
import pytest
from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from chat_sse.access.address import ClientAddresses
from chat_sse.access.authentication import Authentication, Ways
from chat_sse.access.keys import KeyRing
from chat_sse.access.links import Links
from chat_sse.access.principal import Authenticate, Principal

LINKS = Links("a secret key of thirty-two bytes!", life_seconds=60)
PEER, PROXY = "203.0.113.9", "10.0.0.1"
KEYS = KeyRing(["ada:one"])


class FakeTokens:
    """Believes every token: its text is the person's name. One that begins with a dot must be looked up."""

    def principal_of(self, token: bytes, address: str) -> Principal | Awaitable[Principal]:
        name = token.decode()
        if name == "bad":
            return Principal(owner="", client=address, refusal="bad")
        person = Principal(owner=f"jwt:{name}", client=f"jwt:{name}", name=name)
        return asyncio.sleep(1, person) if name.startswith(".") else person

    async def aclose(self) -> None:
        """Nothing is under way."""


WAYS = Ways(keys=KEYS, tokens=FakeTokens(), cookie=b"session", user_header=b"x-user", anonymous=True)


async def state_of(
    *headers: tuple[str, str],
    ways: Ways = WAYS,
    peer: str = PEER,
    query: str = "",
    authenticate: Authenticate | None = None,
    kind: str = "http",
) -> dict[str, Any]:
    """Return what a request's handler finds in its state."""
    seen: list[dict[str, Any]] = []

    async def app(scope: Scope, _: Receive, __: Send) -> None:
        seen.append(scope["state"])

    guard = Authentication(
        app, ways=ways, links=LINKS, addresses=ClientAddresses([PROXY]), authenticate=authenticate
    )
    scope: dict[str, Any] = {
        "type": kind,
        "client": (peer, 1),
        "headers": [(name.encode(), value.encode("latin-1")) for name, value in headers],
        "query_string": query.encode(),
        "state": {},
    }
    await guard(scope, None, None)  # type: ignore[arg-type]
    [state] = seen
    return state


async def principal(*headers: tuple[str, str], **options: Any) -> Principal:
    found: Principal = (await state_of(*headers, **options))["principal"]
    return found


async def refusal(*headers: tuple[str, str], **options: Any) -> str | None:
    found = await principal(*headers, **options)
    if found.refusal is not None:
        assert (found.owner, found.client) == ("", options.get("peer", PEER))
    return found.refusal


def bearer(text: str) -> tuple[str, str]:
    return "authorization", f"Bearer {text}"


def only(**ways: Any) -> Ways:
    """Return ways of which only these are open."""
    return Ways(**({"keys": KeyRing([])} | ways))


ADA = Principal(owner="ada", client="key:ada", name="ada")


@pytest.mark.parametrize("text", ["Bearer one", "bearer one", "BEARER  one "])
async def test_a_keys_owner_asks_as_its_name(text: str) -> None:
    assert await principal(("authorization", text)) == ADA
    assert await principal(("authorization", text), ways=only(keys=KEYS)) == ADA


async def test_what_is_no_key_is_a_token_where_tokens_are_taken() -> None:
    assert (await principal(bearer("eve"))).client == "jwt:eve"
    assert (await principal(bearer("one"), ways=only(tokens=FakeTokens()))).client == "jwt:one"
    assert await refusal(bearer("eve"), ways=only(keys=KEYS)) == "not one of the keys"


async def test_the_first_credential_counts_and_a_wrong_one_is_not_made_up_for() -> None:
    cookie, user, link = ("cookie", "session=bob"), ("x-user", "cy"), f"token={LINKS.token('a', 'ada')}"
    assert await refusal(bearer("bad"), cookie, user, peer=PROXY, query=link) == "bad"
    assert (await principal(bearer("one"), cookie)).name == "ada"
    assert (await principal(cookie, user, peer=PROXY, query=link)).name == "bob"
    assert (await principal(user, peer=PROXY, query=link)).name == "cy"
    assert (await principal(peer=PROXY, query=link)).answer == "a"
    assert await refusal(bearer("one"), bearer("one")) == "two Authorization fields"
    assert await refusal(("authorization", "Basic eDp5"), query=link) == "Authorization of another kind"


async def test_where_nobody_can_prove_anything_all_are_addresses_whatever_they_send() -> None:
    for ways in (only(), only(anonymous=True), only(cookie=b"session")):
        assert await principal(bearer("x"), ("cookie", "session=bob"), ways=ways) == Principal(client=PEER)
    for ways in (only(keys=KEYS), only(tokens=FakeTokens()), only(user_header=b"x-user")):
        assert await refusal(ways=ways) == "no credential"
        anonymous = msgspec.structs.replace(ways, anonymous=True)
        assert await principal(ways=anonymous) == Principal(client=PEER)
    assert await refusal(bearer("x"), ways=only(user_header=b"x-user")) == "Authorization of another kind"


@pytest.mark.parametrize(
    ("fields", "found"),
    [
        (["theme=dark; session=bob; a=b"], "bob"),
        (['session="bob"'], "bob"),
        (["session = bob "], "bob"),
        (["a=b", "session=bob"], "bob"),
        (["session=bob; session=bob"], "two cookies"),
        (["session=bob", "session="], "two cookies"),
        (["session"], None),
        (["Session=bob; xsession=bob"], None),
    ],
)
async def test_a_token_may_be_in_the_cookie_once(fields: list[str], found: str | None) -> None:
    caller = await principal(*(("cookie", field) for field in fields))
    assert (caller.name or caller.refusal) == found
    for ways in (only(keys=KEYS, cookie=b"session"), only(tokens=FakeTokens())):
        assert await refusal(*(("cookie", field) for field in fields), ways=ways) == "no credential"


async def test_only_a_trusted_proxy_says_who_somebody_is() -> None:
    ways = only(user_header=b"x-user")
    caller = await principal(("x-user", "ada@x.org/ä"), ways=ways, peer=PROXY)
    assert caller.owner == caller.client == "proxy:ada@x.org%2F%E4"
    assert caller.name == "ada@x.org/�"
    assert await refusal(("x-user", "ada"), ways=ways) == "no credential"
    assert await refusal(("x-user", ""), ways=ways, peer=PROXY) == "no credential"
    assert await refusal(("x-user", "ada"), ways=only(keys=KEYS), peer=PROXY) == "no credential"
    assert (await principal(("x-user", "a" * 256), ways=ways, peer=PROXY)).name == "a" * 256
    for names in (["ada", "bob"], ["ada", "ada"], ["a" * 257]):
        told = await refusal(*(("x-user", name) for name in names), ways=ways, peer=PROXY)
        assert told == "the proxy names no one person"


async def test_a_link_opens_its_answer_as_long_as_its_owner_could_come_in() -> None:
    async def opens(owner: str, ways: Ways = WAYS, authenticate: Authenticate | None = None) -> bool:
        caller = await principal(
            query=f"x=1&token={LINKS.token('a', owner)}", ways=ways, authenticate=authenticate
        )
        if caller.answer is None:
            assert caller == Principal(owner="", client=PEER, refusal="the link is not valid")
            return False
        assert caller == Principal(owner=owner, client=PEER, answer="a")
        return True

    async def nobody(_: Request) -> None:
        raise AssertionError("a link needs nobody's word")

    for owner in ("ada", "anonymous", "jwt:x", "proxy:x"):
        assert await opens(owner)
    for owner in ("user:x", "key:ada", "eve", "other:x"):
        assert not await opens(owner)
    assert await opens("user:x", authenticate=nobody)
    keys = only(keys=KEYS)
    assert await opens("ada", keys)
    for owner in ("anonymous", "jwt:x", "proxy:x"):
        assert not await opens(owner, keys)
    for query in ("token=", "token=x.y", f"token=x.y&token={LINKS.token('a', 'ada')}"):
        assert await refusal(query=query, ways=keys) == "the link is not valid"
    assert await refusal(query="broken=1", ways=keys) == "no credential"


async def test_an_application_is_asked_about_whoever_proves_nothing() -> None:
    asked: list[str] = []

    async def session(request: Request) -> Principal | None:
        asked.append(request.headers.get("x-session", ""))
        return Principal.named("dora") if asked[-1] else None

    dora = ("x-session", "dora")
    for ways in (only(), WAYS):
        assert (await principal(dora, ways=ways, authenticate=session)).client == "user:dora"
        assert (await principal(dora, bearer("bad"), ways=ways, authenticate=session)).name == "dora"
    assert await refusal(ways=only(), authenticate=session) == "no credential"
    assert (await principal(authenticate=session)).client == PEER
    asked.clear()
    assert (await principal(dora, bearer("one"), authenticate=session)).name == "ada"
    assert (await principal(dora, bearer(".slow"), authenticate=session)).name == ".slow"
    assert asked == []


async def test_a_token_whose_key_must_be_fetched_is_waited_for() -> None:
    loop = asyncio.get_running_loop()
    began = loop.time()
    assert (await principal(bearer(".slow"))).name == ".slow"
    assert loop.time() == began + 1


async def test_the_log_names_who_has_proven_it_and_why_others_were_refused() -> None:
    async def fields(*headers: tuple[str, str], ways: Ways = WAYS) -> Any:
        return (await state_of(*headers, ways=ways)).get("log_fields")

    assert await fields(bearer("one")) == {"client": "key:ada"}
    assert await fields(bearer("bad")) == {"refused": "bad"}
    assert await fields() is None
    assert await fields(ways=only(keys=KEYS)) is None
    assert await fields(ways=only()) is None


async def test_what_is_no_request_comes_from_nobody() -> None:
    assert await state_of(bearer("one"), kind="lifespan") == {}
    assert await state_of(kind="lifespan", ways=only()) == {}
