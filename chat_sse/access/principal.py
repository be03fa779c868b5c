"""Who a request comes from: what answers are bound to, and what limits count."""

from collections.abc import Awaitable, Callable
from typing import Self, TypeAlias
from urllib.parse import quote

import msgspec
from starlette.requests import HTTPConnection, Request

from chat_sse.errors import Overloaded, Unauthenticated
from chat_sse.messages import Question
from chat_sse.settings.fields import BudgetOrOff, RateOrOff

# Before the names that an application gives. No name of a key has a colon.
USER_PREFIX = "user:"
NO_CREDENTIAL = "no credential"


class Allowance(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a token allows its bearer, in its claim `chat_sse`. It never raises this server's limits."""

    models: tuple[str, ...] | None = None
    tokens: BudgetOrOff = "off"
    rate: RateOrOff = "off"


class Principal(msgspec.Struct, frozen=True, kw_only=True):
    """The sender of a request, as far as it has been proven."""

    owner: str = "anonymous"
    """Whose answers they are: a key's name, `client` of a person; all others are one, and an answer's id its
    secret. Without a slash, so that names of answers can begin with it."""
    client: str
    """Whom the limits count: `key:`, `jwt:`, `proxy:` or `user:` and a name, else a network address."""
    name: str | None = None
    """What to call a caller that has proven who it is."""
    answer: str | None = None
    """The id of the one answer that a link is good for; None for a sender who may also ask."""
    allowance: Allowance = Allowance()
    refusal: str | None = None
    """Why the request may do nothing, in words for the log; None where it may."""
    retry_after: float | None = None
    """Of a refusal that says nothing of the token, since its key could not be fetched: when it may be."""

    @classmethod
    def named(cls, name: str) -> Self:
        """Return somebody whom an application knows by a name, such as a user's id."""
        client = USER_PREFIX + quote(name, safe="@", errors="replace")
        return cls(owner=client, client=client, name=name)


Authenticate: TypeAlias = Callable[[Request], Awaitable[Principal | None]]
"""Says who sends a request, by what an application knows: its session, its cookies, its own tokens.

Called for every request without a valid API key or link. None, and the request is nobody's: whatever asks,
reads or stops an answer is refused with 401. It may raise a ChatError; the request's body is not there.
"""

BeforeAsk: TypeAlias = Callable[[Question, Principal], Awaitable[Question]]
"""Called with each new question before it costs anything: returns it, or another one, or raises a ChatError,
such as Forbidden. Not called for a request that resumes an answer, or attaches to one.
"""


def principal_of(request: HTTPConnection, answer: str | None = None) -> Principal:
    """Return the caller that the middleware identified. `answer`: the id of the answer that it wants, if any.

    Raises Unauthenticated, in the same words for no key, a wrong one, and a link to something else; and
    Overloaded while nobody can tell what a token is worth.
    """
    principal: Principal = request.scope["state"]["principal"]
    if principal.retry_after is not None:
        raise Overloaded("the keys of tokens cannot be fetched", retry_after=principal.retry_after)
    if principal.refusal is not None or principal.answer not in (None, answer):
        raise Unauthenticated(Unauthenticated.example)
    return principal
