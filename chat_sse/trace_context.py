"""Which trace the running task belongs to, for those that send requests on its behalf."""

from contextvars import ContextVar

# The header of that name (W3C Trace Context); empty where nothing is traced.
TRACEPARENT: ContextVar[str] = ContextVar("traceparent", default="")
