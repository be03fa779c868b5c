"""From the settings to what watches the service: the part of the composition root that is about that.

Only `app.py` and the server call it. Nothing of the extras `metrics` and `otel` is imported unless it is on.
"""

import importlib.util
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager
from typing import TYPE_CHECKING

from starlette.middleware import Middleware

from chat_sse import __version__
from chat_sse.settings import Settings, SettingsError, variable

if TYPE_CHECKING:
    from chat_sse.observe.metrics import Metrics
    from chat_sse.observe.tracing import Tracing


def check_watching(settings: Settings) -> None:
    """Raises SettingsError when metrics or traces are asked for without what they need."""
    faults = []
    if settings.metrics_port is not None and not _is_installed("prometheus_client"):
        faults.append(
            f"{variable('metrics_port')} needs the extra `metrics`: pip install 'chat-sse[metrics]'"
        )
    if settings.traces and not _is_installed("opentelemetry.exporter.otlp.proto.http"):
        faults.append(f"{variable('traces')} needs the extra `otel`: pip install 'chat-sse[otel]'")
    if faults:
        raise SettingsError(faults)


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # of a package that it is in
        return False


def make_tracing(settings: Settings) -> "Tracing | None":
    """Return what makes spans, if any are wanted. Raises SettingsError."""
    if not settings.traces:
        return None
    check_watching(settings)
    from chat_sse.observe.tracing import Tracing  # noqa: PLC0415 - see above

    return Tracing(__version__)


def traced_requests(tracing: "Tracing | None") -> list[Middleware]:
    """Return the middleware that traces requests, if anything does."""
    if tracing is None:
        return []
    from chat_sse.observe.tracing import TracedRequests  # noqa: PLC0415 - see above

    return [Middleware(TracedRequests, tracer=tracing.tracer)]


def make_metrics(settings: Settings) -> "Metrics | None":
    """Return what counts, if anything is to be counted. Raises SettingsError."""
    if settings.metrics_port is None:
        return None
    check_watching(settings)
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
