"""Who may ask: pure ASGI, in front of every handler.

It only finds out; the handlers refuse, by `principal_of`. So there is no list of protected paths that could
differ from the routes, and a handler that works for somebody cannot forget to ask for whom.
"""

from collections.abc import Awaitable, Iterator, Sequence
from typing import Protocol, TypeAlias
from urllib.parse import parse_qs, quote_from_bytes

import msgspec
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from chat_sse.access.address import ClientAddresses
from chat_sse.access.keys import KeyRing
from chat_sse.access.links import Links
from chat_sse.access.principal import NO_CREDENTIAL, USER_PREFIX, Authenticate, Principal
from chat_sse.settings.callers import ANONYMOUS, JWT, PROXY

MAX_NAME_BYTES = 256

Found: TypeAlias = Principal | Awaitable[Principal]
"""Who it is; as an awaitable where a key must be fetched first."""


class TokenReader(Protocol):
    """What turns a token into its bearer: `access.jwt.Tokens`, part of an extra."""

    def principal_of(self, token: bytes, address: str) -> Found:
        """Return whose token it is, or a refusal. `address`: what a refused caller counts as."""
        ...

    async def aclose(self) -> None:
        """End what is under way."""
        ...


class Ways(msgspec.Struct, frozen=True, kw_only=True):
    """The ways in that are open."""

    keys: KeyRing
    tokens: TokenReader | None = None
    cookie: bytes | None = None
    """The cookie that may hold a token."""
    user_header: bytes | None = None
    """In lower case: where trusted proxies name the person that they have logged in."""
    anonymous: bool = False
    """Whether one may ask who brings no credential. A wrong credential is refused all the same."""

    @property
    def need_nothing(self) -> bool:
        """Whether nobody can prove anything: then whatever they send is for others."""
        return not (self.keys or self.tokens or self.user_header)


class Authentication:
    """Find out who a request comes from: by a key, a token, a proxy, or the link that it opens."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        ways: Ways,
        links: Links,
        addresses: ClientAddresses,
        authenticate: Authenticate | None = None,
    ) -> None:
        """`authenticate`: is asked about who proves nothing to us."""
        self.app = app
        self._authenticate = authenticate
        self._ways = ways
        self._links = links
        self._addresses = addresses

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Handle a connection, without a coroutine of its own unless somebody must be asked first."""
        if scope["type"] == "http":
            address = self._addresses.client_of(scope)
            if self._ways.need_nothing and self._authenticate is None:
                scope["state"]["principal"] = Principal(client=address)
                return self.app(scope, receive, send)
            found = self._identify(scope, address)
            if not isinstance(found, Principal) or (self._authenticate and not _is_known(found)):
                return self._ask_first(found, scope, receive, send)
            _note(scope, found)
        return self.app(scope, receive, send)

    async def _ask_first(self, found: Found, scope: Scope, receive: Receive, send: Send) -> None:
        principal = found if isinstance(found, Principal) else await found
        if self._authenticate is not None and not _is_known(principal):
            principal = await self._authenticate(Request(scope)) or principal
        _note(scope, principal)
        await self.app(scope, receive, send)

    def _identify(self, scope: Scope, address: str) -> Found:
        """Return who it is by the first credential there is: a wrong one is not made up for by the next."""
        authorization = _fields(scope, b"authorization")
        if len(authorization) > 1:
            return _refused(address, "two Authorization fields")
        found = (
            self._by_bearer(authorization, address)
            or self._by_cookie(scope, address)
            or self._by_proxy(scope, address)
        )
        if found:
            return found
        if authorization:
            return _refused(address, "Authorization of another kind")
        if b"token=" in scope["query_string"]:
            return self._by_link(scope, address)
        return Principal(client=address) if self._ways.anonymous else _refused(address, NO_CREDENTIAL)

    def _by_bearer(self, authorization: Sequence[bytes], address: str) -> Found | None:
        for credentials in authorization:
            scheme, _, secret = credentials.partition(b" ")
            if scheme.lower() != b"bearer" or not (self._ways.keys or self._ways.tokens):
                continue  # where there are neither keys nor tokens, it is for others
            secret = secret.strip()
            if (owner := self._ways.keys.owner_of(secret)) is not None:
                return Principal(owner=owner, client=f"key:{owner}", name=owner)
            if self._ways.tokens:
                return self._ways.tokens.principal_of(secret, address)
            return _refused(address, "not one of the keys")
        return None

    def _by_cookie(self, scope: Scope, address: str) -> Found | None:
        if not self._ways.tokens or not self._ways.cookie:
            return None
        cookies = list(_cookies(scope, self._ways.cookie))
        if len(cookies) > 1:  # a neighbouring host can set one beside the right one
            return _refused(address, "two cookies")
        return self._ways.tokens.principal_of(cookies[0], address) if cookies else None

    def _by_proxy(self, scope: Scope, address: str) -> Found | None:
        """Return whom a proxy has logged in. From anybody else the field is not looked at."""
        if not self._ways.user_header or not self._addresses.trusts_peer(scope):
            return None
        users = [value for value in _fields(scope, self._ways.user_header) if value]
        if not users:
            return None
        if len(users) > 1 or len(users[0]) > MAX_NAME_BYTES:  # one may be the visitor's own
            return _refused(address, "the proxy names no one person")
        person = f"{PROXY}:{quote_from_bytes(users[0], safe='@')}"
        return Principal(owner=person, client=person, name=users[0].decode("utf-8", "replace"))

    def _by_link(self, scope: Scope, address: str) -> Principal:
        [token] = parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])[:1]
        link = self._links.read(token)
        if link is not None and self._may_ask(link.owner):  # a key taken away takes its links along
            return Principal(owner=link.owner, client=address, answer=link.answer)
        return _refused(address, "the link is not valid")

    def _may_ask(self, owner: str) -> bool:
        """Return whether an owner of answers could still come in by itself."""
        way, is_person, _ = owner.partition(":")
        if not is_person:
            return owner in self._ways.keys or (owner == ANONYMOUS and self._ways.anonymous)
        open_ = {
            f"{JWT}:": self._ways.tokens, f"{PROXY}:": self._ways.user_header, USER_PREFIX: self._authenticate
        }  # fmt: skip
        return bool(open_.get(f"{way}:"))


def _is_known(principal: Principal) -> bool:
    """Return whether a principal has proven who it is, or opens a link."""
    return principal.name is not None or principal.answer is not None


def _note(scope: Scope, principal: Principal) -> None:
    scope["state"]["principal"] = principal
    if principal.name is not None:
        scope["state"]["log_fields"] = {"client": principal.client}
    elif principal.refusal not in (None, NO_CREDENTIAL):
        scope["state"]["log_fields"] = {"refused": principal.refusal}


def _refused(address: str, why: str) -> Principal:
    return Principal(owner="", client=address, refusal=why)


def _fields(scope: Scope, name: bytes) -> list[bytes]:
    return [value for field, value in scope["headers"] if field == name]


def _cookies(scope: Scope, name: bytes) -> Iterator[bytes]:
    """Yield each value that a cookie has. Source: RFC 6265, 4.2.1; HTTP/2 may split the field."""
    for field in _fields(scope, b"cookie"):
        for pair in field.split(b";"):
            key, mark, value = pair.partition(b"=")
            if mark and key.strip() == name:
                yield value.strip().removeprefix(b'"').removesuffix(b'"')
