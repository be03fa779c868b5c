"""OpenAI's addresses: what its SDKs, and frontends that are pointed at a base URL, call."""

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from chat_sse.access.headers import header
from chat_sse.api.asking import answer_post, read_answer
from chat_sse.api.request_fields import place_of
from chat_sse.api.service import caller_of, policy_for, service_of
from chat_sse.completions import Model, Models
from chat_sse.formats.base import Format
from chat_sse.formats.negotiation import choose
from chat_sse.formats.openai import ROOT, OpenAiFormat


async def complete(request: Request) -> Response:
    """POST /v1/chat/completions: ask, in OpenAI's words."""
    return await answer_post(request, caller_of(request), _format(request, accept=None))


async def read_completion(request: Request) -> Response:
    """GET /v1/chat/completions/<id>: read an answer from its start, or after the last event seen."""
    owner = caller_of(request, request.path_params["stream_id"]).owner
    # SDKs accept JSON alone whatever they ask for, and who comes back reads a stream.
    accept = None if place_of(request) else header(request.scope, b"accept")
    return await read_answer(request, owner, _format(request, accept))


async def models(request: Request) -> Response:
    """GET /v1/models: which models the caller may name."""
    allowance = caller_of(request).allowance
    allowed = policy_for(service_of(request).policy, allowance).models
    told = Models(data=[Model(id=name) for name in allowed])
    return Response(msgspec.json.encode(told), media_type="application/json")


def _format(request: Request, accept: str | None) -> Format:
    return choose(service_of(request).formats[ROOT], default=OpenAiFormat.name, wanted=None, accept=accept)
