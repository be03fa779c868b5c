"""From the settings to what watches the service: the part of the composition root that is about that.

Only the root itself and the server call it, after `watching_faults`. Nothing of the extras `metrics` and
`otel` is imported unless it is on.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager
from typing import TYPE_CHECKING

from starlette.middleware import Middleware

from chat_sse import __version__
from chat_sse.settings import Settings, variable
from chat_sse.settings.extras import extra_faults

if TYPE_CHECKING:
    from chat_sse.observe.metrics import Metrics
    from chat_sse.observe.tracing import Tracing


def watching_faults(settings: Settings) -> Iterator[str]:
    """Yield that metrics or traces are asked for without what they need."""
    if settings.metrics_port is not None:
        yield from extra_faults(variable("metrics_port"), "metrics", "prometheus_client")
    if settings.traces:
        yield from extra_faults(variable("traces"), "otel", "opentelemetry.exporter.otlp.proto.http")


def make_tracing(settings: Settings) -> "Tracing | None":
    """Return what makes spans, if any are wanted."""
    if not settings.traces:
        return None
    from chat_sse.observe.tracing import Tracing  # noqa: PLC0415 - see above

    return Tracing(__version__)


def traced_requests(tracing: "Tracing | None") -> list[Middleware]:
    """Return the middleware that traces requests, if anything does."""
    if tracing is None:
        return []
    from chat_sse.observe.tracing import TracedRequests  # noqa: PLC0415 - see above

    return [Middleware(TracedRequests, tracer=tracing.tracer)]


def make_metrics(settings: Settings) -> "Metrics | None":
    """Return what counts, if anything is to be counted."""
    if settings.metrics_port is None:
        return None
    from chat_sse.observe.metrics import Metrics  # noqa: PLC0415 - see above

    return Metrics()


def measure(
    settings: Settings, metrics: "Metrics", parts: Sequence[object]
) -> AbstractAsyncContextManager[None]:
    """Watch the parts, and serve the metrics unless a supervisor does. Raises OSError when entered."""
    from chat_sse.observe.metrics_server import measuring  # noqa: PLC0415 - see above

    return measuring(metrics, settings.metrics_host, settings.metrics_port or 0, parts)


@contextmanager
def workers_metrics(settings: Settings) -> Iterator[Callable[[int], object] | None]:
    """Serve the metrics of the workers that start inside. Yields what is to be told of a worker's death."""
    if settings.metrics_port is None:
        yield None
        return
    from chat_sse.observe.metrics_server import (  # noqa: PLC0415 - see above
        forget_worker,
        serve_workers_metrics,
    )

    with serve_workers_metrics(settings.metrics_host, settings.metrics_port):
        yield forget_worker
