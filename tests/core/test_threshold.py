"""Thresholds: what can be read, what it comes to in a metric's unit, and what is refused."""

import pytest

from bench.core.errors import InputError
from bench.core.threshold import parse_threshold


@pytest.mark.parametrize(
    ("text", "unit", "base", "amount"),
    [
        ("3%", "ms", 50.0, 1.5),
        ("3 %", "ms", -50.0, 1.5),
        ("0.5pt", "%", 71.0, 0.5),
        ("0.5pt", "fraction", 0.71, 0.005),
        ("200MiB", "B", 1e9, 200 * 2**20),
        ("1.5GB", "bytes", 1e9, 1.5e9),
        ("2ms", "s", 1.0, 0.002),
        ("200us", "ms", 1.0, 0.2),
        ("1000", "elements", 5e6, 1000.0),
        ("1e6", "MACs", 5e9, 1e6),
        (".5", "widgets", 5.0, 0.5),
        ("0", "ms", 5.0, 0.0),
    ],
)
def test_a_threshold_comes_to_an_amount_in_the_unit_of_the_metric(
    text: str, unit: str, base: float, amount: float
) -> None:
    assert parse_threshold(text).in_unit(unit, base=base) == pytest.approx(amount)


@pytest.mark.parametrize(
    "text", ["", "%", "three%", "-3%", "+3%", "3percent", "3%%", "3 MB/s", "1e999%", "nan", "3,5%"]
)
def test_other_thresholds_are_refused_with_the_allowed_forms(text: str) -> None:
    with pytest.raises(InputError, match=r"not a threshold.*3%.*200MiB"):
        parse_threshold(text)


@pytest.mark.parametrize(("text", "unit"), [("0.5pt", "ms"), ("200MiB", "ms"), ("2ms", "B"), ("2s", ""), ("1J", "W")])
def test_an_amount_of_something_else_is_refused(text: str, unit: str) -> None:
    with pytest.raises(InputError, match="does not fit a metric in"):
        parse_threshold(text).in_unit(unit, base=1.0)


def test_a_threshold_reads_back_unchanged() -> None:
    for text in ("3%", "0.5pt", "200MiB", "1000"):
        assert str(parse_threshold(text)) == text


@pytest.mark.parametrize(("text", "amount"), [("noise", 2.0), ("2noise", 4.0), ("0.5 noise", 1.0)])
def test_noise_is_a_multiple_of_the_spread_of_base(text: str, amount: float) -> None:
    threshold = parse_threshold(text)
    assert threshold.in_unit("ms", base=-50.0, noise=0.04) == pytest.approx(amount)
    assert parse_threshold(str(threshold)) == threshold
    with pytest.raises(InputError, match=r"noise of base is not known.*3%"):
        threshold.in_unit("ms", base=50.0)
