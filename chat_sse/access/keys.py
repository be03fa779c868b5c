"""API keys: which machines may ask."""

import hashlib
import hmac
from collections.abc import Sequence


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
