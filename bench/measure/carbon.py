"""What a stretch of work used, as codecarbon says: joules by part and CO2e. Offline: nothing leaves the machine."""

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
SHORTEST_S = 10.0  # codecarbon samples every few seconds; of less it knows nothing
PARTS = ("gpu", "cpu", "ram")


@dataclass(frozen=True, kw_only=True)
class Used:
    """Joules of each part and grams of CO2e over `seconds`; `by` is who says so. Unknown is None."""

    country: str
    seconds: float
    joules: Mapping[str, float | None]
    co2e_g: float | None
    by: str


class Tracking:
    """Runs from its making to `end`."""

    def __init__(self, country: str) -> None:
        require_country(country)
        self._country, self._tracker = country, _tracker(country)
        self._used: Used | None = None
        self._tracker.start()

    def end(self) -> None:
        self._tracker.stop()
        told = self._tracker.final_emissions_data
        self._used = Used(
            country=self._country,
            seconds=told.duration,
            joules={part: J_PER_KWH * getattr(told, f"{part}_energy") or None for part in PARTS},
            co2e_g=1000 * told.emissions or None,
            by=f"codecarbon {version('codecarbon')}",
        )

    @property
    def used(self) -> Used:
        """What was used, once it has ended."""
        assert self._used is not None
        return self._used


@contextmanager
def tracked(country: str) -> Iterator[Tracking]:
    """Track the block; CO2e is told by the electricity of `country`, as `require_country` wants it."""
    tracking = Tracking(country)
    try:
        yield tracking
    finally:
        tracking.end()


def require_country(country: str) -> None:
    """InputError for what is no code of three letters, or none of a country whose electricity codecarbon knows.

    It would take the world's mean for those without a word.
    """
    if not (len(country) == 3 and country.isalpha() and country.isupper()):
        raise InputError(f"country {country!r} is not a code of three letters (ISO 3166), such as FRA")
    _hush()
    from codecarbon.input import DataSource

    known = DataSource().get_global_energy_mix_data()  # type: ignore[no-untyped-call]  # codecarbon gives it no types
    if country not in known:
        raise InputError(f"codecarbon does not know the electricity of country {country!r}; {suggest(country, known)}")


def sources() -> dict[str, str]:
    """Each part with how its energy is known."""
    cpu = "measured (RAPL)" if counter_of("cpu") else "estimated from the processor's name and load"
    return {"gpu": "measured (NVML), all GPUs", "cpu": cpu, "ram": "estimated from its size"}


def _hush() -> None:
    """codecarbon logs dozens of lines, some before its own level is set."""
    logging.getLogger("codecarbon").addFilter(_silence)


def _silence(record: logging.LogRecord) -> bool:
    return False


def _tracker(country: str) -> Any:
    """codecarbon, silent: it warns of the only way that older versions know not to write a file."""
    _hush()
    from codecarbon import OfflineEmissionsTracker

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return OfflineEmissionsTracker(
            country_iso_code=country, save_to_file=False, log_level="critical", measure_power_secs=5
        )
