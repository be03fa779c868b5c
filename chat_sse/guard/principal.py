"""Who a request comes from: what answers are bound to, and what limits count."""

import msgspec
from starlette.requests import HTTPConnection


class Principal(msgspec.Struct, frozen=True, kw_only=True):
    """The sender of a request, as far as it has been proven."""

    owner: str = "anonymous"
    """Whose answers they are: a key's name; without keys everybody is one, and an answer's id its secret."""
    client: str
    """Whom the limits count: a key's name, or the network address of a sender without one."""


def principal_of(request: HTTPConnection) -> Principal:
    """Give what `guard/auth.py` has found out."""
    principal: Principal = request.state.principal
    return principal
