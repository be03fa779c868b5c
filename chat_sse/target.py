"""A model that can be asked, and where: what an operator may write about it, and what is wrong with that.

The checks return faults as text that names the setting and never holds its value, which may be a secret.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

import msgspec

ENDPOINT = "/chat/completions"
OPENAI_HOST = "api.openai.com"

# The service's own: without them an answer would be another's, not streamed, several, or not counted.
_RESERVED_FIELDS = frozenset(("messages", "model", "n", "stream", "stream_options"))
CAP_FIELDS = frozenset(("max_tokens", "max_completion_tokens", "max_output_tokens"))
# The connection's own, and those that decide what the bytes of an answer are.
_RESERVED_HEADERS = frozenset(
    (
        *("accept", "accept-encoding", "connection", "content-encoding", "content-length", "content-type"),
        *("expect", "host", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade"),
    )
)
_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")  # RFC 9110, 5.6.2
_FIELD_VALUE = re.compile(r"[!-~](?:[ -~\t]*[!-~])?|")  # RFC 9110, 5.5, without obs-text
# Text that examples leave for the reader to fill in.
_PLACEHOLDER = re.compile(r"[<>{}\s]|YOUR[-_]", re.IGNORECASE)
# Other endpoints than this service's; nothing can stand below them.
_OTHER_ENDPOINT = re.compile(r"/(?:completions|responses|embeddings|models|v\d[^/]*/(?:chat|messages))$")


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """One model that can be asked."""

    name: str
    """What clients call it."""
    model: str
    """What its server calls it."""
    base_url: str | None = None
    api_key: str | None = None
    body: dict[str, Any] = {}
    """Merged into each request's body."""
    headers: dict[str, str] = {}
    fallbacks: tuple[str, ...] = ()
    """Names of the targets that are asked when this one refuses, in this order."""

    def __repr__(self) -> str:
        """Show the name only: the key, the headers and the URL may hold secrets."""
        return f"Target(name={self.name!r})"


def split_base_url(base_url: str) -> tuple[str, str]:
    """Return the URL below which the endpoint lies, and the query that belongs behind the endpoint.

    `https://h/v1/chat/completions?api-version=1` gives `https://h/v1` and `api-version=1`.
    """
    parts = urlsplit(base_url)
    path = parts.path.rstrip("/").removesuffix(ENDPOINT).rstrip("/")
    return parts._replace(path=path, query="").geturl(), parts.query


def base_url_faults(name: str, base_url: str) -> Iterator[str]:
    """Yield what cannot be right about a base URL."""
    try:
        parts = urlsplit(base_url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        yield f"{name} must be an http or https URL"
        return
    if _PLACEHOLDER.search(base_url):
        yield f"{name} holds a placeholder or white space: put your own values in"
    if parts.fragment:
        yield f"{name} must not have a fragment (#…): it is never sent"
    path = urlsplit(split_base_url(base_url)[0]).path
    if _OTHER_ENDPOINT.search(path):
        yield f"{name} names another endpoint than {ENDPOINT}: give the URL before it"
    if parts.hostname == OPENAI_HOST and not path:
        yield f"{name} must be https://{OPENAI_HOST}/v1 for OpenAI: /v1 is missing"


def body_faults(name: str, body: Mapping[str, Any], max_output_tokens: int) -> Iterator[str]:
    """Yield what a body must not hold. Case does not count: Go's JSON decoder (Ollama) ignores it."""
    for field, value in body.items():
        lower = field.lower()
        if lower in _RESERVED_FIELDS:
            yield f"{name} must not set {lower}, which is the service's own"
        elif lower in CAP_FIELDS and (
            field != lower or type(value) is not int or not 1 <= value <= max_output_tokens
        ):
            yield f"{name} must set {lower} to a whole number from 1 to CHAT_SSE_MAX_OUTPUT_TOKENS"


def header_faults(name: str, headers: Mapping[str, str]) -> Iterator[str]:
    """Yield what headers must not be. A header's name may be a secret put in the wrong place: not told."""
    names = [header.lower() for header in headers]
    if reserved := sorted(_RESERVED_HEADERS.intersection(names)):
        yield f"{name} must not set {', '.join(reserved)}, which the service sets"
    if len(set(names)) < len(names):
        yield f"{name} must not name a header twice"
    if not all(map(_TOKEN.fullmatch, headers)):
        yield f"{name} must have header names of letters, digits and -"
    if not all(map(_FIELD_VALUE.fullmatch, headers.values())):
        yield f"{name} must have values of printable ASCII without spaces around them"
