"""Who may ask: pure ASGI, in front of every handler.

It only finds out; the handlers refuse, by `principal_of`. So there is no list of protected paths that could
differ from the routes, and a handler that works for somebody cannot forget to ask for whom.
"""

import hashlib
import hmac
from collections.abc import Awaitable, Mapping, Sequence
from urllib.parse import parse_qs

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from chat_sse.access.address import ClientAddresses
from chat_sse.access.links import Links
from chat_sse.access.principal import USER_PREFIX, Authenticate, Principal


class KeyRing:
    """The API keys, kept as digests."""

    def __init__(self, entries: Sequence[str]) -> None:
        """`entries`: each a `name:secret` that the settings have checked."""
        pairs = (entry.split(":", 1) for entry in entries)
        self._digests = {name: hashlib.sha256(secret.encode()).digest() for name, secret in pairs}

    def __bool__(self) -> bool:
        return bool(self._digests)

    def __contains__(self, name: str) -> bool:
        return name in self._digests

    def owner_of(self, secret: bytes) -> str | None:
        """Return the name of the key with this secret.

        Always compares with all of them, and digests instead of secrets: the time it takes tells neither
        how much of a guess was right nor which key it was.
        """
        digest = hashlib.sha256(secret).digest()
        found = None
        for name, known in self._digests.items():
            if hmac.compare_digest(digest, known):
                found = name
        return found


class Authentication:
    """Find out who a request comes from: by its key, or by the link that it opens."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        keys: KeyRing,
        links: Links,
        addresses: ClientAddresses,
        authenticate: Authenticate | None = None,
    ) -> None:
        """`authenticate`: is asked about who comes without a key or link of ours."""
        self.app = app
        self._authenticate = authenticate
        self._keys = keys
        self._links = links
        self._addresses = addresses

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Handle a connection, without a coroutine of its own."""
        if scope["type"] == "http":
            address = self._addresses.client_of(scope)
            principal = Principal(client=address)
            if self._keys or self._authenticate is not None:
                principal = self._prove(scope, address)
            scope["state"]["principal"] = principal
            if self._authenticate is not None and not principal.proven:
                return self._ask_application(self._authenticate, scope, receive, send)
        return self.app(scope, receive, send)

    async def _ask_application(
        self, authenticate: Authenticate, scope: Scope, receive: Receive, send: Send
    ) -> None:
        if (principal := await authenticate(Request(scope))) is not None:
            scope["state"]["principal"] = principal
        await self.app(scope, receive, send)

    def _prove(self, scope: Scope, address: str) -> Principal:
        headers: Mapping[bytes, bytes] = dict(scope["headers"])
        if (credentials := headers.get(b"authorization")) is not None:
            scheme, _, secret = credentials.partition(b" ")
            owner = self._keys.owner_of(secret.strip()) if scheme.lower() == b"bearer" else None
            if owner is not None:
                return Principal(owner=owner, client=f"key:{owner}")
        elif b"token=" in scope["query_string"]:
            [token] = parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])[:1]
            link = self._links.read(token)
            if link is not None and self._knows(link.owner):
                return Principal(owner=link.owner, client=address, answer=link.answer)
        return Principal(owner="", client=address, proven=False)

    def _knows(self, owner: str) -> bool:
        """Return whether links of an owner are good: a key taken away takes its links along."""
        return owner in self._keys or (self._authenticate is not None and owner.startswith(USER_PREFIX))
