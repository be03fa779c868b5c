"""A collector of traces: a server that takes OTLP over HTTP and keeps the spans."""

from __future__ import annotations

import gzip
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

import msgspec
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.support.web import Handler, web_server

SECONDS = 15.0
KINDS = {2: "server", 3: "client"}


class Span(msgspec.Struct, frozen=True):
    """One span, as it arrived."""

    trace: str
    id: str
    parent: str
    name: str
    kind: str
    attributes: dict[str, Any]
    events: list[str]
    is_error: bool
    seconds: float


class Collector:
    """Listens on `url`; `raw` is all that came, as text to be searched."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.resources: list[dict[str, Any]] = []
        self.raw = b""
        collector = self

        class Receiver(Handler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                assert self.path == "/v1/traces"
                collector.take(gzip.decompress(body) if self.headers["content-encoding"] == "gzip" else body)
                self.reply(200, **{"Content-Type": "application/x-protobuf"})

        self._server = web_server(Receiver)
        self.url = ""  # once it is entered

    def take(self, body: bytes) -> None:
        """Keep what a request brought."""
        request = ExportTraceServiceRequest.FromString(body)
        for resource in request.resource_spans:
            self.resources.append(_attributes(resource.resource.attributes))
            self.spans += [_span(span) for scope in resource.scope_spans for span in scope.spans]
        self.raw += body

    def wait_for(self, condition: Callable[[Span], bool]) -> Span:
        """Wait for a span."""
        deadline = time.monotonic() + SECONDS
        while not (found := [span for span in self.spans if condition(span)]):
            assert time.monotonic() < deadline, self.spans
            time.sleep(0.05)
        return found[-1]

    def __enter__(self) -> Self:
        self.url = f"http://127.0.0.1:{self._server.__enter__()}"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._server.__exit__(kind, exc, traceback)


def _span(span: Any) -> Span:
    return Span(
        trace=span.trace_id.hex(),
        id=span.span_id.hex(),
        parent=span.parent_span_id.hex(),
        name=span.name,
        kind=KINDS[span.kind],
        attributes=_attributes(span.attributes),
        events=[event.name for event in span.events],
        is_error=span.status.code == 2,
        seconds=(span.end_time_unix_nano - span.start_time_unix_nano) / 1e9,
    )


def _attributes(pairs: Any) -> dict[str, Any]:
    return {pair.key: _value(pair.value) for pair in pairs}


def _value(value: Any) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value(one) for one in value.array_value.values]
    return getattr(value, kind)
