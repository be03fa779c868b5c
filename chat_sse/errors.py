"""Every way a question can fail, and the one error body.

    ChatError
    ├── InvalidRequest            400  invalid_request
    ├── Unauthenticated           401  unauthenticated
    ├── ForbiddenOrigin           403  forbidden_origin
    ├── NotFound                  404  not_found
    │   └── StreamNotFound        404  stream_not_found
    ├── MethodNotAllowed          405  method_not_allowed
    ├── NotAcceptable             406  not_acceptable
    ├── RequestTimeout            408  request_timeout
    ├── PayloadTooLarge           413  payload_too_large
    ├── UnsupportedMediaType      415  unsupported_media_type
    ├── Misdirected               421  misdirected_request
    ├── KeyReused                 422  idempotency_key_reused
    ├── LimitReached              429  (this server's own limits)
    │   ├── TooManyRequests       429  too_many_requests
    │   ├── TooManyStreams        429  too_many_streams
    │   └── BudgetSpent           429  budget_spent
    ├── HeadTooLarge              431  head_too_large
    ├── InternalError             500  internal_error
    ├── Overloaded                503  overloaded
    │   ├── Draining              503  server_draining
    │   └── StoreUnavailable      503  log_unavailable
    └── UpstreamError             500  (the OpenAI API failed)
        ├── UpstreamAuthentication     authentication_error
        ├── UpstreamRateLimit          rate_limit_error
        ├── UpstreamRejected           invalid_request_error
        ├── UpstreamUnavailable        service_unavailable_error
        ├── UpstreamTimeout            timeout_error
        └── UpstreamProtocol           upstream_protocol_error

An error is an HTTP response as long as nothing has been sent, and the stream's last event after that.
"""

from collections.abc import Iterator, Mapping
from typing import ClassVar, Literal

import msgspec


class ErrorBody(msgspec.Struct, frozen=True, kw_only=True):
    """The body of every error response.

    `content` is for the person, `details` for the developer; `error` is the code to program against;
    `retryable` says whether asking again can help.
    """

    role: Literal["assistant"] = "assistant"
    content: str
    error: str
    details: str
    request_id: str
    retryable: bool


class ChatError(Exception):
    """Base of all errors that a client sees.

    `details` must not hold secrets or any part of a prompt or an answer. `retry_after` is in seconds.
    `may_cost`: upstream may charge for the failed call, so the same question is not asked again.
    """

    code: ClassVar[str]
    status: ClassVar[int]
    content: ClassVar[str]
    retryable: bool = False
    may_cost: bool = False

    def __init__(
        self,
        details: str = "",
        *,
        retryable: bool | None = None,
        retry_after: float | None = None,
        may_cost: bool | None = None,
    ) -> None:
        super().__init__(details)
        self.details = details
        self.retry_after = retry_after
        if retryable is not None:
            self.retryable = retryable
        if may_cost is not None:
            self.may_cost = may_cost

    def body(self, request_id: str) -> ErrorBody:
        """Return the error body for this error."""
        return ErrorBody(
            content=self.content,
            error=self.code,
            details=self.details,
            request_id=request_id,
            retryable=self.retryable,
        )


class InvalidRequest(ChatError):
    code = "invalid_request"
    status = 400
    content = "I could not understand that request. Please check your message and try again."


class Unauthenticated(ChatError):
    """No valid key or link. The text is the same for every cause, so that guessing reveals nothing."""

    code = "unauthenticated"
    status = 401
    content = "This service needs an API key."


class ForbiddenOrigin(ChatError):
    code = "forbidden_origin"
    status = 403
    content = "This page is not allowed to use the service."


class NotFound(ChatError):
    code = "not_found"
    status = 404
    content = "There is nothing at this address."


class StreamNotFound(NotFound):
    code = "stream_not_found"
    content = "That answer is no longer available. Please ask again."


