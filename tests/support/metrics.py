"""A service's metrics, as Prometheus reads them."""

from __future__ import annotations

import time
from collections.abc import Iterator

from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from tests.support import plain_http
from tests.support.service import RunningService

SECONDS = 10.0


class Metrics:
    """What a service that was started with `CHAT_SSE_METRICS_PORT=0` counts."""

    def __init__(self, service: RunningService) -> None:
        self.url = service.wait_for_log(r"metrics.served url=\S+").partition("=")[2]

    def samples(self) -> list[Sample]:
        """Scrape once."""
        return list(_samples(plain_http.get(self.url, timeout=SECONDS).text))

    def value(self, name: str, **labels: str) -> float:
        """Return the sum of the samples with this name and these labels, and whatever others."""
        return sum(
            sample.value
            for sample in self.samples()
            if sample.name == name and labels.items() <= sample.labels.items()
        )

    def wait_for(self, wanted: float, name: str, **labels: str) -> None:
        """Wait until `value` is this: states are taken once a second."""
        deadline = time.monotonic() + SECONDS
        while (found := self.value(name, **labels)) != wanted:
            assert time.monotonic() < deadline, (name, labels, found)
            time.sleep(0.05)


def _samples(page: str) -> Iterator[Sample]:
    for family in text_string_to_metric_families(page):
        yield from family.samples
