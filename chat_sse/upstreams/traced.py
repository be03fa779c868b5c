"""An upstream that is traced: each call is a client span by OpenTelemetry's GenAI conventions, v0.1.0.

Part of the extra `otel`. A span holds models, times, counts and codes, and never what was asked or answered.
"""

import asyncio
from collections.abc import Sequence

from opentelemetry import trace
from opentelemetry.trace import Span, SpanKind, StatusCode, Tracer
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from chat_sse.errors import ChatError
from chat_sse.events import Done
from chat_sse.messages import Question
from chat_sse.trace_context import TRACEPARENT
from chat_sse.upstreams.base import Listener, Upstream, UpstreamEvent

_propagator = TraceContextTextMapPropagator()


class TracedUpstream:
    """An upstream whose every call is a client span, within the span of the request that asked."""

    def __init__(self, upstream: Upstream, tracer: Tracer) -> None:
        self._upstream, self._tracer = upstream, tracer
        self.name, self.models = upstream.name, upstream.models

    async def answer(self, question: Question, listener: Listener) -> None:
        """Ask, as `Upstream.answer` promises."""
        span = self._tracer.start_span(
            f"chat {question.model}",
            kind=SpanKind.CLIENT,
            attributes={
                "gen_ai.operation.name": "chat",
                "gen_ai.provider.name": "openai",
                "gen_ai.request.model": question.model,
                "gen_ai.request.stream": True,
                "gen_ai.request.max_tokens": question.max_output_tokens,
            },
        )
        if question.temperature is not None:
            span.set_attribute("gen_ai.request.temperature", question.temperature)
        carrier: dict[str, str] = {}
        _propagator.inject(carrier, trace.set_span_in_context(span))
        TRACEPARENT.set(carrier.get("traceparent", ""))  # the task is this answer's alone
        try:
            await self._upstream.answer(question, _TracedListener(listener, span, question.model))
        except ChatError as exc:
            _fail(span, exc.code)
            raise
        except asyncio.CancelledError:
            span.set_attribute("gen_ai.response.finish_reasons", ["cancelled"])
            span.add_event("stop")
            raise
        except BaseException as exc:
            _fail(span, type(exc).__name__)
            raise
        finally:
            span.end()

    async def aclose(self) -> None:
        """Close all connections."""
        await self._upstream.aclose()


def _fail(span: Span, code: str) -> None:
    span.set_attribute("error.type", code)
    span.set_status(StatusCode.ERROR)


class _TracedListener:
    """A listener that notes what a span tells. Most deltas pass by it: `on_entry` is the listener's own."""

    def __init__(self, listener: Listener, span: Span, model: str) -> None:
        self._listener, self._span, self._asked = listener, span, model
        self._began = asyncio.get_running_loop().time()
        self._has_begun = False
        self.on_activity, self.on_entry = listener.on_activity, listener.on_entry

    def on_model(self, model: str | None) -> None:
        """Note which model answers."""
        if model is not None:
            self._span.set_attribute("gen_ai.response.model", model)
            if model != self._asked:
                self._span.add_event("fallback", {"gen_ai.response.model": model})
        self._listener.on_model(model)

    def on_accepted(self) -> None:
        """Note when."""
        self._span.add_event("accepted")
        self._listener.on_accepted()

    def on_events(self, events: Sequence[UpstreamEvent]) -> None:
        """Note the first delta, and how it ended."""
        if not self._has_begun:
            self._has_begun = True
            seconds = asyncio.get_running_loop().time() - self._began
            self._span.add_event("first chunk")
            self._span.set_attribute("gen_ai.response.time_to_first_chunk", seconds)
        last = events[-1]
        if isinstance(last, Done):
            if last.finish_reason is not None:
                self._span.set_attribute("gen_ai.response.finish_reasons", [last.finish_reason])
            if last.usage is not None:
                self._span.set_attribute("gen_ai.usage.input_tokens", last.usage.prompt_tokens)
                self._span.set_attribute("gen_ai.usage.output_tokens", last.usage.completion_tokens)
        self._listener.on_events(events)