class MethodNotAllowed(ChatError):
    code = "method_not_allowed"
    status = 405
    content = "This address does not support that kind of request."


class NotAcceptable(ChatError):
    code = "not_acceptable"
    status = 406
    content = "I cannot answer in the requested format."


class RequestTimeout(ChatError):
    code = "request_timeout"
    status = 408
    content = "The request took too long to arrive. Please try again."
    retryable = True


class PayloadTooLarge(ChatError):
    code = "payload_too_large"
    status = 413
    content = "That message is too long. Please shorten it and try again."


class UnsupportedMediaType(ChatError):
    code = "unsupported_media_type"
    status = 415
    content = "I can only read requests in JSON."


class Misdirected(ChatError):
    code = "misdirected_request"
    status = 421
    content = "This service is not available under this host name."


class KeyReused(ChatError):
    code = "idempotency_key_reused"
    status = 422
    content = "That request was already used for another question."


class LimitReached(ChatError):
    """One of this server's own limits; `headers` tell the client what is left of it."""

    status = 429
    retryable = True

    def __init__(
        self,
        details: str = "",
        *,
        retryable: bool | None = None,
        retry_after: float | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(details, retryable=retryable, retry_after=retry_after)
        self.headers = headers or {}


class TooManyRequests(LimitReached):
    code = "too_many_requests"
    content = "That were too many questions in a short time. Please wait a moment and try again."


class TooManyStreams(LimitReached):
    code = "too_many_streams"
    content = "Too many of your questions are being answered right now. Please wait for one to finish."


class BudgetSpent(LimitReached):
    code = "budget_spent"
    content = "The budget for questions is used up for now. Please try again later."


class HeadTooLarge(ChatError):
    code = "head_too_large"
    status = 431
    content = "That request is too long. Please shorten it and try again."


class InternalError(ChatError):
    code = "internal_error"
    status = 500
    content = "Something went wrong on our side. Please try again later."
    retryable = True


class Overloaded(ChatError):
    code = "overloaded"
    status = 503
    content = "The service is busy. Please try again in a moment."
    retryable = True


class Draining(Overloaded):
    code = "server_draining"
    content = "The service is restarting. Please try again in a moment."


class StoreUnavailable(Overloaded):
    code = "log_unavailable"
    content = "The service is temporarily unavailable. Please try again in a moment."


class UpstreamError(ChatError):
    """The upstream failed, or did not follow its protocol."""

    status = 500


class UpstreamAuthentication(UpstreamError):
    code = "authentication_error"
    content = "The service is not set up correctly. Please contact its operator."


class UpstreamRateLimit(UpstreamError):
    code = "rate_limit_error"
    content = "The language model is receiving too many requests. Please try again in a moment."
    retryable = True


class UpstreamRejected(UpstreamError):
    code = "invalid_request_error"
    content = "The language model could not process this conversation."


class UpstreamUnavailable(UpstreamError):
    code = "service_unavailable_error"
    content = "The language model is not available at the moment. Please try again later."
    retryable = True


class UpstreamTimeout(UpstreamError):
    code = "timeout_error"
    content = "The language model took too long to answer. Please try again."
    retryable = True


class UpstreamProtocol(UpstreamError):
    code = "upstream_protocol_error"
    content = "The answer was cut off before it was complete. Please try again."
    retryable = True
    may_cost = True


def _classes(base: type[ChatError]) -> Iterator[type[ChatError]]:
    for kind in base.__subclasses__():
        yield kind
        yield from _classes(kind)


# A class without a code of its own only groups others.
_BY_CODE = {kind.code: kind for kind in _classes(ChatError) if "code" in vars(kind)}


def error_of(body: ErrorBody) -> ChatError:
    """Return the error that a body describes, so that it can become an HTTP response again.

    An unknown code becomes InternalError: another version of the service may have written the log.
    """
    return _BY_CODE.get(body.error, InternalError)(body.details, retryable=body.retryable)
