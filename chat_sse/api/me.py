"""GET /me: where the caller stands."""

import math

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from chat_sse.api.service import caller_of, own_limits, policy_for, service_of
from chat_sse.limits.headers import LimitStatus


class Window(msgspec.Struct, frozen=True, kw_only=True):
    """What is left of a limit that begins anew."""

    limit: int
    left: int
    window_seconds: int
    reset_seconds: int


class Streams(msgspec.Struct, frozen=True, kw_only=True):
    """How many more answers may run at once."""

    limit: int
    left: int


class Me(msgspec.Struct, frozen=True, kw_only=True):
    """Who the caller is to this server, and what is left to it; null where nothing is limited."""

    name: str | None
    """Null for a caller that has not logged in."""
    models: tuple[str, ...]
    """Those that it may name; the first is the default."""
    requests: Window | None
    streams: Streams
    tokens: Window | None


async def me(request: Request) -> Response:
    """GET /me: who the caller is, which models it may name, and what is left of its limits."""
    caller, service = caller_of(request), service_of(request)
    standing = await service.limits.counts.standing(caller.client, own_limits(caller.allowance))
    told = Me(
        name=caller.name,
        models=policy_for(service.policy, caller.allowance).models,
        requests=_window(standing.requests),
        streams=Streams(limit=standing.streams, left=standing.streams_left),
        tokens=_window(standing.tokens),
    )
    return Response(msgspec.json.encode(told), media_type="application/json")


def _window(status: LimitStatus | None) -> Window | None:
    if status is None:
        return None
    return Window(
        limit=status.quota,
        left=status.left,
        window_seconds=status.window_seconds,
        reset_seconds=math.ceil(status.reset_seconds),
    )
