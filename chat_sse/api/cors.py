"""CORS: what pages of other origins may send and see, and why one was refused.

Source: Fetch, "3.3 CORS protocol". Starlette's middleware decides; this one says in the one error body, and
in the log, what it has refused: a browser's console does not.
"""

import logging
from http import HTTPStatus

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from chat_sse.access.headers import shown
from chat_sse.access.origin import Origins, not_allowed
from chat_sse.api.error_responses import error_response
from chat_sse.errors import ChatError, ForbiddenOrigin, InvalidRequest

log = logging.getLogger(__name__)

METHODS = ("GET", "POST", "DELETE")
REQUEST_HEADERS = (
    *("Authorization", "Content-Type", "Idempotency-Key", "Last-Event-ID", "Prefer", "X-Request-Id"),
    # What clients and tracing add by themselves: none of it is obeyed, and refusing one would stop a page.
    *("Baggage", "Cache-Control", "Pragma", "Sentry-Trace", "Traceparent", "Tracestate"),
    *("User-Agent", "X-Requested-With"),
    # OpenAI's SDKs.
    *("OpenAI-Organization", "OpenAI-Project"),
    *(f"X-Stainless-{name}" for name in ("Arch", "Helper-Method", "Lang", "OS", "Package-Version")),
    *(f"X-Stainless-{name}" for name in ("Retry-Count", "Runtime", "Runtime-Version", "Timeout")),
)
RESPONSE_HEADERS = (
    "Content-Location",
    "Location",
    "RateLimit",
    "RateLimit-Policy",
    "Retry-After",
    "X-Should-Retry",
    "X-Request-Id",
)


class Cors(CORSMiddleware):
    """Starlette's, with the origins that may spend."""

    def __init__(self, app: ASGIApp, *, origins: Origins, allow_credentials: bool) -> None:
        super().__init__(
            app,
            allow_origins=("*",) if origins.any else (),
            allow_origin_regex=origins.regex,
            allow_methods=METHODS,
            allow_headers=REQUEST_HEADERS,
            allow_credentials=allow_credentials,
            expose_headers=RESPONSE_HEADERS,
        )

    def preflight_response(self, request_headers: Headers) -> Response:
        """Return the answer to a preflight."""
        response = super().preflight_response(request_headers)
        if response.status_code == HTTPStatus.OK:
            return response
        return _Refusal(self._refusal(request_headers), response.headers)

    def _refusal(self, headers: Headers) -> ChatError:
        origin, method = headers["origin"], headers["access-control-request-method"]
        if not self.is_allowed_origin(origin):
            return ForbiddenOrigin(not_allowed(origin.encode("latin-1")))
        if method not in self.allow_methods:
            return InvalidRequest(f"pages may not use the method {shown(method.encode('latin-1'))}")
        names = headers.get("access-control-request-headers")
        wanted = [] if names is None else [name.strip() for name in names.split(",")]
        if refused := [name for name in wanted if name.lower() not in self.allow_headers]:
            names = shown(", ".join(refused).encode("latin-1"))
            return InvalidRequest(f"pages may not send the headers {names}")
        return InvalidRequest("pages may not be sent to a private network by a public site")


class _Refusal(Response):
    """The one error body instead of a preflight's own; it needs the request's id."""

    def __init__(self, error: ChatError, headers: Headers) -> None:
        super().__init__()
        self._error, self._told = error, headers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request_id = scope["state"]["request_id"]
        fields = {"cause": self._error.details, "request_id": request_id}
        log.warning("preflight.refused", extra={"fields": fields})
        response = error_response(self._error, scope)
        for name, value in self._told.items():
            response.headers.setdefault(name, value)
        await response(scope, receive, send)
