"""GET /me: where the caller stands."""

import math

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from chat_sse.api.service import caller_of, own_limits, policy_for, service_of
from chat_sse.limits.headers import LimitStatus
from chat_sse.standing import Me, Streams, Window


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
