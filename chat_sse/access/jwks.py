"""The keys of tokens where an issuer publishes them: a JSON Web Key Set (RFC 7517), fetched and kept.

Known keys are used at once, and go on when the issuer is away. The set is fetched again every few minutes,
so that keys which were taken back are forgotten; and for a key that is not known, though strangers can make
up as many as they like: so at most once in a while for all of them together.
"""

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, Final
from urllib.parse import urlsplit

import httpx2
import jwt
import msgspec

from chat_sse.access.jwt import KeysUnavailable

log = logging.getLogger(__name__)

FETCH_SECONDS = 5.0
# Some 2,500 keys; issuers have two or three.
MAX_SET_BYTES = 1_048_576
FRESH_SECONDS = 300.0
# Between two fetches; the second number where the first of them brought a key that was not there before.
RENEW_SECONDS = 10.0
RENEW_SOON_SECONDS = 1.0

REQUEST_HEADERS = {"Accept": "application/json", "Accept-Encoding": "identity"}
FAULTS = (httpx2.HTTPError, httpx2.InvalidURL, msgspec.MsgspecError)

# Which kind of key an algorithm takes, by how its name begins. No secret is ever taken from a set.
_KEY_TYPES: Final = {"RS": "RSA", "PS": "RSA", "ES": "EC", "Ed": "OKP"}


class Jwk(msgspec.Struct, frozen=True, kw_only=True):
    """What is looked at of a key before it is used."""

    kty: str
    kid: str | None = None
    use: str | None = None
    alg: str | None = None
    d: Any = None
    """Only a private key has one."""

    def fits(self, algorithm: str) -> bool:
        """Return whether signatures of an algorithm are verified with it."""
        return self.alg in (None, algorithm) and _KEY_TYPES.get(algorithm[:2]) == self.kty


class JwksKeys:
    """Keys, as `access.jwt.Keys` says, from an address."""

    def __init__(self, url: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._url = url
        self._clock = clock
        self._set: list[tuple[Jwk, dict[str, Any]]] = []
        self._made: dict[tuple[str | None, str], jwt.PyJWK | None] = {}
        self._is_loaded = self._has_failed = False
        self._next_at = self._stale_at = -math.inf
        self._fetching: asyncio.Task[None] | None = None

    def find(self, kid: str | None, algorithm: str) -> jwt.PyJWK | None:
        """Return the key with an id; without one the only key that fits the algorithm."""
        if self._is_loaded and self._clock() >= self._stale_at:
            self._begin()
        wanted = kid, algorithm
        if wanted not in self._made:
            key = self._make(kid, algorithm)
            if key is None:
                return None
            self._made[wanted] = key
        return self._made[wanted]

    def renew(self) -> Awaitable[None] | None:
        """Return what waits for a new set; None where it was fetched a moment ago. Raises KeysUnavailable."""
        if not self._begin():
            if self._has_failed:
                raise KeysUnavailable(max(1.0, self._next_at - self._clock()))
            return None
        return self._renewal()

    async def aclose(self) -> None:
        """End a fetch that is under way."""
        if self._fetching is not None:
            self._fetching.cancel()
            await asyncio.wait([self._fetching])

    def _begin(self) -> bool:
        """Begin to fetch, unless that was tried a moment ago. Returns whether a fetch is under way."""
        if self._fetching is None and self._clock() >= self._next_at:
            self._next_at = self._clock() + RENEW_SECONDS
            self._fetching = asyncio.create_task(self._fetch(), name="keys of tokens")
        return self._fetching is not None

    async def _renewal(self) -> None:
        if self._fetching is not None:
            await asyncio.wait([self._fetching])  # one who leaves does not end it for the others
        if self._has_failed:
            raise KeysUnavailable(RENEW_SECONDS)

    def _make(self, kid: str | None, algorithm: str) -> jwt.PyJWK | None:
        fitting = [raw for key, raw in self._set if kid in (None, key.kid) and key.fits(algorithm)]
        if not fitting or (kid is None and len(fitting) > 1):
            return None
        try:
            return jwt.PyJWK(fitting[0], algorithm)
        except jwt.PyJWTError:
            return None

    async def _fetch(self) -> None:
        try:
            async with asyncio.timeout(FETCH_SECONDS):
                body = await self._download()
            found = list(_usable(msgspec.json.decode(body, type=dict[str, Any]).get("keys")))
        except (*FAULTS, OSError, TimeoutError, ValueError, RecursionError) as exc:
            self._has_failed = True
            fields = {"host": urlsplit(self._url).hostname, "reason": type(exc).__name__}
            log.warning("jwks.unavailable", extra={"fields": fields})
        else:
            if {key.kid for key, _ in found} - {key.kid for key, _ in self._set}:
                self._next_at = self._clock() + RENEW_SOON_SECONDS
            self._set = found
            self._made.clear()
            self._is_loaded, self._has_failed = True, False
            self._stale_at = self._clock() + FRESH_SECONDS
        finally:
            self._fetching = None

    async def _download(self) -> bytes:
        """Return the set. Raises httpx2.HTTPError or ValueError; a redirect is not followed."""
        body = bytearray()
        is_local = self._url.startswith("http://")  # this machine, where no proxy leads
        async with (
            httpx2.AsyncClient(timeout=FETCH_SECONDS, trust_env=not is_local) as client,
            client.stream("GET", self._url, headers=REQUEST_HEADERS) as response,
        ):
            if response.status_code != httpx2.codes.OK:
                raise ValueError("no set of keys")
            async for piece in response.aiter_bytes():
                body += piece
                if len(body) > MAX_SET_BYTES:
                    raise ValueError("too large a set of keys")
        return bytes(body)


def _usable(found: Any) -> Iterator[tuple[Jwk, dict[str, Any]]]:
    """Yield the public keys that verify signatures; others may stand beside them. Raises ValueError."""
    for raw in msgspec.convert(found, list[dict[str, Any]]):
        try:
            key = msgspec.convert(raw, Jwk)
        except msgspec.ValidationError:
            continue
        if key.use in (None, "sig") and key.d is None:
            yield key, raw
