"""The handlers: decode the request, ask the relay, encode the answer."""

import hashlib
from collections.abc import Awaitable, Callable, Mapping
from functools import update_wrapper

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from chat_sse.access.headers import header
from chat_sse.access.paths import public_path
from chat_sse.access.principal import principal_of
from chat_sse.api.me import me
from chat_sse.api.request_body import check_media_type, question_in_url, receive_body
from chat_sse.api.request_fields import place_of, prefers_async
from chat_sse.api.service import caller_of, own_limits, policy_for, service_of
from chat_sse.errors import InvalidRequest, KeyReused, StreamNotFound
from chat_sse.events import event_id, new_stream_id, parse_event_id
from chat_sse.formats.ai_sdk import AiSdkFormat
from chat_sse.formats.base import NEGOTIATED, Format, Reading
from chat_sse.formats.negotiation import choose
from chat_sse.limits.admission import Permit
from chat_sse.messages import MAX_KEY_CHARS, Question, decode_ask
from chat_sse.policy import admit
from chat_sse.stores.base import Log, LogSpec


def routes() -> list[Route]:
    """Return the routes of the service, without its pages."""
    return [
        Route("/ask", _App(ask), methods=["POST"]),
        Route("/ask", _App(ask_by_url), methods=["GET"]),
        Route("/ask/{stream_id}", _App(attach), methods=["GET"]),
        Route("/ask/{chat_id:path}/stream", _App(reconnect), methods=["GET"]),
        Route("/ask/{stream_id}", _App(stop), methods=["DELETE"]),
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
    caller, service, fmt = caller_of(request), service_of(request), _format(request)
    if place := header(request.scope, b"last-event-id"):
        return await _resume(request, fmt, caller.owner, place)
    check_media_type(request)
    key = _key(request, header(request.scope, b"idempotency-key"))
    bounds = service.max_body_bytes, service.receive_timeout_seconds
    if key is not None and await service.relay.knows(key):
        digest = hashlib.sha256()  # all that attaching needs of a body
        await receive_body(request, *bounds, digest.update)
        return await _attach(request, fmt, key, digest.digest())
    permit = await _arrive(request)
    with service.bodies.body(caller.client) as body:
        await receive_body(request, *bounds, body.add)
        asked = _decode(request, body.content, key)
    return await _start(request, fmt, asked, permit)


async def ask_by_url(request: Request) -> Response:
    """GET /ask: ask, for clients that can only open a URL, such as EventSource."""
    caller, service, fmt = caller_of(request, asks_by_url=True), service_of(request), _format(request)
    if place := place_of(request):
        return await _resume(request, fmt, caller.owner, place)
    if request.method == "HEAD":
        policy = policy_for(service.policy, caller.allowance)
        body = question_in_url(request, service.max_body_bytes)
        admit(decode_ask(body, allows_system=policy.allows_system), policy)
        return fmt.respond_to_head()
    key = _key(request, request.query_params.get("id"))
    if key is not None and await service.relay.knows(key):
        body = question_in_url(request, service.max_body_bytes)
        return await _attach(request, fmt, key, hashlib.sha256(body).digest())
    permit = await _arrive(request)
    asked = _decode(request, question_in_url(request, service.max_body_bytes), key)
    return await _start(request, fmt, asked, permit)


async def attach(request: Request) -> Response:
    """GET /ask/<id>: read an answer from its start, or after the last event seen."""
    stream_id = request.path_params["stream_id"]
    owner, fmt = caller_of(request, stream_id).owner, _format(request)
    place = place_of(request)
    if place:
        return await _resume(request, fmt, owner, place, stream_id)
    stream = await service_of(request).relay.open(stream_id, owner)
    return _respond(request, fmt, stream, after=-1)


async def reconnect(request: Request) -> Response:
    """GET /ask/<chat id>/stream: read the chat's running answer from its start; 204 when none is running.

    The AI SDK's `reconnectToStream`, and so in its format, whatever the default is.
    """
    caller_of(request)
    wanted = request.query_params.get("format", AiSdkFormat.name)
    fmt = choose(service_of(request).formats, default=wanted, wanted=wanted, accept=None)
    chat = _chat_of(request, request.path_params["chat_id"])
    stream = await service_of(request).relay.running_in_chat(chat)
    return Response(status_code=204) if stream is None else _respond(request, fmt, stream, after=-1)


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
        service.formats,
        default=service.default_format,
        wanted=request.query_params.get("format") if request.scope["query_string"] else None,
        accept=header(request.scope, b"accept"),
    )


def _key(request: Request, sent: str | None) -> str | None:
    """Return an idempotency key with its owner before it, so that owners do not share keys."""
    if sent is None:
        return None
    if not 0 < len(sent) <= MAX_KEY_CHARS:
        raise InvalidRequest(f"an idempotency key has 1 to {MAX_KEY_CHARS} characters")
    return f"{principal_of(request).owner}/{sent}"


