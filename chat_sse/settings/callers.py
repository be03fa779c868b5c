"""Who may ask, as the settings say it, and what is wrong with that.

Three kinds of callers can prove who they are: machines with an API key, people with a token (JWT), and people
whom a proxy in front of the service has logged in. Faults name the variable and never hold its value.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Final, Literal, TypeAlias
from urllib.parse import urlsplit

import msgspec

Way: TypeAlias = Literal["keys", "jwt", "proxy"]
KEYS: Final = "keys"
JWT: Final = "jwt"
PROXY: Final = "proxy"
ANONYMOUS: Final = "anonymous"
# Each kind of callers, and the variable that sets it up.
WAYS: Final[Mapping[str, str | None]] = {
    KEYS: "api_keys", JWT: "jwt_key", PROXY: "user_header", ANONYMOUS: None
}  # fmt: skip

# What a bearer header can carry (RFC 6750, 2.1), and long enough that nobody can try them all.
MIN_SECRET_CHARS = 16
_SECRET = re.compile(rf"[A-Za-z0-9._~+/-]{{{MIN_SECRET_CHARS},512}}={{0,2}}")
# A key's name goes into logs, and before a slash into names of ours; without dots it is no address either.
_KEY_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")

# A secret has as many bytes as its hash (RFC 7518, 3.2).
SECRET_BYTES: Final = {"HS256": 32, "HS384": 48, "HS512": 64}
PUBLIC_ALGORITHMS = (
    *("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    "ES256",
    "ES384",
    "ES512",
    "EdDSA",
)

_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,64}")  # RFC 9110, 5.6.2; a cookie's name is one as well
_RESERVED_HEADERS = frozenset(
    ("authorization", "cookie", "host", "origin", "x-forwarded-for", "x-request-id")
)
_LOOPBACK = ("127.0.0.1", "localhost", "::1")


class Callers(msgspec.Struct, frozen=True, kw_only=True):
    """The settings that say who may ask, under their names."""

    allowed_origin: tuple[str, ...]
    api_keys: tuple[str, ...]
    jwt_key: str | None
    jwt_algorithms: tuple[str, ...]
    jwt_issuer: str | None
    jwt_audience: tuple[str, ...]
    jwt_cookie: str | None
    user_header: str | None
    may_ask: tuple[str, ...]
    login_url: str | None
    trusted_proxies: tuple[str, ...]

    @property
    def ways(self) -> tuple[str, ...]:
        """The kinds of callers that may ask: as set, or all that are set up, or else everybody."""
        set_up = tuple(way for way, field in WAYS.items() if field and getattr(self, field))
        return self.may_ask or set_up or (ANONYMOUS,)

    @property
    def proving(self) -> tuple[Way, ...]:
        """The kinds that may ask and prove who they are."""
        kinds: tuple[Way, ...] = (KEYS, JWT, PROXY)
        return tuple(way for way in kinds if way in self.ways)

    @property
    def key_is_url(self) -> bool:
        """Whether the tokens' keys are fetched from a JWKS."""
        return (self.jwt_key or "").startswith(("https://", "http://"))

    @property
    def key_is_public(self) -> bool:
        """Whether the tokens' key is a PEM."""
        return "-----BEGIN " in (self.jwt_key or "")

    @property
    def algorithms(self) -> tuple[str, ...]:
        """The tokens' algorithms; never what a token says."""
        by_key = "RS256" if self.key_is_url or self.key_is_public else "HS256"
        return self.jwt_algorithms or (by_key,)

    def faults(self) -> Iterator[str]:
        """Yield what is wrong. Whether a PEM can be read is for `access/jwt.py` to tell."""
        yield from _faults_of_keys(self.api_keys)
        yield from self._faults_of_ways()
        if self.jwt_key is not None:
            yield from self._faults_of_jwt(self.jwt_key)
        else:
            for field in ("jwt_algorithms", "jwt_issuer", "jwt_audience", "jwt_cookie"):
                if getattr(self, field):
                    yield f"CHAT_SSE_{field.upper()} needs CHAT_SSE_JWT_KEY"
        if self.user_header is not None:
            if not _TOKEN.fullmatch(self.user_header) or self.user_header.lower() in _RESERVED_HEADERS:
                yield "CHAT_SSE_USER_HEADER must be the name of a header field, such as X-Forwarded-User"
            if not self.trusted_proxies:
                yield "CHAT_SSE_USER_HEADER needs CHAT_SSE_TRUSTED_PROXIES: it is believed from nobody else"
        if "*" in self.allowed_origin and (self.jwt_cookie or self.user_header):
            yield "ALLOWED_ORIGIN=* with CHAT_SSE_JWT_COOKIE or CHAT_SSE_USER_HEADER would let any page ask"
        if self.login_url is not None and not _is_address(self.login_url):
            yield "CHAT_SSE_LOGIN_URL must be an https URL, or a path that begins with a slash"

    def _faults_of_ways(self) -> Iterator[str]:
        if not set(self.may_ask) <= set(WAYS):
            yield f"CHAT_SSE_MAY_ASK must be some of {', '.join(WAYS)}, with commas between"
            return
        for way in self.may_ask:
            field = WAYS[way]
            if field and not getattr(self, field):
                yield f"CHAT_SSE_MAY_ASK={way} needs CHAT_SSE_{field.upper()}"

    def _faults_of_jwt(self, key: str) -> Iterator[str]:
        known = PUBLIC_ALGORITHMS if self.key_is_url or self.key_is_public else tuple(SECRET_BYTES)
        if not set(self.algorithms) <= set(known):
            yield f"CHAT_SSE_JWT_ALGORITHMS must be of the key's kind: {', '.join(known)}"
        elif self.key_is_url:
            if not _is_address(key, paths=False):
                yield "CHAT_SSE_JWT_KEY must be an https URL where it is a JWKS's"
            if not self.jwt_audience:
                yield "CHAT_SSE_JWT_AUDIENCE must be set with a JWKS, which signs for other services as well"
        elif self.key_is_public and " PRIVATE " in key:
            yield "CHAT_SSE_JWT_KEY must be a public key: this service signs nothing"
        elif not self.key_is_public:
            least = max(SECRET_BYTES[name] for name in self.algorithms)
            if len(key.encode()) < least:
                yield f"CHAT_SSE_JWT_KEY must have {least} bytes or more where it is a secret"
        if self.jwt_cookie is not None and not _TOKEN.fullmatch(self.jwt_cookie):
            yield "CHAT_SSE_JWT_COOKIE must be the name of a cookie"


