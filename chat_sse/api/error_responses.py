"""Every exception as a response with the one error body, or with what the clients of another wire read.

The middleware stands inside CORS, so that a browser may read a 500 as well: Starlette's own handler for
unexpected exceptions is outside of it.
"""

import logging
import math

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Match, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from chat_sse.access.paths import own_path
from chat_sse.errors import (
    ChatError,
    ForbiddenOrigin,
    InternalError,
    InvalidRequest,
    MethodNotAllowed,
    NotFound,
    Unauthenticated,
)
from chat_sse.formats import wire_at
from chat_sse.formats.base import Refusal

log = logging.getLogger(__name__)


def error_headers_and_body(
    error: ChatError, request_id: str, refusal: Refusal | None = None, **more: object
) -> tuple[dict[str, str], bytes]:
    """Return the header fields, names in lower case, and the body that any response with this error has.

    `refusal`: the error in the shape of another wire. `more`: further fields of the body.
    """
    body: object = error.body(request_id) if refusal is None else refusal.body
    headers = {"content-type": "application/json", **(refusal.headers if refusal else {})}
    headers |= {name.lower(): value for name, value in error.headers.items()}
    if error.retry_after is not None:
        headers["retry-after"] = str(math.ceil(error.retry_after))
    if isinstance(error, Unauthenticated):
        headers["www-authenticate"] = "Bearer"
    return headers, msgspec.json.encode({**msgspec.to_builtins(body), **more} if more else body)


def error_response(error: ChatError, scope: Scope, **more: object) -> Response:
    """Return an error as the HTTP response to a request, and leave its code for the log."""
    scope["state"]["error"] = error.code
    request_id = scope["state"]["request_id"]
    refusal = wire_at(own_path(scope)).refusal(error, request_id)
    headers, body = error_headers_and_body(error, request_id, refusal, **more)
    return Response(body, status_code=refusal.status, headers=headers)


def handle_chat_error(request: Request, exc: Exception) -> Response:
    """Return the response to an error of our own."""
    assert isinstance(exc, ChatError)  # noqa: S101 - it is registered for this class
    if isinstance(exc, ForbiddenOrigin):  # its page sees the error, its operator does not
        fields = {"cause": exc.details, "request_id": request.state.request_id}
        log.warning("origin.refused", extra={"fields": fields})
    return error_response(exc, request.scope)


def handle_http_exception(request: Request, exc: Exception) -> Response:
    """Return the response to what Starlette's router raises: 404 and 405."""
    assert isinstance(exc, HTTPException)  # noqa: S101 - it is registered for this class
    kind = {404: NotFound, 405: MethodNotAllowed}.get(exc.status_code, InvalidRequest)
    headers = {"Allow": _allowed_methods(request)} if kind is MethodNotAllowed else exc.headers
    error = kind(f"{request.method} {request.url.path}", headers=headers)
    return error_response(error, request.scope)


def _allowed_methods(request: Request) -> str:
    """Return the methods of all routes with this path; Starlette names only those of the first one.

    Source: RFC 9110, 15.5.6 "405 Method Not Allowed".
    """
    found: set[str] = set()
    for route in request.app.routes:
        if isinstance(route, Route) and route.matches(request.scope)[0] is not Match.NONE:
            found |= route.methods or set()
    return ", ".join(sorted(found))


class ErrorMiddleware:
    """Answer what the middleware inside it raises: pure ASGI.

    A ChatError is its response, any other exception a 500 without internals. A client that left is no error.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a connection. Raises what comes too late for a response."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request_id = scope["state"]["request_id"]
        started = False

        async def watch(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self.app(scope, receive, watch)
        except ClientDisconnect:
            log.info("request.abandoned", extra={"fields": {"request_id": request_id}})
        except Exception as exc:
            if started or not isinstance(exc, ChatError):
                log.exception("request.crashed", extra={"fields": {"request_id": request_id}})
            if started:
                raise  # too late for a body: the server breaks the connection, which is no clean end
            error = exc if isinstance(exc, ChatError) else InternalError()
            await error_response(error, scope)(scope, receive, send)
