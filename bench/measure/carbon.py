"""Energy and CO2e of a block of code by codecarbon's offline tracker: nothing leaves the machine."""

import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from bench.core.errors import InputError, suggest
from bench.measure.energy_counter import counter_of

J_PER_KWH = 3.6e6
SHORTEST_S = 10.0  # codecarbon samples every few seconds; below this it has too few samples
PARTS = ("gpu", "cpu", "ram")


@dataclass(frozen=True, kw_only=True)
class UsedEnergy:
    """Joules of each part and grams of CO2e over `seconds`, by the tool `by`. Unknown is None."""

    country: str
    seconds: float
    joules: Mapping[str, float | None]
    co2e_g: float | None
    by: str


class Tracking:
    """A run of codecarbon, from construction to `end`."""

    def __init__(self, country: str) -> None:
        require_country(country)
        self._country, self._tracker = country, _tracker(country)
        self._used: UsedEnergy | None = None
        self._tracker.start()

    def end(self) -> None:
        self._tracker.stop()
        found = self._tracker.final_emissions_data
        self._used = UsedEnergy(
            country=self._country,
            seconds=found.duration,
            joules={part: J_PER_KWH * getattr(found, f"{part}_energy") or None for part in PARTS},
            co2e_g=1000 * found.emissions or None,
            by=f"codecarbon {version('codecarbon')}",
        )

    @property
    def used(self) -> UsedEnergy:
        """The energy that was used, after `end`."""
        assert self._used is not None, "tracking has not ended"
        return self._used


@contextmanager
def tracked(country: str) -> Iterator[Tracking]:
    """Track the block; CO2e is computed for the electricity of `country`, see `require_country`."""
    tracking = Tracking(country)
    try:
        yield tracking
    finally:
        tracking.end()


def require_country(country: str) -> None:
    """Raises InputError unless `country` is a code of three letters that codecarbon has an electricity mix of.

    codecarbon itself takes the mean of the world for an unknown country and does not say so.
    """
    if not (len(country) == 3 and country.isalpha() and country.isupper()):
        raise InputError(f"country {country!r} is not a code of three letters (ISO 3166), such as FRA")
    _silence_logging()
    from codecarbon.input import DataSource

    known = DataSource().get_global_energy_mix_data()  # type: ignore[no-untyped-call]  # codecarbon gives it no types
    if country not in known:
        raise InputError(f"codecarbon does not know the electricity of country {country!r}; {suggest(country, known)}")


def sources() -> dict[str, str]:
    """How the energy of each part is known, by part."""
    cpu = "measured (RAPL)" if counter_of("cpu") else "estimated from the processor's name and load"
    return {"gpu": "measured (NVML), all GPUs", "cpu": cpu, "ram": "estimated from its size"}


def _silence_logging() -> None:
    """codecarbon logs dozens of lines, some of them before its own level is set."""
    logging.getLogger("codecarbon").addFilter(_drop)


def _drop(record: logging.LogRecord) -> bool:
    return False


def _tracker(country: str) -> Any:
    """Returns a silent tracker that writes no file."""
    _silence_logging()
    from codecarbon import OfflineEmissionsTracker

    with warnings.catch_warnings():
        # `save_to_file` is deprecated, but older versions have nothing else that keeps them from writing a file.
        warnings.simplefilter("ignore", DeprecationWarning)
        return OfflineEmissionsTracker(
            country_iso_code=country, save_to_file=False, log_level="critical", measure_power_secs=5
        )