def _faults_of_keys(entries: tuple[str, ...]) -> Iterator[str]:
    pairs = [entry.partition(":")[::2] for entry in entries]
    if not all(_KEY_NAME.fullmatch(name) and _SECRET.fullmatch(secret) for name, secret in pairs):
        yield (
            "CHAT_SSE_API_KEYS must be name:secret with commas between: names of letters, digits, _ and -, "
            f"secrets of {MIN_SECRET_CHARS} or more letters, digits and ._~+/-"
        )
    if len({name for name, _ in pairs}) < len(pairs):
        yield "CHAT_SSE_API_KEYS must not use a name twice"
    if len({secret for _, secret in pairs}) < len(pairs):
        yield "CHAT_SSE_API_KEYS must not use a secret twice"
    if any(name == ANONYMOUS for name, _ in pairs):
        yield f"CHAT_SSE_API_KEYS must not use the name {ANONYMOUS}, which is that of callers without a key"


def _is_address(text: str, *, paths: bool = True) -> bool:
    """Return whether text is an https URL, http on this machine, or, with `paths`, an absolute path."""
    if not text.isascii() or not text.isprintable() or " " in text:
        return False
    try:
        parts = urlsplit(text)
        host, _ = parts.hostname, parts.port
    except ValueError:
        return False
    if parts.scheme or parts.netloc:
        return bool(host) and (parts.scheme == "https" or (parts.scheme == "http" and host in _LOOPBACK))
    return paths and text.startswith("/") and "\\" not in text