async def _arrive(request: Request, *, attaches: bool = False) -> Permit:
    """Count a request that asks. Raises what `Limits.arrive` raises."""
    caller = principal_of(request)
    limits = service_of(request).limits
    return await limits.arrive(caller.client, attaches=attaches, own_limits=own_limits(caller.allowance))


async def _attach(request: Request, fmt: Format, key: str, fingerprint: bytes) -> Response:
    """Return the answer that was asked for with a key.

    It costs nothing and is not counted: a reader always gets back to its answer. Misuse of a key is counted.
    """
    service = service_of(request)
    permit = await _arrive(request, attaches=True)
    try:
        stream = await service.relay.attach(key, fingerprint)
    except KeyReused:
        await permit.count_misuse()
        raise
    return _answer(request, fmt, stream, permit)


def _decode(request: Request, body: bytes | bytearray, key: str | None) -> tuple[Question, LogSpec]:
    """Return what a body asks, and under which names its answer is kept. Raises ChatError."""
    principal = principal_of(request)
    policy = policy_for(service_of(request).policy, principal.allowance)
    ask = decode_ask(body, allows_system=policy.allows_system)
    spec = LogSpec(
        stream_id=new_stream_id(),
        owner=principal.owner,
        idempotency_key=key,
        fingerprint=hashlib.sha256(body).digest(),
        chat_id=None if ask.id is None else _chat_of(request, ask.id),
    )
    return admit(ask, policy, principal.client), spec


async def _start(request: Request, fmt: Format, asked: tuple[Question, LogSpec], permit: Permit) -> Response:
    """Ask, unless the application refuses, and return the answer."""
    service, (question, spec) = service_of(request), asked
    if service.before_ask is not None:
        question = await service.before_ask(question, principal_of(request))
    stream = await service.relay.start(question, spec, request.scope["state"]["request_id"], permit)
    return _answer(request, fmt, stream, permit)


def _answer(request: Request, fmt: Format, stream: Log, permit: Permit) -> Response:
    limits = permit.headers()
    if prefers_async(request):
        token = service_of(request).links.token(stream.id, stream.owner)
        headers = {
            "Location": f"{_path(request, stream)}?token={token}",
            "Preference-Applied": "respond-async",
        }
        return Response(status_code=202, headers={**_headers(request, stream), **limits, **headers})
    return _respond(request, fmt, stream, after=-1, limits=limits)


def _chat_of(request: Request, chat_id: str) -> str:
    """Name a chat as its owner's. Without keys, visitors are told apart by their network.

    So a stranger who learns a chat's id cannot replace the answer that its owner resumes.
    """
    return f"{principal_of(request).client}/{chat_id}"


async def _resume(
    request: Request, fmt: Format, owner: str, place: str, expected: str | None = None
) -> Response:
    """Return the answer after an event. Never asks upstream. Raises InvalidRequest or StreamNotFound."""
    try:
        stream_id, seq = parse_event_id(place)
    except ValueError as exc:
        raise InvalidRequest(f"Last-Event-ID: {exc}") from exc
    if expected not in (None, stream_id):
        raise StreamNotFound("Last-Event-ID names another answer")
    stream = await service_of(request).relay.open(stream_id, owner)
    if not fmt.has_ids:  # its reader cannot know what it has seen
        return _respond(request, fmt, stream, after=-1)
    extent = await stream.extent()
    if extent.is_exact and seq >= extent.length:
        raise InvalidRequest(f"Last-Event-ID: {event_id(stream_id, seq)} has not been sent yet")
    if extent.is_exact and extent.sealed and seq == extent.length - 1:
        # EventSource reconnects after every end, and only a 204 stops it. A client that posts gets the last
        # event once more.
        if request.method != "POST":
            return Response(status_code=204)
        seq -= 1
    return _respond(request, fmt, stream, after=seq)


def _respond(
    request: Request, fmt: Format, stream: Log, *, after: int, limits: Mapping[str, str] | None = None
) -> Response:
    relay = service_of(request).relay
    headers = _headers(request, stream)
    if limits:
        headers |= limits
    return fmt.respond(
        Reading(
            stream_id=stream.id,
            after=after,
            follow=lambda subscriber: relay.follow(stream, after, subscriber, resumable=fmt.resumable),
            headers=headers,
            request_id=request.scope["state"]["request_id"],
        )
    )


def _headers(request: Request, stream: Log) -> dict[str, str]:
    return {"Content-Location": _path(request, stream), **NEGOTIATED}


def _path(request: Request, stream: Log) -> str:
    return public_path(request.scope, f"/ask/{stream.id}")
