"""The handlers: decode the request, ask the relay, encode the answer."""

import hashlib
from collections.abc import Awaitable, Callable
from functools import update_wrapper

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from chat_sse.access.headers import header
from chat_sse.api import completions
from chat_sse.api.asking import (
    admitted,
    answer_post,
    attach_by_key,
    chat_of,
    key_of,
    permit_for,
    read_answer,
    respond,
    resume,
    start,
)
from chat_sse.api.me import me
from chat_sse.api.request_body import question_in_url
from chat_sse.api.request_fields import place_of
from chat_sse.api.service import caller_of, policy_for, service_of
from chat_sse.formats.ai_sdk import AiSdkFormat
from chat_sse.formats.base import Asked, Format
from chat_sse.formats.negotiation import choose
from chat_sse.messages import decode_ask
from chat_sse.policy import admit


def routes() -> list[Route]:
    """Return the routes of the service, without its pages."""
    return [
        Route("/ask", _App(ask), methods=["POST"]),
        Route("/ask", _App(ask_by_url), methods=["GET"]),
        Route("/ask/{stream_id}", _App(attach), methods=["GET"]),
        Route("/ask/{chat_id:path}/stream", _App(reconnect), methods=["GET"]),
        Route("/ask/{stream_id}", _App(stop), methods=["DELETE"]),
        Route("/v1/chat/completions", _App(completions.complete), methods=["POST"]),
        Route("/v1/chat/completions/{stream_id}", _App(completions.read_completion), methods=["GET"]),
        Route("/v1/models", _App(completions.models), methods=["GET"]),
        Route("/me", _App(me), methods=["GET"]),
        Route("/healthz", _App(healthz), methods=["GET"]),
        Route("/readyz", _App(readyz), methods=["GET"]),
    ]


class _App:
    """A handler as an ASGI application.

    Starlette wraps a function so as well, but with a second exception handler inside the middleware's, which
    costs time at each send.
    """

    def __init__(self, handle: Callable[[Request], Awaitable[Response]]) -> None:
        update_wrapper(self, handle)
        self._handle = handle

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        response = await self._handle(Request(scope, receive, send))
        await response(scope, receive, send)


async def ask(request: Request) -> Response:
    """POST /ask: ask, attach by key, or resume by `Last-Event-ID`."""
    caller = caller_of(request)
    return await answer_post(request, caller, _format(request))


async def ask_by_url(request: Request) -> Response:
    """GET /ask: ask, for clients that can only open a URL, such as EventSource."""
    caller, service, fmt = caller_of(request, asks_by_url=True), service_of(request), _format(request)
    if place := place_of(request):
        return await resume(request, fmt, caller.owner, place)
    allows_system = service.policy.allows_system
    if request.method == "HEAD":
        body = question_in_url(request, service.max_body_bytes)
        policy = policy_for(service.policy, caller.allowance)
        admit(decode_ask(body, allows_system=allows_system), policy)
        return fmt.respond_to_head()
    key = key_of(request, request.query_params.get("id"))
    is_known = key is not None and await service.relay.knows(key)
    async with permit_for(request, attaches=is_known) as permit:
        body = question_in_url(request, service.max_body_bytes)
        if key is not None and is_known:
            return await attach_by_key(request, fmt, key, hashlib.sha256(body).digest(), permit)
        asked = Asked(ask=decode_ask(body, allows_system=allows_system), format=fmt)
        return await start(request, fmt, *admitted(request, asked, body, key), permit)


async def attach(request: Request) -> Response:
    """GET /ask/<id>: read an answer from its start, or after the last event seen."""
    owner = caller_of(request, request.path_params["stream_id"]).owner
    return await read_answer(request, owner, _format(request))


async def reconnect(request: Request) -> Response:
    """GET /ask/<chat id>/stream: read the chat's running answer from its start; 204 when none is running.

    The AI SDK's `reconnectToStream`, and so in its format, whatever the default is.
    """
    caller_of(request)
    wanted = request.query_params.get("format", AiSdkFormat.name)
    fmt = choose(service_of(request).formats["/"], default=wanted, wanted=wanted, accept=None)
    chat = chat_of(request, request.path_params["chat_id"])
    stream = await service_of(request).relay.running_in_chat(chat)
    return Response(status_code=204) if stream is None else respond(request, fmt, stream, after=-1)


async def stop(request: Request) -> Response:
    """DELETE /ask/<id>: end an answer for every reader. Idempotent."""
    stream_id = request.path_params["stream_id"]
    await service_of(request).relay.stop(stream_id, caller_of(request, stream_id).owner)
    return Response(status_code=204)


async def healthz(_: Request) -> Response:
    """GET /healthz: the process lives."""
    return Response(b'{"status":"ok"}', media_type="application/json")


async def readyz(request: Request) -> Response:
    """GET /readyz: the process takes questions."""
    await service_of(request).relay.check()
    return Response(b'{"status":"ready"}', media_type="application/json")


def _format(request: Request) -> Format:
    service = service_of(request)
    return choose(
        service.formats["/"],
        default=service.default_format,
        wanted=request.query_params.get("format") if request.scope["query_string"] else None,
        accept=header(request.scope, b"accept"),
    )
