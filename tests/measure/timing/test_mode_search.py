"""The search for the fastest execution mode if trials are ruled out."""

from collections.abc import Callable

import pytest

from bench.core.schema import Metric
from bench.measure.context import CaseContext
from bench.measure.execution_mode import ExecutionMode
from bench.measure.fastest import Trial, as_best, speedup
from bench.measure.latency import latency
from bench.measure.throughput import SPEEDUP, throughput
from bench.measure.timing import mode_search

Load = Callable[..., CaseContext]


@pytest.mark.parametrize("measure", [latency, throughput])
def test_measured_values_stay_if_every_trial_is_ruled_out(
    load: Load, monkeypatch: pytest.MonkeyPatch, measure: Callable[..., list[Metric]]
) -> None:
    monkeypatch.setattr(mode_search, "try_mode", lambda case, mode, **_: Trial(mode=mode, fell_out="out of memory"))
    case = load()
    found = {m.key: m for m in measure(case, search="best", max_s=0.05)}
    (own,) = (m for key, m in found.items() if key in ("latency.p50_ms", "throughput.clips_per_s{batch=1}"))
    (best,) = (m for m in found.values() if m.name == own.name and "variant" in m.labels)
    assert own.value
    assert own.samples
    assert (best.value, best.samples) == (None, ())
    assert "out of memory" in (best.note or "")
    assert [m.value for m in found.values() if m.name.endswith("speedup")] == [None]
    assert "out of memory" in case.warnings[-1].what


def test_eager_as_the_best_mode_has_its_own_values_and_none_if_it_is_ruled_out(load: Load) -> None:
    (own,) = throughput(load(), max_s=0.05)
    assert as_best(own, Trial(mode=ExecutionMode(), clips_per_s=1.0)).samples == own.samples
    unknown = as_best(own, Trial(mode=ExecutionMode(), fell_out="killed"))
    assert (unknown.value, unknown.interval, unknown.stopped_because) == (None, None, None)
    assert speedup(SPEEDUP, unknown, own, note="").value is None
