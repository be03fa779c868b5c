"""The soak in a few seconds: that it asks, breaks, measures and tells. Its figures need longer."""

import pytest

from tests.soak.run import ROUND_CASES, Sample, soak
from tests.soak.verdict import growths
from tests.support.harness import Layout


@pytest.mark.timeout(120)
def test_a_short_soak_breaks_no_promise() -> None:
    samples = list(soak(Layout(), seconds=3, seed=1))
    assert [sample.errors for sample in samples] == [[]] * len(samples)
    assert samples[-1].questions >= ROUND_CASES
    assert all(sample.megabytes["service"] > 20 and sample.blocks["service"] > 100_000 for sample in samples)
    assert all(sample.descriptors > 5 for sample in samples)


@pytest.mark.parametrize(("kept", "is_flat"), [(0, True), (0.2, True), (0.3, False)])
def test_what_keeps_blocks_of_memory_after_the_warm_up_is_not_flat(kept: float, is_flat: bool) -> None:
    samples = [
        Sample(
            seconds=60 * minute,
            megabytes={"service": 60 + minute, "redis": 2},
            blocks={"service": 400_000 + 9_000 * min(minute, 5) + int(kept * minute * 1000)},
            descriptors=9,
            redis_keys=0,
            questions=1000 * minute,
            errors=[],
        )
        for minute in range(11)
    ]
    [growth] = growths(samples)
    assert round(growth.blocks_per_question, 6) == kept
    assert growth.is_flat is is_flat
