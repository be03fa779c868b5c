"""Who a request comes from: what answers are bound to, and what limits count."""

import msgspec
from starlette.requests import HTTPConnection

from chat_sse.errors import Unauthenticated


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


def principal_of(request: HTTPConnection, answer: str | None = None) -> Principal:
    """Return the caller that the middleware identified. `answer`: the id of the answer that it wants, if any.

    Raises Unauthenticated, in the same words for no key, a wrong one, and a link to something else.
    """
    principal: Principal = request.scope["state"]["principal"]
    if not principal.proven or principal.answer not in (None, answer):
        raise Unauthenticated("send a valid key as `Authorization: Bearer <key>`, or open a valid link")
    return principal
