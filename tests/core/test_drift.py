"""Drift inside one timing, and the interval of a median whose samples depend on each other."""

import math
import random
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.core.drift import find_drift, timing_interval
from bench.core.stats import median, median_interval
from bench.store import read_records

Noise = Callable[[random.Random, int], list[float]]


def independent(rng: random.Random, n: int) -> list[float]:
    return [math.exp(0.01 * rng.gauss(0, 1)) for _ in range(n)]


def two_modes(rng: random.Random, n: int) -> list[float]:
    """Three samples in ten are 4 % slower; the median is the 5/7 quantile of the faster ones."""
    return [sample * (1.04 if rng.random() < 0.3 else 1.0) for sample in independent(rng, n)]


def correlated(rng: random.Random, n: int) -> list[float]:
    """AR(1): each sample remembers 0.7 of the one before."""
    states = [rng.gauss(0, 1)]
    for _ in range(n - 1):
        states.append(0.7 * states[-1] + math.sqrt(1 - 0.49) * rng.gauss(0, 1))
    return [math.exp(0.01 * state) for state in states]


MEDIANS: dict[Noise, float] = {independent: 1.0, two_modes: math.exp(0.01 * 0.5659), correlated: 1.0}


def timings(noise: Noise, n: int, *, count: int) -> list[list[float]]:
    return [noise(random.Random(f"{noise.__name__} {n} {number}"), n) for number in range(count)]


@pytest.mark.parametrize("noise", MEDIANS)
@pytest.mark.parametrize("n", [45, 100, 300])
def test_the_interval_of_stationary_noise_covers_its_median_at_95_percent(noise: Noise, n: int) -> None:
    count = 300
    intervals = [timing_interval(timing) for timing in timings(noise, n, count=count)]
    covered = sum(each.low <= MEDIANS[noise] <= each.high for each in intervals) / count
    assert 0.93 - 0.025 <= covered <= 0.97 + 0.025  # two standard errors of 300 draws


def test_the_interval_of_independent_samples_fails_on_correlated_ones() -> None:
    """Otherwise the tests above would say nothing."""
    plain = [median_interval(timing) for timing in timings(correlated, 100, count=300)]
    assert sum(each.low <= 1 <= each.high for each in plain) / 300 < 0.8


@pytest.mark.parametrize("noise", MEDIANS)
@pytest.mark.parametrize("n", [45, 100, 300])
def test_stationary_noise_is_rarely_called_drifting(noise: Noise, n: int) -> None:
    assert sum(find_drift(timing) is not None for timing in timings(noise, n, count=100)) <= 5


def trend(samples: list[float]) -> list[float]:
    return [sample * (1 + 0.05 * place / (len(samples) - 1)) for place, sample in enumerate(samples)]


def step(samples: list[float]) -> list[float]:
    return [sample * (1.05 if place >= 0.6 * len(samples) else 1) for place, sample in enumerate(samples)]


def shift(samples: list[float]) -> list[float]:
    inside = range(round(0.3 * len(samples)), round(0.6 * len(samples)))
    return [sample / (1.05 if place in inside else 1) for place, sample in enumerate(samples)]


@pytest.mark.parametrize("plant", [trend, step, shift])
@pytest.mark.parametrize(("noise", "n"), [(independent, 45), (independent, 300), (two_modes, 300), (correlated, 300)])
def test_a_planted_change_of_5_percent_is_found(
    plant: Callable[[list[float]], list[float]], noise: Noise, n: int
) -> None:
    found = [find_drift(plant(timing)) for timing in timings(noise, n, count=100)]
    assert sum(drift is not None for drift in found) >= 95


def test_a_drift_says_how_much_changed_and_where() -> None:
    clean = [10.0, 10.01] * 50
    assert str(find_drift(trend(clean))) == "+5.0% from the first to the last sample"
    stepped = find_drift(step(clean))
    assert stepped is not None
    assert (stepped.pattern, stepped.end) == ("step", 100)
    assert stepped.start == pytest.approx(60, abs=1)
    assert stepped.change == pytest.approx(0.05, abs=0.002)
    shifted = find_drift(shift(clean))
    assert shifted is not None
    assert (shifted.pattern, shifted.start, shifted.end) == ("shift", *(pytest.approx(e, abs=1) for e in (30, 60)))
    assert shifted.change == pytest.approx(1 / 1.05 - 1, abs=0.002)


def test_the_drifting_timing_that_was_published_is_marked() -> None:
    """Medians of its thirds: 8.86, 7.99 and 5.70 ms; its stored interval was 7.87 to 8.15 ms."""
    records = read_records(Path(__file__).with_name("drifting_latency.jsonl"))
    samples = records[0].metrics[0].samples
    third = len(samples) // 3
    thirds = [median(samples[start : start + third]) for start in (0, third, 2 * third)]
    assert thirds == pytest.approx([8.86, 7.99, 5.70], abs=0.005)
    drift, estimate = find_drift(samples), timing_interval(samples)
    assert drift is not None
    assert drift.change < -0.3
    assert estimate.low <= min(thirds) < max(thirds) <= estimate.high


@pytest.mark.parametrize("samples", [[], [1.0], [1.0, 2.0, 3.0] * 5, [0.0] * 20, [3.0] * 50])
def test_few_equal_or_zero_samples_do_not_drift(samples: list[float]) -> None:
    assert find_drift(samples) is None


def test_fewer_than_16_samples_have_the_interval_of_independent_ones() -> None:
    samples = [float(place % 7) for place in range(15)]
    assert timing_interval(samples) == median_interval(samples)


def test_equal_samples_have_an_interval_of_width_zero() -> None:
    estimate = timing_interval([2.5] * 40)
    assert (estimate.low, estimate.value, estimate.high) == (2.5, 2.5, 2.5)


# Powers of two scale without rounding: other factors can make equal what was just not equal, and so change ranks.
@given(st.lists(st.floats(0.001, 1000), min_size=16, max_size=200), st.sampled_from([0.0625, 0.5, 2.0, 64.0]))
@settings(max_examples=100)
def test_the_interval_contains_the_median_lies_in_the_samples_and_scales(samples: list[float], factor: float) -> None:
    estimate = timing_interval(samples)
    assert min(samples) <= estimate.low <= estimate.value <= estimate.high <= max(samples)
    assert estimate.value == pytest.approx(median(samples))
    scaled = timing_interval([factor * sample for sample in samples])
    ends = (factor * estimate.low, factor * estimate.high)
    assert (scaled.low, scaled.high) == pytest.approx(ends, rel=1e-6)


@given(st.lists(st.floats(0.5, 2), min_size=16, max_size=120))
@settings(max_examples=100)
def test_a_drift_is_the_same_in_any_unit(samples: list[float]) -> None:
    drift, scaled = find_drift(samples), find_drift([4 * sample for sample in samples])
    assert (drift is None) == (scaled is None)
    if drift and scaled:
        assert (drift.pattern, drift.start, drift.end) == (scaled.pattern, scaled.start, scaled.end)
