"""Numbers as people read them."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.reporting.quantity import DASH, in_full, scale_of, written

FINITE = st.floats(min_value=-1e15, max_value=1e15, allow_nan=False)


@pytest.mark.parametrize(
    ("values", "unit", "text", "shown_unit"),
    [
        ([78_409_573], "elements", "78.4", "M elements"),
        ([38_547_423_232], "MACs", "38.5", "GMACs"),
        ([0.0052], "s", "5.20", "ms"),
        ([5.2], "ms", "5.20", "ms"),
        ([2275.6], "ms", "2.28", "s"),
        ([0.5], "ms", "500", "µs"),
        ([912 * 2**20], "bytes", "912", "MiB"),
        ([3 * 2**30], "B", "3.00", "GiB"),
        ([0.9625], "fraction", "96.2", "%"),
        ([96.25], "%", "96.2", "%"),
        ([192.307], "clips/s", "192", "clips/s"),
        ([2500.0], "J", "2\N{NARROW NO-BREAK SPACE}500", "J"),
        ([8], "", "8", ""),
        ([999.7e6], "MACs", "1.00", "GMACs"),
    ],
)
def test_a_value_is_written_with_three_digits_in_the_unit_that_suits_it(
    values: list[float], unit: str, text: str, shown_unit: str
) -> None:
    scale = scale_of(values, unit)
    assert (scale.text(values[0]), scale.unit) == (text, shown_unit)


def test_a_column_has_one_scale_so_that_its_values_can_be_compared_at_sight() -> None:
    scale = scale_of([5.65e9, 14.76e9, 400e6], "MACs")
    assert [scale.text(v) for v in (5.65e9, 14.76e9, 400e6)] == ["5.65", "14.76", "0.40"]


def test_what_is_not_known_is_a_dash_and_never_a_zero() -> None:
    scale = scale_of([None, 3.0], "ms")
    assert [scale.text(v) for v in (None, math.nan, math.inf)] == [DASH, DASH, DASH]
    assert in_full(None, "ms") == in_full(math.nan, "ms") == DASH


def test_a_unit_is_not_repeated_beside_a_name_that_says_it() -> None:
    assert scale_of([4e10], "MACs").unit_beside("MACs") == "G"
    assert scale_of([4e6], "elements").unit_beside("Parameters") == "M"
    assert scale_of([4.0], "ms").unit_beside("Latency") == "ms"


def test_the_full_value_keeps_every_digit() -> None:
    assert in_full(38_547_423_232, "MACs") == "38,547,423,232 MACs"
    assert in_full(0.1, "J") == "0.1 J"


def test_ends_of_an_interval_get_more_decimals_where_they_would_look_the_same() -> None:
    scale = scale_of([5.2, 10.0, 12.0], "ms")
    assert scale.span(5.174, 5.231) == f"5.17{DASH}5.23"
    assert scale.span(9.7, 12.1) == f"9.7{DASH}12.1"


@given(value=FINITE.filter(lambda v: abs(v) > 1e-9), decimals=st.integers(0, 3))
def test_what_is_not_zero_is_not_written_as_zero(value: float, decimals: int) -> None:
    assert any(digit in written(value, decimals) for digit in "123456789")


@given(
    values=st.lists(FINITE.filter(lambda v: abs(v) > 1e-6), min_size=1), unit=st.sampled_from(["ms", "B", "MACs", "%"])
)
def test_a_written_value_is_near_the_value(values: list[float], unit: str) -> None:
    scale = scale_of(values, unit)
    for value in values:
        read = float(scale.text(value).replace("\N{NARROW NO-BREAK SPACE}", "").replace("\N{MINUS SIGN}", "-"))
        assert read * scale.divisor == pytest.approx(value, rel=0.06, abs=0.51 * scale.divisor * 10**-scale.decimals)
