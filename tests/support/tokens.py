"""An issuer of tokens, and the server that publishes its keys and does what the test says."""

from __future__ import annotations

import json
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import RSAAlgorithm

from tests.support.web import Handler, web_server

ISSUER = "https://login.example.org/"
AUDIENCE = "chat"
SECRET = "secret-canary-of-32-bytes-or-more!"


@cache
def rsa_key(name: str, bits: int = 2048) -> rsa.RSAPrivateKey:
    """A key that this run of the tests calls by a name."""
    del name
    return rsa.generate_private_key(public_exponent=65537, key_size=bits)


def pem(name: str) -> str:
    """A public key as text."""
    public = rsa_key(name).public_key()
    return public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def jwk(name: str, **more: Any) -> dict[str, Any]:
    """A public key as a set has it, its name as its id."""
    key: dict[str, Any] = json.loads(RSAAlgorithm.to_jwk(rsa_key(name).public_key()))
    return {**key, "kid": name, "use": "sig", "alg": "RS256", **more}


def claims(who: str = "ada", **more: Any) -> dict[str, Any]:
    """What a good token says; None takes a claim away."""
    told = {"sub": who, "iss": ISSUER, "aud": AUDIENCE, "exp": time.time() + 600, **more}
    return {name: value for name, value in told.items() if value is not None}


def token(
    who: str = "ada",
    *,
    key: str | None = "one",
    secret: str | bytes = SECRET,
    algorithm: str = "",
    headers: Mapping[str, Any] | None = None,
    **more: Any,
) -> str:
    """A token, signed with the key of a name, or with a secret where `key` is None."""
    signer: Any = secret if key is None else rsa_key(key)
    kid = {} if key is None else {"kid": key}
    chosen = algorithm or ("HS256" if key is None else "RS256")
    return jwt.encode(claims(who, **more), signer, chosen, {**kid, **(headers or {})})


def bearer(text: str, **headers: str) -> dict[str, str]:
    """The header that carries a token."""
    return {"Authorization": f"Bearer {text}", **headers}


class JwksServer:
    """Publishes keys. `keys` may change, and so may `answer`, which replaces it."""

    def __init__(self, *names: str) -> None:
        self.keys = [jwk(name) for name in names]
        self.answer: Callable[[Handler], None] | None = None
        self.requests: list[str] = []
        self.url = ""

    def respond(self, request: Handler) -> None:
        """Answer one request."""
        self.requests.append(request.path)
        if self.answer is not None:
            self.answer(request)
            return
        request.reply(200, json.dumps({"keys": self.keys}).encode())


@contextmanager
def jwks_server(*names: str, tls: ssl.SSLContext | None = None) -> Iterator[JwksServer]:
    """Run one with the keys of these names."""
    jwks = JwksServer(*names)

    class Publisher(Handler):
        def do_GET(self) -> None:
            jwks.respond(self)

    with web_server(Publisher, tls=tls) as port:
        jwks.url = f"https://localhost:{port}/jwks" if tls else f"http://127.0.0.1:{port}/jwks"
        yield jwks
