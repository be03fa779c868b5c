"""Traces: where spans go, and a server span for each request. `upstreams/traced.py` has those of the calls.

Part of the extra `otel`. The collector and the sampling are set by OpenTelemetry's own variables
(OTEL_EXPORTER_OTLP_ENDPOINT, OTEL_TRACES_SAMPLER, …). A span holds paths, times and codes, never content, and
no query string, address or name of a client.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from threading import Thread

from opentelemetry import context, trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Span, SpanKind, StatusCode, Tracer
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from starlette.types import ASGIApp, Message, Receive, Scope, Send

# What is not sent by then is lost: a collector that is away must not hold up a restart.
FLUSH_SECONDS = 3.0
_FIRST_ERROR = 500

_propagator = TraceContextTextMapPropagator()


class Tracing:
    """Makes spans, and sends them from a thread of the library's."""

    def __init__(self, version: str) -> None:
        # OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES win over these.
        resource = Resource.create({"service.name": "chat-sse", "service.version": version})
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        self.tracer = self._provider.get_tracer("chat_sse", version)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Send what there is at the exit, within bounds."""
        try:
            yield
        finally:
            # Not shut down: the service may be started again.
            flush = Thread(target=self._provider.force_flush, name="last spans", daemon=True)
            flush.start()
            await asyncio.to_thread(flush.join, FLUSH_SECONDS)


class TracedRequests:
    """Pure ASGI: a server span for each request, within the trace that the client names, if it does."""

    def __init__(self, app: ASGIApp, *, tracer: Tracer) -> None:
        self.app = app
        self._tracer = tracer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a connection."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        fields = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        span = self._tracer.start_span(
            scope["method"],
            context=_propagator.extract(fields),
            kind=SpanKind.SERVER,
            attributes={"http.request.method": scope["method"], "url.scheme": scope["scheme"]},
        )

        async def watch(message: Message) -> None:
            if message["type"] == "http.response.start":
                _note_response(span, message["status"])
            await send(message)

        if scope["method"] == "DELETE":
            span.add_event("stop")
        elif "last-event-id" in fields:
            span.add_event("resume")
        token = context.attach(trace.set_span_in_context(span))
        try:
            await self.app(scope, receive, watch)
        finally:
            context.detach(token)
            _note_request(span, scope)
            span.end()


def _note_response(span: Span, status: int) -> None:
    span.set_attribute("http.response.status_code", status)
    if status >= _FIRST_ERROR:
        span.set_status(StatusCode.ERROR)


def _note_request(span: Span, scope: Scope) -> None:
    """Note what is known once the request was routed."""
    state = scope["state"]
    span.set_attribute("chat_sse.request_id", state["request_id"])
    if route := getattr(scope.get("route"), "path", None):
        span.update_name(f"{scope['method']} {route}")
        span.set_attribute("http.route", route)
    if error := state.get("error"):
        span.set_attribute("error.type", error)
