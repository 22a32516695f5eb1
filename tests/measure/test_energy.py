"""Energy of a clip: counters and codecarbon with given values, and once with the real ones."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from types import SimpleNamespace
from typing import Any

import pytest

from bench.core.errors import InputError
from bench.core.schema import Metric
from bench.measure import energy as measured
from bench.measure import energy_counter
from bench.measure.carbon import UsedEnergy, tracked
from bench.measure.context import CaseContext
from bench.measure.energy import TimedPasses, _carbon_metrics, _device_metrics, energy

Load = Callable[..., CaseContext]
SPENT = TimedPasses(clips=40, seconds=10.0, joules=400.0, idle_w=15.0)
USED = UsedEnergy(
    country="FRA", seconds=12.5, joules={"gpu": None, "cpu": 500.0, "ram": 125.0}, co2e_g=0.25, by="codecarbon 3"
)


@pytest.fixture(autouse=True)
def no_rapl(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(energy_counter, "_rapl_joules", lambda: None)


def by_name(metrics: list[Metric]) -> dict[str, Metric]:
    return {metric.name.removeprefix("energy."): metric for metric in metrics}


def test_joules_of_a_clip_by_hand() -> None:
    """400 J over 40 clips; 15 W over 10 s are the device's that does nothing."""
    found = by_name(_device_metrics(SPENT, source="NVML total energy"))
    assert {name: metric.value for name, metric in found.items()} == pytest.approx(
        {"j_per_clip": 10.0, "j_per_clip_above_idle": 6.25, "clips_per_j": 0.1}
    )
    assert found["j_per_clip_above_idle"].note == "less 15.0 W of the idle device"
    assert found["clips_per_j"].better == "higher"


def test_energy_not_above_idle_is_unknown_instead_of_zero() -> None:
    found = by_name(_device_metrics(TimedPasses(clips=40, seconds=10.0, joules=150.0, idle_w=15.0), source="x"))
    assert found["j_per_clip"].value == pytest.approx(3.75)
    assert found["j_per_clip_above_idle"].value is None
    assert "idle" in (found["j_per_clip_above_idle"].note or "")


@pytest.mark.parametrize("joules", [None, 0.0])
def test_a_counter_that_does_not_rise_gives_null(joules: float | None) -> None:
    found = _device_metrics(TimedPasses(clips=40, seconds=10.0, joules=joules, idle_w=0.0), source="RAPL package")
    assert {(metric.value, metric.note) for metric in found} == {
        (None, "RAPL package did not rise, or was reset meanwhile")
    }


def test_codecarbon_values_are_its_mean_power_times_the_time_of_a_clip() -> None:
    """40 W of processor over 10 s are 400 J, of 40 clips; CO2e in the same share."""
    found = by_name(_carbon_metrics((SPENT, USED)))
    assert {name: metric.value for name, metric in found.items()} == pytest.approx(
        {"cpu_j_per_clip": 10.0, "ram_j_per_clip": 2.5, "co2e_g_per_clip": 0.005}
    )
    assert found["cpu_j_per_clip"].note == "codecarbon 3, estimated from the processor's name and load"
    assert found["ram_j_per_clip"].note == "codecarbon 3, estimated from its size"
    assert "electricity of FRA" in (found["co2e_g_per_clip"].note or "")


def test_a_part_without_a_codecarbon_value_is_null_with_the_reason() -> None:
    used = UsedEnergy(
        country="FRA", seconds=10.0, joules={"gpu": None, "cpu": None, "ram": 1.0}, co2e_g=None, by="codecarbon 3"
    )
    found = by_name(_carbon_metrics((SPENT, used)))
    assert (found["cpu_j_per_clip"].value, found["cpu_j_per_clip"].note) == (None, "codecarbon 3 has no value")
    assert found["co2e_g_per_clip"].value is None


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({}, "no country is given; write `energy: {country: FRA}`"),
        ({"country": "FRA", "seconds": 1.0}, "codecarbon needs 10 s; `seconds` is 1"),
    ],
)
def test_without_counter_and_country_nothing_runs_and_all_is_null(
    load: Load, options: dict[str, Any], why: str
) -> None:
    case = load(model="there_is_no_such_network")
    found = by_name(energy(case, **options))
    assert found["cpu_j_per_clip"].note == found["ram_j_per_clip"].note == found["co2e_g_per_clip"].note == why
    assert set(found) == {
        "j_per_clip",
        "j_per_clip_above_idle",
        "clips_per_j",
        "cpu_j_per_clip",
        "ram_j_per_clip",
        "co2e_g_per_clip",
    }
    assert all(metric.value is None and metric.note for metric in found.values())


def test_device_energy_comes_from_its_counter_and_the_rest_from_codecarbon(
    load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    readings = count(100.0, 7.0)

    @contextmanager
    def track(country: str) -> Iterator[Any]:
        assert country == "FRA"
        yield SimpleNamespace(used=USED)

    monkeypatch.setattr(energy_counter, "_rapl_joules", lambda: next(readings))
    monkeypatch.setattr(measured, "_idle_watts", lambda counter, seconds: 0.0)
    monkeypatch.setattr(measured, "_run_passes", lambda forward, seconds: 70)
    monkeypatch.setattr(measured, "tracked", track)
    case = load()
    found = by_name(energy(case, country="FRA"))
    assert found["j_per_clip"].value == pytest.approx(0.1), "from one reading of the counter to the next"
    assert found["cpu_j_per_clip"].note == "codecarbon 3, measured (RAPL)"
    assert found["co2e_g_per_clip"].value
    detail = case.details["energy"]
    assert isinstance(detail, dict)
    assert (detail["source"], detail["clips"], detail["joules"]) == ("RAPL package", 70, 7.0)


def test_a_counter_that_wraps_gives_no_negative_energy(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    readings = count(1000.0, -7.0)
    monkeypatch.setattr(energy_counter, "_rapl_joules", lambda: next(readings))
    monkeypatch.setattr(measured, "_idle_watts", lambda counter, seconds: 0.0)
    monkeypatch.setattr(measured, "_run_passes", lambda forward, seconds: 70)
    assert {metric.value for metric in energy(load(), seconds=1.0)} == {None}


@pytest.mark.parametrize(
    ("country", "told"),
    [
        ("France", "country 'France' is not a code of three letters"),
        ("FRB", "codecarbon does not know the electricity of country 'FRB'; "),
    ],
)
def test_a_country_without_known_electricity_is_refused(load: Load, country: str, told: str) -> None:
    """codecarbon would take the world's mean without a word."""
    with pytest.raises(InputError, match=told):
        energy(load(), country=country)


@pytest.mark.slow
def test_codecarbon_measures_processor_and_memory_offline(capfd: pytest.CaptureFixture[str]) -> None:
    with tracked("FRA") as tracking:
        sum(range(3_000_000))
    assert (tracking.used.joules["ram"] or 0) > 0
    assert (tracking.used.co2e_g or 0) > 0
    assert capfd.readouterr() == ("", "")


@pytest.mark.gpu
def test_a_gpu_has_values_of_its_counter_and_of_codecarbon(load: Load) -> None:
    found = by_name(energy(load(device="cuda", clip="8x1x64"), seconds=10.0, country="FRA"))
    assert found["j_per_clip"].value
    assert found["ram_j_per_clip"].value
    assert found["co2e_g_per_clip"].value
