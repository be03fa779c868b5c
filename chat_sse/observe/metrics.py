"""Metrics for Prometheus: what they are called, and how they come about.

Part of the extra `metrics`. Ended answers and requests are counted when they end, and a watch asks the
service's parts for their figures once a second. So nothing here is on the way of a delta.

Names and buckets of what concerns the call to upstream are those of OpenTelemetry's GenAI conventions, v0.1.0
(github.com/open-telemetry/semantic-conventions-genai, "client inference"), as Prometheus spells them. No
label holds a person, or anything else of which there could be ever more.
"""

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Literal, TypeAlias

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics

from chat_sse.figures import Figure, Measured
from chat_sse.records import AnswerRecord

SAMPLE_SECONDS = 1.0

# "client inference": of durations, the convention's own.
SECONDS_BUCKETS = tuple(0.01 * 2**power for power in range(14))
LAG_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)

# An upstream may say anything.
FINISH_REASONS = frozenset(("stop", "length", "content_filter", "tool_calls", "function_call", "cancelled"))

_CALL = ("gen_ai_operation_name", "gen_ai_provider_name", "gen_ai_request_model", "gen_ai_response_model")

Mode: TypeAlias = Literal["livesum", "livemax", "livemin"]

# The parts' figures that are states: what each is, its label's name, and how several workers' values are one;
# `live` leaves out a worker that has died.
GAUGES: Mapping[str, tuple[str, str, Mode]] = {
    "running_answers": ("Answers that are under way.", "", "livesum"),
    "readers": ("Responses that read an answer, under way or ended.", "", "livesum"),
    "draining": ("Whether a process is shutting down.", "", "livemax"),
    "upstream_breaker_open": ("Whether a model is left out since it has refused.", "model", "livemax"),
    "redis_up": ("Whether Redis answered the last time.", "", "livemin"),
    "redis_unsent_logs": ("Answers of which Redis does not have all that readers have.", "", "livesum"),
}
# Those that are counted: what each is, and its label's name.
COUNTERS: Mapping[str, tuple[str, str]] = {
    "resumes": ("Readers that came back after an event that they had seen.", ""),
    "upstream_retries": ("Calls that were made again, since the one before was refused unpaid.", ""),
    "upstream_fallbacks": ("Questions that a model refused, for the next one to be asked.", "model"),
    "redis_round_trips": ("Round trips to Redis.", ""),
    "redis_round_trip_seconds": ("Seconds that they took.", ""),
    "redis_failures": ("Round trips that failed.", ""),
}


class Metrics:
    """Counts what ends, and keeps the parts' figures."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # a series more for each, which nobody asks for
        self.registry = CollectorRegistry()
        prefix = "gen_ai_client_inference"
        self._duration = self._histogram(
            f"{prefix}_duration_seconds", "A call to upstream.", (*_CALL, "error_type")
        )
        self._first_chunk = self._histogram(
            f"{prefix}_time_to_first_chunk_seconds", "From the question to the first delta.", _CALL
        )
        self._per_chunk = self._histogram(
            f"{prefix}_time_per_output_chunk_seconds", "Between two deltas: the mean of each answer.", _CALL
        )
        self._input = self._counter(f"{prefix}_usage_input_tokens", "Prompt tokens, as upstream told.", _CALL)
        self._output = self._counter(
            f"{prefix}_usage_output_tokens", "Answer tokens, as upstream told, with reasoning.", _CALL
        )
        self._answers = self._counter(
            "chat_sse_answers", "Calls to upstream.", ("model", "outcome", "finish_reason", "error")
        )
        self._estimated = self._counter(
            "chat_sse_estimated_tokens",
            "What budgets count for answers whose usage upstream did not tell: the most they can have cost.",
            ("model",),
        )
        self._requests = self._counter("chat_sse_requests", "Responses to requests.", ("status", "error"))
        self._lag = self._histogram(
            "chat_sse_event_loop_lag_seconds", "How late a timer of each second was.", (), LAG_BUCKETS
        )
        # Of the figures, those that some part has: no gauge says that an unused Redis is down.
        self._gauges: dict[str, Gauge] = {}
        self._counters: dict[str, Counter] = {}
        self._counted: dict[tuple[str, str], float] = {}

    def answer_ended(self, record: AnswerRecord) -> None:
        """Count an answer. An `Observer`."""
        call = ("chat", "openai", record.model, record.answered_by)
        self._duration.labels(*call, record.error or "").observe(record.seconds)
        reason = record.finish_reason or ""
        self._answers.labels(
            record.model,
            "abandoned" if record.abandoned else record.outcome,
            reason if not reason or reason in FINISH_REASONS else "other",
            record.error or "",
        ).inc()
        if record.first_event_seconds is not None:
            self._first_chunk.labels(*call).observe(record.first_event_seconds)
            gaps = record.events - 3  # without the start, the end and the first delta
            if gaps > 0:
                mean = (record.seconds - record.first_event_seconds) / gaps
                self._per_chunk.labels(*call).observe(mean)
        if record.usage is not None:
            self._input.labels(*call).inc(record.usage.prompt_tokens)
            self._output.labels(*call).inc(record.usage.completion_tokens)
        elif record.charged_tokens:
            self._estimated.labels(record.answered_by).inc(record.charged_tokens)

    def request_ended(self, status: int, error: str | None) -> None:
        """Count a request. `error`: the code in the error body, if there was one."""
        self._requests.labels(str(status), error or "").inc()

    def take(self, figure: Figure) -> None:
        """Keep a part's figure. Raises KeyError for one without an entry above."""
        name, labels = figure.name, (figure.label,) if figure.label else ()
        if name in GAUGES:
            gauge = self._gauges.get(name) or self._gauges.setdefault(name, self._gauge(name))
            (gauge.labels(*labels) if labels else gauge).set(figure.value)
            return
        counter = self._counters.get(name) or self._counters.setdefault(name, self._figure_counter(name))
        of = name, figure.label
        (counter.labels(*labels) if labels else counter).inc(figure.value - self._counted.get(of, 0))
        self._counted[of] = figure.value

    async def watch(self, parts: Sequence[object]) -> None:
        """Ask the parts that have any for their figures, until it is cancelled, and then once more."""
        measured = [part for part in parts if isinstance(part, Measured)]
        try:
            while True:
                self._take_all(measured)
                due = time.monotonic() + SAMPLE_SECONDS
                await asyncio.sleep(SAMPLE_SECONDS)
                self._lag.observe(max(0.0, time.monotonic() - due))
        finally:
            self._take_all(measured)

    def _take_all(self, measured: Sequence[Measured]) -> None:
        for part in measured:
            for figure in part.figures():
                self.take(figure)

    def _histogram(
        self, name: str, about: str, labels: Sequence[str], buckets: Sequence[float] = SECONDS_BUCKETS
    ) -> Histogram:
        return Histogram(name, about, labels, buckets=buckets, registry=self.registry)

    def _counter(self, name: str, about: str, labels: Sequence[str]) -> Counter:
        return Counter(name, about, labels, registry=self.registry)

    def _figure_counter(self, name: str) -> Counter:
        about, label = COUNTERS[name]
        return self._counter(f"chat_sse_{name}", about, (label,) if label else ())

    def _gauge(self, name: str) -> Gauge:
        about, label, mode = GAUGES[name]
        labels = (label,) if label else ()
        return Gauge(f"chat_sse_{name}", about, labels, multiprocess_mode=mode, registry=self.registry)
