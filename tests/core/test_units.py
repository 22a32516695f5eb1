"""Numbers as people read them."""

import math
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.core.units import (
    DASH,
    choose_scale,
    first_of,
    format_exact,
    format_interval,
    format_number,
    format_signed,
    format_value,
    plural,
)

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
        ([1.5e12], "FLOP/s", "1.50", "TFLOP/s"),
        ([3.35e12], "B/s", "3.35", "TB/s"),
    ],
)
def test_a_value_is_written_with_three_digits_in_the_unit_that_suits_it(
    values: list[float], unit: str, text: str, shown_unit: str
) -> None:
    scale = choose_scale(values, unit)
    assert (scale.text(values[0]), scale.unit) == (text, shown_unit)


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (38_547_423_232, "MACs", "38.55 GMACs"),
        (78_409_573, "elements", "78.41 M"),
        (1_610_612_736, "B", "1.5 GiB"),
        (61_240_000, "bytes", "58.4 MiB"),
        (999.96, "B", "1000 B"),
        (20.0, "ms", "20 ms"),
        (2275.64, "ms", "2.276 s"),
        (0.5, "ms", "500 µs"),
        (0.0123, "J", "0.0123 J"),
        (0.0125, "fraction", "1.25 %"),
        (1.5e12, "FLOP/s", "1.5 TFLOP/s"),
        (76.1284, "clips/s", "76.13 clips/s"),
        (9.99996e8, "MACs", "1 GMACs"),
        (3.2, "x", "3.2 x"),
        (2, "clips", "2 clips"),
        (0, "MACs", "0 MACs"),
        (-3.25, "ms", "\N{MINUS SIGN}3.25 ms"),
        (None, "ms", "–"),
        (math.nan, "ms", "–"),
        (math.inf, "ms", "–"),
    ],
)
def test_a_single_value_has_four_digits_and_its_unit(value: float | None, unit: str, text: str) -> None:
    assert format_value(value, unit).replace("\N{NARROW NO-BREAK SPACE}", "") == text


def test_the_ends_of_an_interval_have_the_format_of_their_value() -> None:
    assert format_value(2275.64, "ms") == "2.276 s"
    assert format_interval(980.0, 2301.0, value=2275.64, unit="ms") == "0.98 to 2.301"


def test_counted_things_follow_their_number() -> None:
    assert [plural(1, "case"), plural(2, "case"), plural(2, "leaf", "leaves")] == ["1 case", "2 cases", "2 leaves"]


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, ""), (1, "j0"), (4, "j0, j1, j2, j3"), (5, "j0, j1, j2 and 2 more"), (100, "j0, j1, j2 and 97 more")],
)
def test_long_lists_of_names_are_cut_with_their_number(number: int, text: str) -> None:
    assert first_of([f"j{each}" for each in range(number)]) == text


def test_a_column_has_one_scale_so_that_its_values_can_be_compared_at_sight() -> None:
    scale = choose_scale([5.65e9, 14.76e9, 400e6], "MACs")
    assert [scale.text(v) for v in (5.65e9, 14.76e9, 400e6)] == ["5.65", "14.76", "0.40"]


def test_unknown_values_are_a_dash_and_never_zero() -> None:
    scale = choose_scale([None, 3.0], "ms")
    assert [scale.text(v) for v in (None, math.nan, math.inf)] == [DASH, DASH, DASH]
    assert format_exact(None, "ms") == format_exact(math.nan, "ms") == DASH


def test_a_unit_is_not_repeated_after_a_name_that_includes_it() -> None:
    assert choose_scale([4e10], "MACs").unit_after("MACs") == "G"
    assert choose_scale([4e6], "elements").unit_after("Parameters") == "M"
    assert choose_scale([4.0], "ms").unit_after("Latency") == "ms"


def test_the_largest_number_has_a_scale() -> None:
    assert format_value(sys.float_info.max, "FLOPs").endswith("FLOPs")


def test_the_full_value_keeps_every_digit() -> None:
    assert format_exact(38_547_423_232, "MACs") == "38,547,423,232 MACs"
    assert format_exact(0.1, "J") == "0.1 J"


def test_ends_of_an_interval_get_more_decimals_if_they_would_look_equal() -> None:
    scale = choose_scale([5.2, 10.0, 12.0], "ms")
    assert scale.span(5.174, 5.231) == f"5.17{DASH}5.23"
    assert scale.span(9.7, 12.1) == f"9.7{DASH}12.1"


def test_the_ends_of_an_interval_never_look_equal() -> None:
    """They get as many decimals as tell them apart, and are one number if they are equal."""
    scale = choose_scale([662.25], "clips/s")
    assert (
        scale.span(1662.25001, 1662.25004)
        == f"1\N{NARROW NO-BREAK SPACE}662.25001{DASH}1\N{NARROW NO-BREAK SPACE}662.25004"
    )
    assert scale.span(1662.25, 1662.25) == "1\N{NARROW NO-BREAK SPACE}662"


@given(value=FINITE.filter(lambda v: abs(v) > 1e-6), unit=st.sampled_from(["", "MACs", "J", "clips/s", "FLOP/s"]))
def test_a_printed_value_has_four_digits(value: float, unit: str) -> None:
    number, *rest = format_value(value, unit).replace("\N{NARROW NO-BREAK SPACE}", "").split(" ")
    prefix = (rest or [""])[0].removesuffix(unit)
    size = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}[prefix]
    assert float(number.replace("\N{MINUS SIGN}", "-")) * size == pytest.approx(
        value, rel=5.1e-2 if abs(value) < 0.01 else 5.1e-4
    )


@given(value=FINITE.filter(lambda v: abs(v) > 1e-9), decimals=st.integers(0, 3))
def test_nonzero_values_are_not_written_as_zero(value: float, decimals: int) -> None:
    assert any(digit in format_number(value, decimals) for digit in "123456789")


@given(
    values=st.lists(FINITE.filter(lambda v: abs(v) > 1e-6), min_size=1), unit=st.sampled_from(["ms", "B", "MACs", "%"])
)
def test_a_written_value_is_near_the_value(values: list[float], unit: str) -> None:
    scale = choose_scale(values, unit)
    for value in values:
        read = float(scale.text(value).replace("\N{NARROW NO-BREAK SPACE}", "").replace("\N{MINUS SIGN}", "-"))
        assert read * scale.divisor == pytest.approx(value, rel=0.06, abs=0.51 * scale.divisor * 10**-scale.decimals)


@pytest.mark.parametrize(
    ("value", "text"),
    [(3.14, "+3.1"), (-3.14, "−3.1"), (0.02, "+0.020"), (-0.0004, "−0.00040"), (0.0, "0.0"), (1.4e-14, "0.0")],
)
def test_a_difference_has_its_sign_and_is_zero_only_if_it_is_rounding_noise(value: float, text: str) -> None:
    assert format_signed(value, 1) == text


def test_a_number_beyond_all_units_has_an_exponent() -> None:
    assert format_number(1e300, 0) == "1.0e+300"
    assert format_number(999e12, 0) == "999 000 000 000 000".replace(" ", "\N{NARROW NO-BREAK SPACE}")
