"""What a request says beside its question: in header fields, or in the query where those cannot be set."""

from starlette.requests import Request

from chat_sse.access.headers import header


def place_of(request: Request) -> str | None:
    """Return the id of the last event that the client has seen. Polyfills use `lastEventId`."""
    query = request.query_params
    return header(request.scope, b"last-event-id") or query.get("last_event_id") or query.get("lastEventId")


def prefers_async(request: Request) -> bool:
    """Return whether `respond-async` is among the preferences. Source: RFC 7240, 2 and 4.1."""
    if header(request.scope, b"prefer") is None:
        return False
    preferences = ",".join(request.headers.getlist("prefer")).split(",")
    return any(text.partition(";")[0].strip().lower() == "respond-async" for text in preferences)
