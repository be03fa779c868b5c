"""Tokens of people (JWT, RFC 7519), by the rules of RFC 8725 "JSON Web Token Best Current Practices".

PyJWT verifies. What a token says of how to verify it is never obeyed: its algorithm must be one of the
settings', which are all of the key's kind; its key is found by `kid` among those that are known, and neither
`jku` nor `x5u` nor a key in its head is looked at. Part of the extra `jwt`.
"""

from collections.abc import Awaitable, Iterable, Sequence
from typing import Any, Protocol
from urllib.parse import quote

import jwt
import msgspec

from chat_sse.access.principal import Allowance, Principal
from chat_sse.settings.callers import JWT

LEEWAY_SECONDS = 10
MAX_TOKEN_BYTES = 8192
# OpenID Connect allows 255 ASCII characters for a `sub`.
MAX_NAME_CHARS = 255
CLAIM = "chat_sse"


class KeysUnavailable(Exception):
    """The keys cannot be fetched; `retry_after` is in seconds."""

    def __init__(self, retry_after: float) -> None:
        self.retry_after = retry_after


class Keys(Protocol):
    """Where the keys come from that tokens are verified with."""

    def find(self, kid: str | None, algorithm: str) -> Any:
        """Return the key that a token's head means, for PyJWT; None when it is not known."""
        ...

    def renew(self) -> Awaitable[None] | None:
        """Look for keys that are new; None where there are none to be had now. Raises KeysUnavailable."""
        ...

    async def aclose(self) -> None:
        """End what is under way."""
        ...


class StaticKey:
    """One key, from the settings: a secret, or a public key as PEM."""

    def __init__(self, text: str, algorithms: Sequence[str]) -> None:
        """Raises ValueError, not quoting the key, when it is not one for all the algorithms."""
        text = text.replace("\\n", "\n")  # files of variables often cannot hold a line's end
        self._keys = {name: self._prepared(text, name) for name in algorithms}

    @staticmethod
    def _prepared(text: str, name: str) -> Any:
        algorithm = jwt.get_algorithm_by_name(name)
        try:
            key = algorithm.prepare_key(text)
        except (jwt.PyJWTError, ValueError, TypeError):
            raise ValueError(f"is no key for {name}") from None
        if algorithm.check_key_length(key) is not None:
            raise ValueError(f"is too short a key for {name}")
        return key

    def find(self, kid: str | None, algorithm: str) -> Any:
        """Return the key, whatever a token calls it."""
        del kid
        return self._keys.get(algorithm)

    def renew(self) -> None:
        """There is no other."""

    async def aclose(self) -> None:
        """Nothing is under way."""


class Tokens:
    """Turns tokens into the people who bear them."""

    def __init__(
        self,
        keys: Keys,
        *,
        algorithms: Iterable[str],
        issuer: str | None,
        audience: Sequence[str],
        principal_claim: str,
    ) -> None:
        """`audience`: one of these must be the token's; with none, a token that has one is refused."""
        self._keys = keys
        self._algorithms = frozenset(algorithms)
        self._issuer = issuer
        self._audience = audience or None
        self._principal_claim = principal_claim

    def principal_of(self, token: bytes, address: str) -> Principal | Awaitable[Principal]:
        """Return whose token it is, or a refusal; as an awaitable where the key must be fetched first."""
        try:
            kid, algorithm = self._head(token)
            key = self._keys.find(kid, algorithm)
            if key is None and (renewal := self._keys.renew()) is not None:
                return self._with_new_keys(renewal, token, address)
            return self._read(token, key, algorithm)
        except KeysUnavailable as exc:
            return _unavailable(exc, address)
        except jwt.PyJWTError as exc:
            return _refused(exc, address)

    async def _with_new_keys(self, renewal: Awaitable[None], token: bytes, address: str) -> Principal:
        try:
            await renewal
            kid, algorithm = self._head(token)
            return self._read(token, self._keys.find(kid, algorithm), algorithm)
        except KeysUnavailable as exc:
            return _unavailable(exc, address)
        except jwt.PyJWTError as exc:
            return _refused(exc, address)

    async def aclose(self) -> None:
        """End what is under way."""
        await self._keys.aclose()

    def _head(self, token: bytes) -> tuple[str | None, str]:
        """Return a token's key id and its algorithm, which is one of ours. Raises jwt.PyJWTError."""
        if len(token) > MAX_TOKEN_BYTES:
            raise jwt.InvalidTokenError
        head = jwt.get_unverified_header(token)
        algorithm = head.get("alg")
        if not isinstance(algorithm, str) or algorithm not in self._algorithms:
            raise jwt.InvalidAlgorithmError
        return head.get("kid"), algorithm

    def _read(self, token: bytes, key: Any, algorithm: str) -> Principal:
        """Verify a token. Raises jwt.PyJWTError."""
        if key is None:
            raise jwt.InvalidKeyError
        claims = jwt.decode(
            token,
            key,
            algorithms=[algorithm],
            audience=self._audience,
            issuer=self._issuer,
            leeway=LEEWAY_SECONDS,
            options={"require": ["exp"], "enforce_minimum_key_length": True},
        )
        person = claims.get(self._principal_claim)
        if isinstance(person, int) and not isinstance(person, bool):
            person = str(person)
        if not isinstance(person, str) or not 0 < len(person) <= MAX_NAME_CHARS:
            raise jwt.MissingRequiredClaimError(self._principal_claim)
        try:
            allowance = msgspec.convert(claims.get(CLAIM, {}), Allowance)
        except msgspec.ValidationError:  # obeyed in part it would allow too much
            raise jwt.InvalidTokenError from None
        client = f"{JWT}:{quote(person, safe='@', errors='replace')}"
        name = claims.get("name")
        called = name if isinstance(name, str) and 0 < len(name) <= MAX_NAME_CHARS else person
        return Principal(owner=client, client=client, name=called, allowance=allowance)


def _refused(exc: jwt.PyJWTError, address: str) -> Principal:
    """Return a refusal. The kind of an error says enough, and quotes nothing of the token."""
    return Principal(owner="", client=address, refusal=type(exc).__name__)


def _unavailable(exc: KeysUnavailable, address: str) -> Principal:
    return Principal(owner="", client=address, refusal=type(exc).__name__, retry_after=exc.retry_after)
