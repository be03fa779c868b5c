"""The soak in a few seconds: that it asks, breaks, measures and tells. Its figures need longer."""

import pytest

from tests.soak.run import ROUND_CASES, Sample, slope, soak
from tests.support.harness import Layout


@pytest.mark.timeout(120)
def test_a_short_soak_breaks_no_promise() -> None:
    samples = list(soak(Layout(), seconds=3, seed=1))
    assert [sample.errors for sample in samples] == [[]] * len(samples)
    assert samples[-1].questions >= ROUND_CASES
    assert all(sample.megabytes > 20 and sample.descriptors > 5 for sample in samples)


@pytest.mark.parametrize(("growth", "an_hour"), [(0, 0), (2, 120)])
def test_growth_is_told_for_an_hour(growth: float, an_hour: float) -> None:
    samples = [
        Sample(
            seconds=60 * minute, megabytes=90 + growth * minute, descriptors=9, questions=minute, errors=[]
        )
        for minute in range(10)
    ]
    assert round(slope(samples), 6) == an_hour
