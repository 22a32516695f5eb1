"""What a measure does to a case: metrics are kept, and every way to fail has its status."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

import pytest

from bench.errors import InputError
from bench.execution.worker import measure_case
from bench.measure.loaded import LoadedCase
from bench.registry import MEASURES, MeasureEntry
from bench.schema import Case, Metric, Point

GOOD = Metric(name="first.value", value=1, unit="")


def first(case: LoadedCase) -> list[Metric]:
    case.note("seen", True)
    case.warn("something", "do this")
    return [GOOD]


@pytest.fixture
def taken(tmp_path: Path) -> Iterator[Callable[..., object]]:
    """Takes `first` and then a measure given as a function."""
    added: list[str] = []

    def take(second: Callable[..., object]) -> object:
        for name, function in (("first", first), (second.__name__, second)):
            entry = MeasureEntry(name=name, function=function, depends_on=frozenset(), version=1, is_timed=False)
            MEASURES.add(entry)
            added.append(name)
        point = Point(model="c3d", clip="16x1x112")  # type: ignore[arg-type]
        case = Case(suite="s", point=point, measures={"first": {}, second.__name__: {}})
        return measure_case(LoadedCase(case, artifacts=tmp_path / "artifacts" / "id"))

    yield take
    for name in added:
        MEASURES._entries.pop(name, None)


def fails(error: BaseException) -> Callable[[LoadedCase], NoReturn]:
    def failing(case: LoadedCase) -> NoReturn:
        raise error

    return failing


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (ZeroDivisionError("by zero"), "error"),
        (InputError("too small a clip"), "error"),
        (MemoryError(), "oom"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"), "oom"),
        (type("OutOfMemoryError", (RuntimeError,), {})("CUDA out of memory"), "oom"),
        (ValueError("a message about out of memory in a book"), "error"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_a_failure_has_its_status_and_what_was_measured_is_kept(
    taken: Callable[..., object], error: BaseException, status: str
) -> None:
    outcome = taken(fails(error))
    assert outcome.status == status  # type: ignore[attr-defined]
    assert outcome.metrics == (GOOD,)  # type: ignore[attr-defined]
    assert outcome.details == {"seen": True}  # type: ignore[attr-defined]
    assert outcome.error.type == type(error).__name__  # type: ignore[attr-defined]
    assert "failing" in outcome.error.traceback  # type: ignore[attr-defined]


def test_an_unsteady_metric_makes_the_case_unsteady(taken: Callable[..., object]) -> None:
    def shaky(case: LoadedCase) -> list[Metric]:
        return [Metric(name="shaky.value", value=1, unit="", stopped_because="unsteady")]

    assert taken(shaky).status == "unsteady"  # type: ignore[attr-defined]
