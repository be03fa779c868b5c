"""Who a request comes from: what answers are bound to, and what limits count."""

from collections.abc import Awaitable, Callable
from typing import Self, TypeAlias

import msgspec
from starlette.requests import HTTPConnection, Request

from chat_sse.errors import Unauthenticated
from chat_sse.messages import Question

# Before the names that an application gives. No name of a key has a colon.
USER_PREFIX = "user:"


class Principal(msgspec.Struct, frozen=True, kw_only=True):
    """The sender of a request, as far as it has been proven."""

    owner: str = "anonymous"
    """Whose answers they are: a key's name; without keys everybody is one, and an answer's id its secret."""
    client: str
    """Whom the limits count: a key's name, or the network address of a sender without one."""
    proven: bool = True
    """False where the service needs a key and the request brought none that is valid."""
    answer: str | None = None
    """The id of the one answer that a link is good for; None for a sender who may also ask."""

    @classmethod
    def named(cls, name: str) -> Self:
        """Return somebody whom an application knows by a name, such as a user's id."""
        return cls(owner=USER_PREFIX + name, client=USER_PREFIX + name)


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

    Raises Unauthenticated, in the same words for no key, a wrong one, and a link to something else.
    """
    principal: Principal = request.scope["state"]["principal"]
    if not principal.proven or principal.answer not in (None, answer):
        raise Unauthenticated("send a valid key as `Authorization: Bearer <key>`, or open a valid link")
    return principal
