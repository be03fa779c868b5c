"""What the handlers work with, and what each of them asks first: whose request it is."""

from collections.abc import Mapping
from functools import lru_cache

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from chat_sse.access.links import Links
from chat_sse.access.origin import Origins
from chat_sse.access.principal import Allowance, BeforeAsk, Principal, principal_of
from chat_sse.api.error_responses import error_response, handle_chat_error
from chat_sse.errors import ChatError, ErrorBody, InvalidRequest, Unauthenticated
from chat_sse.formats.base import Format
from chat_sse.limits.admission import Limits
from chat_sse.limits.bodies import BodyMemory
from chat_sse.limits.budget import Budget
from chat_sse.limits.plan import OwnLimits
from chat_sse.limits.rates import Rate
from chat_sse.policy import Policy
from chat_sse.relay.relay import Relay
from chat_sse.settings.callers import KEYS, Way


class Service(msgspec.Struct, frozen=True, kw_only=True):
    """One running service. Opened by `app.py`, found in the request's state."""

    relay: Relay
    formats: Mapping[str, tuple[Format, ...]]
    """By their root."""
    default_format: str
    policy: Policy
    limits: Limits
    bodies: BodyMemory
    origins: Origins
    links: Links
    before_ask: BeforeAsk | None
    accepts: tuple[Way, ...]
    """Who may ask beside anonymous callers: the kinds of `settings.callers`."""
    login_url: str | None
    max_body_bytes: int
    receive_timeout_seconds: float
    shutdown_grace_seconds: float
    shutdown_delay_seconds: float


class LoginBody(ErrorBody, frozen=True, kw_only=True):
    """The body of a 401: the error body, with what a page needs to let its visitor in."""

    accepts: tuple[Way, ...]
    """Who may ask: with an API key, with a token, or logged in by a proxy in front of the service."""
    login_url: str | None
    """Where to send a visitor to log in; `{url}` in it stands for the address to come back to, encoded."""


def service_of(request: Request) -> Service:
    """Return the service that a request is for."""
    service: Service = request.scope["state"]["service"]  # `request.state` is a call, and this is asked often
    return service


def caller_of(request: Request, answer: str | None = None, *, asks_by_url: bool = False) -> Principal:
    """Check a request's origin and caller, and return the caller.

    Every handler for answers calls it first. `answer`: the id of the answer that is asked for, if any.
    Raises ForbiddenOrigin, Unauthenticated or Overloaded.
    """
    service_of(request).origins.check(request.scope["headers"], asks_by_url=asks_by_url)
    return principal_of(request, answer)


@lru_cache(1024)
def own_limits(allowance: Allowance) -> OwnLimits:
    """Return what a caller's token limits it to."""
    return OwnLimits(rate=Rate.parse(allowance.rate), budget=Budget.parse(allowance.tokens))


@lru_cache(1024)
def policy_for(policy: Policy, allowance: Allowance) -> Policy:
    """Return what a caller may ask of what this server admits. Raises InvalidRequest where that is no model.

    A fallback is not the caller's choice, and is asked for whoever its model was allowed to.
    """
    if allowance.models is None:
        return policy
    models = tuple(model for model in policy.models if model in allowance.models)
    if not models:
        raise InvalidRequest("your token allows none of the models of this server")
    return msgspec.structs.replace(policy, models=models)


async def handle_unauthenticated(request: Request, exc: Exception) -> Response:
    """Return the response for a request without a valid credential, with where to get one.

    It counts against the rate of its network address only: not against the total, nor against clients at the
    same address that have one.
    """
    service = service_of(request)
    try:
        await service.limits.counts.count(request.state.principal.client)
    except ChatError as refusal:
        return handle_chat_error(request, refusal)
    login = None if service.accepts == (KEYS,) else "Please log in to use this service."
    error = Unauthenticated(str(exc), content=login)
    return error_response(error, request.scope, accepts=service.accepts, login_url=service.login_url)
