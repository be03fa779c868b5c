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
    assert all(sample.megabytes["service"] > 20 and sample.descriptors > 5 for sample in samples)


@pytest.mark.parametrize(("bytes_kept", "is_flat"), [(0, True), (200, True), (300, False)])
def test_what_grows_with_the_questions_after_the_warm_up_is_not_flat(bytes_kept: int, is_flat: bool) -> None:
    samples = [
        Sample(
            seconds=60 * minute,
            megabytes={"service": 60 + min(minute, 5) + bytes_kept * minute * 1000 / 1_048_576},
            descriptors=9,
            redis_keys=0,
            questions=1000 * minute,
            errors=[],
        )
        for minute in range(11)
    ]
    [growth] = growths(samples)
    assert round(growth.bytes_per_question) == bytes_kept
    assert growth.is_flat is is_flat
