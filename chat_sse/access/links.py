"""Links to one answer, for clients that can send no header, such as the browser's EventSource.

A link reads and stops the answer that it was made for, as the key that asked could. It starts nothing, opens
no other answer, and ends with the time for which the answer can be read.
"""

import hashlib
import secrets
import time

import msgspec
from itsdangerous import BadData, URLSafeSerializer


class Link(msgspec.Struct, frozen=True, array_like=True):
    """What a token says."""

    answer: str
    owner: str
    expires: int
    """Seconds since the epoch. Not an age: hosts that share a key may differ in their clocks."""


class Links:
    """Signs links and reads them back. Tokens need no escaping in a URL."""

    def __init__(self, secret_key: str | None, *, life_seconds: float) -> None:
        """`secret_key`: shared by all processes that serve one site; None makes one for this process."""
        self._life_seconds = life_seconds
        self._serializer = URLSafeSerializer(
            secret_key or secrets.token_bytes(32),
            salt="chat_sse: link to an answer",
            signer_kwargs={"digest_method": hashlib.sha256},
        )

    def token(self, answer: str, owner: str) -> str:
        """Make the token of a link."""
        expires = int(time.time() + self._life_seconds) + 1
        return self._serializer.dumps(msgspec.to_builtins(Link(answer, owner, expires)))

    def read(self, token: str) -> Link | None:
        """Return what a token says; None when it is not ours or has expired."""
        try:
            link = msgspec.convert(self._serializer.loads(token), Link)
        except (BadData, msgspec.ValidationError):
            return None
        return link if time.time() < link.expires else None
