"""Cold starts in real processes."""

from collections.abc import Callable
from pathlib import Path

import pytest

from bench.core.errors import InputError
from bench.measure.cold import _metrics, cold
from bench.measure.context import CaseContext
from bench.measure.timing.cold_start import ColdStart

NETWORK = """
from torch import nn


def plain(num_classes=5):
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 4 * 16 * 16, num_classes))
"""
Load = Callable[..., CaseContext]
STARTED = ColdStart(interpreter_s=0.1, import_s=2.0, build_s=0.5, prepare_s=2.0, first_step_s=31.0, steady_step_s=1.0)


@pytest.mark.parametrize(("is_compiled", "compile_s"), [(True, 32.0), (False, None)])
def test_compiling_is_what_the_first_step_takes_longer(is_compiled: bool, compile_s: float | None) -> None:
    found = {metric.name: metric for metric in _metrics(STARTED, is_compiled=is_compiled)}
    assert found["cold.total_s"].value == pytest.approx(35.6)
    assert found["cold.compile_s"].value == compile_s
    assert (found["cold.compile_s"].note is None) is is_compiled


def test_a_real_process_is_started_and_timed(load: Load) -> None:
    found = {metric.name: metric.value for metric in cold(load())}
    assert found["cold.import_s"] is not None
    assert found["cold.import_s"] > 0.1, "torch cannot be imported in less"
    assert all(value is None or value > 0 for value in found.values())


def test_a_process_that_dies_is_an_error_with_its_reason(load: Load) -> None:
    with pytest.raises(InputError, match="kernel_depht"):
        cold(load(args={"kernel_depht": 3}))


@pytest.mark.slow
def test_compile_time_is_measured_in_a_real_process(
    load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "plain_network.py").write_text(NETWORK)
    monkeypatch.syspath_prepend(str(tmp_path))
    found = {m.name: m.value for m in cold(load(model="plain_network:plain", args={}, compile="default"))}
    assert found["cold.compile_s"] is not None
    assert found["cold.compile_s"] > 0.5
