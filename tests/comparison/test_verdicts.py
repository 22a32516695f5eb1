"""Differences in words."""

import pytest

from bench.comparison.verdicts import amount


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0.4, "%", "+0.40 pt"),
        (-0.004, "fraction", "-0.40 pt"),
        (3.2, "ms", "+3.2 ms"),
        (-0.0005, "s", "-500 µs"),
        (214_748_364.8, "B", "+204.8 MiB"),
        (-3_000_000, "elements", "-3 M"),
        (0, "MACs", "+0 MACs"),
    ],
)
def test_a_difference_has_its_sign_and_the_unit_that_a_value_of_its_size_has(
    value: float, unit: str, text: str
) -> None:
    assert amount(value, unit) == text
