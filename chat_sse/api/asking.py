"""From a request to the answer that it gets: asked for, attached to, or read on. What the handlers share."""

import hashlib
from collections.abc import Mapping

from starlette.requests import Request
from starlette.responses import Response

from chat_sse.access.headers import header
from chat_sse.access.paths import public_path
from chat_sse.access.principal import Principal, principal_of
from chat_sse.api.request_body import check_media_type, receive_body
from chat_sse.api.request_fields import place_of, prefers_async
from chat_sse.api.service import own_limits, policy_for, service_of
from chat_sse.errors import InvalidRequest, StreamNotFound
from chat_sse.events import event_id, new_stream_id, parse_event_id
from chat_sse.formats.base import NEGOTIATED, Asked, Format, Reading
from chat_sse.limits.admission import Permit
from chat_sse.messages import MAX_KEY_CHARS, Question
from chat_sse.policy import admit
from chat_sse.stores.base import Log, LogSpec


async def answer_post(request: Request, caller: Principal, fmt: Format) -> Response:
    """Answer a POST: ask what its body asks, attach by its key, or resume by `Last-Event-ID`."""
    service = service_of(request)
    if place := header(request.scope, b"last-event-id"):
        return await resume(request, fmt, caller.owner, place)
    check_media_type(request)
    key = key_of(request, header(request.scope, b"idempotency-key"))
    bounds = service.max_body_bytes, service.receive_timeout_seconds
    is_known = key is not None and await service.relay.knows(key)
    async with permit_for(request, attaches=is_known) as permit:
        if key is not None and is_known and not fmt.reads_body:
            digest = hashlib.sha256()  # all that attaching needs of a body
            await receive_body(request, *bounds, digest.update)
            return await attach_by_key(request, fmt, key, digest.digest(), permit)
        with service.bodies.body(caller.client) as body:
            await receive_body(request, *bounds, body.add)
            asked = fmt.read(body.content, allows_system=service.policy.allows_system)
            question, spec = admitted(request, asked, body.content, key)
        key = spec.idempotency_key
        if key is not None and fmt.reads_body and (is_known or await service.relay.knows(key)):
            return await attach_by_key(request, asked.format, key, spec.fingerprint, permit)
        return await start(request, asked.format, question, spec, permit)


def key_of(request: Request, sent: str | None) -> str | None:
    """Return an idempotency key with its owner before it, so that owners do not share keys."""
    if sent is None:
        return None
    if not 0 < len(sent) <= MAX_KEY_CHARS:
        raise InvalidRequest(f"an idempotency key has 1 to {MAX_KEY_CHARS} characters")
    return f"{principal_of(request).owner}/{sent}"


def permit_for(request: Request, *, attaches: bool = False) -> Permit:
    """Let a request in that asks. Raises what `Limits.permit` raises."""
    caller = principal_of(request)
    limits = service_of(request).limits
    return limits.permit(caller.client, attaches=attaches, own_limits=own_limits(caller.allowance))


async def attach_by_key(
    request: Request, fmt: Format, key: str, fingerprint: bytes, permit: Permit
) -> Response:
    """Return the answer that was asked for with a key.

    It costs nothing and is not counted: a reader always gets back to its answer. Misuse of a key is counted.
    """
    stream = await service_of(request).relay.attach(key, fingerprint)
    return _answer(request, fmt, stream, permit)


def admitted(
    request: Request, asked: Asked, body: bytes | bytearray, key: str | None
) -> tuple[Question, LogSpec]:
    """Return what is asked, as far as the caller may, and under which names its answer is kept.

    `key`: the request's own. Raises InvalidRequest or PayloadTooLarge.
    """
    principal = principal_of(request)
    spec = LogSpec(
        stream_id=new_stream_id(),
        owner=principal.owner,
        idempotency_key=key or key_of(request, asked.key),
        fingerprint=hashlib.sha256(body).digest(),
        chat_id=None if asked.ask.id is None else chat_of(request, asked.ask.id),
    )
    policy = policy_for(service_of(request).policy, principal.allowance)
    return admit(asked.ask, policy, principal.client), spec


async def start(request: Request, fmt: Format, question: Question, spec: LogSpec, permit: Permit) -> Response:
    """Ask, unless the application refuses, and return the answer."""
    service = service_of(request)
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
    return respond(request, fmt, stream, after=-1, limits=limits)


def chat_of(request: Request, chat_id: str) -> str:
    """Name a chat as its owner's. Without keys, visitors are told apart by their network.

    So a stranger who learns a chat's id cannot replace the answer that its owner resumes.
    """
    return f"{principal_of(request).client}/{chat_id}"


async def read_answer(request: Request, owner: str, fmt: Format) -> Response:
    """Answer a GET of an answer: from its start, or after the last event seen."""
    stream_id = request.path_params["stream_id"]
    if place := place_of(request):
        return await resume(request, fmt, owner, place, stream_id)
    stream = await service_of(request).relay.open(stream_id, owner)
    return respond(request, fmt, stream, after=-1)


async def resume(
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
        return respond(request, fmt, stream, after=-1)
    extent = await stream.extent()
    if extent.is_exact and seq >= extent.length:
        raise InvalidRequest(f"Last-Event-ID: {event_id(stream_id, seq)} has not been sent yet")
    if extent.ends_at(seq):
        # EventSource reconnects after every end, and only a 204 stops it. A client that posts gets the last
        # event once more.
        if request.method != "POST":
            return Response(status_code=204)
        seq -= 1
    return respond(request, fmt, stream, after=seq)


def respond(
    request: Request, fmt: Format, stream: Log, *, after: int, limits: Mapping[str, str] | None = None
) -> Response:
    """Return an answer after a cursor, -1 for all of it."""
    relay = service_of(request).relay
    headers = _headers(request, stream)
    if limits:
        headers |= limits
    start = -1 if fmt.replays else after
    return fmt.respond(
        Reading(
            stream_id=stream.id,
            after=after,
            follow=lambda subscriber: relay.follow(
                stream, start, subscriber, resumes=after >= 0, resumable=fmt.resumable
            ),
            headers=headers,
            request_id=request.scope["state"]["request_id"],
        )
    )


def _headers(request: Request, stream: Log) -> dict[str, str]:
    return {"Content-Location": _path(request, stream), **NEGOTIATED}


def _path(request: Request, stream: Log) -> str:
    return public_path(request.scope, f"/ask/{stream.id}")
