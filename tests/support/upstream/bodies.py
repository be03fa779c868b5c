"""The bodies that every server of the upstream's kind has: errors, and the list of models."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.support.upstream.calls import Call

ERRORS: dict[int, tuple[str, str | None, str]] = {
    400: ("invalid_request_error", None, "The request is not valid."),
    401: ("invalid_request_error", "invalid_api_key", "Incorrect API key provided: {key}."),
    404: ("invalid_request_error", "model_not_found", "The model or the URL does not exist."),
    429: ("requests", "rate_limit_exceeded", "Rate limit reached in organization org-scripted."),
}


def error_body(status: int, call: Call) -> dict[str, Any]:
    """OpenAI's error JSON for a status, https://platform.openai.com/docs/guides/error-codes."""
    kind, code, message = ERRORS.get(status, ("server_error", None, "The server had an error."))
    key = call.headers.get("authorization", "").removeprefix("Bearer ")
    return {"error": {"message": message.format(key=key), "type": kind, "param": None, "code": code}}


def model_list(models: tuple[str, ...]) -> dict[str, Any]:
    """OpenAI's list of models."""
    data = [{"id": model, "object": "model", "created": 0, "owned_by": "scripted"} for model in models]
    return {"object": "list", "data": data}
