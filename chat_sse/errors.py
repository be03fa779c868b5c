"""Every way a question can fail, and the one error body.

    ChatError
    ├── InvalidRequest            400  invalid_request
    ├── Unauthenticated           401  unauthenticated
    ├── Forbidden                 403  forbidden
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

from collections.abc import Mapping
from typing import ClassVar, Literal

import msgspec


class ErrorBody(msgspec.Struct, frozen=True, kw_only=True):
    """The body of every error response. `content` is for the person, `details` for the developer, `error` for
    programs; `retryable` says whether asking again can help.
    """

    role: Literal["assistant"] = "assistant"
    content: str
    error: str
    details: str
    request_id: str
    retryable: bool


class ChatError(Exception):
    """Base of all errors that a client sees.

    `details` must not hold secrets or any part of a prompt or an answer; `example` is one for the docs.
    `retry_after` is in seconds, `headers` are those of the response, `content` replaces the class's.
    `may_cost`: upstream may charge for the failed call, so the same question is not asked again.
    """

    code: ClassVar[str]
    status: ClassVar[int]
    content: str
    example: ClassVar[str] = ""
    retryable: bool = False
    may_cost: bool = False

    def __init__(
        self,
        details: str = "",
        *,
        retryable: bool | None = None,
        retry_after: float | None = None,
        may_cost: bool | None = None,
        headers: Mapping[str, str] | None = None,
        content: str | None = None,
    ) -> None:
        super().__init__(details)
        self.content = content or self.content
        self.details = details
        self.retry_after = retry_after
        self.headers = headers or {}
        self.retryable = self.retryable if retryable is None else retryable
        self.may_cost = self.may_cost if may_cost is None else may_cost

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
    example = "Object missing required field `messages`"


class Unauthenticated(ChatError):
    """No valid key, token or link. The text is the same for every cause, so that guessing reveals nothing."""

    code = "unauthenticated"
    status = 401
    content = "This service needs an API key."
    example = "send a valid key or token as `Authorization: Bearer <it>`, or open a valid link"


class Forbidden(ChatError):
    code = "forbidden"
    status = 403
    content = "You are not allowed to ask this."
    example = "this model is for members"


class ForbiddenOrigin(ChatError):
    code = "forbidden_origin"
    status = 403
    content = "This page is not allowed to use the service."
    example = "the page's origin https://other.example is not in ALLOWED_ORIGIN"


class NotFound(ChatError):
    code = "not_found"
    status = 404
    content = "There is nothing at this address."
    example = "GET /nothing"


class StreamNotFound(NotFound):
    code = "stream_not_found"
    content = "That answer is no longer available. Please ask again."
    example = "no answer has this id, or it has expired"


class MethodNotAllowed(ChatError):
    code = "method_not_allowed"
    status = 405
    content = "This address does not support that kind of request."
    example = "PUT /ask"


class NotAcceptable(ChatError):
    code = "not_acceptable"
    status = 406
    content = "I cannot answer in the requested format."


class RequestTimeout(ChatError):
    code = "request_timeout"
    status = 408
    content = "The request took too long to arrive. Please try again."
    example = "the body did not arrive within 30 seconds"
    retryable = True


class PayloadTooLarge(ChatError):
    code = "payload_too_large"
    status = 413
    content = "That message is too long. Please shorten it and try again."
    example = "the body may hold 1048576 bytes at most"


class UnsupportedMediaType(ChatError):
    code = "unsupported_media_type"
    status = 415
    content = "I can only read requests in JSON."
    example = "Content-Type must be application/json"


class Misdirected(ChatError):
    code = "misdirected_request"
    status = 421
    content = "This service is not available under this host name."
    example = "the Host asked for, other.example, is not in CHAT_SSE_ALLOWED_HOSTS"


class KeyReused(ChatError):
    code = "idempotency_key_reused"
    status = 422
    content = "That request was already used for another question."
    example = "this key was used with another body"


class LimitReached(ChatError):
    """One of this server's own limits; `headers` tell the client what is left of it."""

    status = 429
    retryable = True


class TooManyRequests(LimitReached):
    code = "too_many_requests"
    content = "You're asking too quickly. Please wait a moment."
    example = "limit: 60 requests per minute per client"


class TooManyStreams(LimitReached):
    code = "too_many_streams"
    content = "Too many of your questions are being answered right now. Please wait for one to finish."
    example = "limit: 10 answers at once per client"


class BudgetSpent(LimitReached):
    code = "budget_spent"
    content = "The budget for questions is used up for now. Please try again later."
    example = "limit: 1000000 tokens per day for everybody together; this question may cost more than is left"


class HeadTooLarge(ChatError):
    code = "head_too_large"
    status = 431
    content = "That request is too long. Please shorten it and try again."
    example = "a request's head may hold 65536 bytes and 100 fields at most"


class InternalError(ChatError):
    code = "internal_error"
    status = 500
    content = "Something went wrong on our side. Please try again later."
    retryable = True


class Overloaded(ChatError):
    code = "overloaded"
    status = 503
    content = "The service is busy. Please try again in a moment."
    example = "the question with this key has just failed"
    retryable = True


class Draining(Overloaded):
    code = "server_draining"
    content = "The service is restarting. Please try again in a moment."
    example = ""


class StoreUnavailable(Overloaded):
    code = "log_unavailable"
    content = "The service is temporarily unavailable. Please try again in a moment."
    example = "Redis does not answer"


class UpstreamError(ChatError):
    """The upstream failed, or did not follow its protocol."""

    status = 500


class UpstreamAuthentication(UpstreamError):
    code = "authentication_error"
    content = "The service is not set up correctly. Please contact its operator."
    example = "upstream answered 401: Incorrect API key provided: [secret]."


class UpstreamRateLimit(UpstreamError):
    code = "rate_limit_error"
    content = "The language model is receiving too many requests. Please try again in a moment."
    example = "upstream answered 429: Rate limit reached"
    retryable = True


class UpstreamRejected(UpstreamError):
    code = "invalid_request_error"
    content = "The language model could not process this conversation."
    example = "upstream answered 400: invalid_request_error, context_length_exceeded"


class UpstreamUnavailable(UpstreamError):
    code = "service_unavailable_error"
    content = "The language model is not available at the moment. Please try again later."
    example = "upstream cannot be reached"
    retryable = True


class UpstreamTimeout(UpstreamError):
    code = "timeout_error"
    content = "The language model took too long to answer. Please try again."
    example = "upstream was silent, or the answer took, for too long"
    retryable = True


class UpstreamProtocol(UpstreamError):
    code = "upstream_protocol_error"
    content = "The answer was cut off before it was complete. Please try again."
    example = "upstream answered with something that is no event stream"
    retryable = True
    may_cost = True
