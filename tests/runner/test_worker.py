"""Measuring a case in the worker: metrics are kept, and every kind of failure has its status."""

import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

import pytest

from bench.core.cpu_load import CpuCounters
from bench.core.cpus import allowed_cpus
from bench.core.errors import InputError
from bench.core.metric_spec import MetricSpec
from bench.core.nvml import GpuProcess
from bench.core.registry import MEASURES, MeasureEntry, register_measure
from bench.core.schema import Case, Metric, Point
from bench.measure.context import CaseContext
from bench.measure.timing.case_process import select_device
from bench.measure.timing.turn_taking import TurnTaking
from bench.runner.worker import _measures_of, measure_case

GOOD = Metric(name="first.value", value=1, unit="")


def first(case: CaseContext) -> list[Metric]:
    case.note("seen", True)
    case.warn("something", "do this")
    return [GOOD]


@pytest.fixture
def taken(tmp_path: Path) -> Iterator[Callable[..., object]]:
    """Takes `first` and then a measure given as a function."""
    added: list[str] = []

    def take(second: Callable[..., object]) -> object:
        for name, function in (("first", first), (second.__name__, second)):
            entry = MeasureEntry(
                name=name, function=function, depends_on=frozenset(), version=1, is_timed=name == "timed"
            )
            MEASURES.add(entry)
            added.append(name)
        point = Point(model="c3d", clip="16x1x112")  # type: ignore[arg-type]
        case = Case(suite="s", point=point, measures={"first": {}, second.__name__: {}})
        return measure_case(CaseContext(case, artifacts=tmp_path / "artifacts" / "id"))

    yield take
    for name in added:
        MEASURES._entries.pop(name, None)


def fails(error: BaseException) -> Callable[[CaseContext], NoReturn]:
    def failing(case: CaseContext) -> NoReturn:
        raise error

    return failing


def ort_error(text: str) -> Exception:
    """ONNX Runtime's own class, which is no RuntimeError."""
    module = "onnxruntime.capi.onnxruntime_pybind11_state"
    error: Exception = type("RuntimeException", (Exception,), {"__module__": module})(text)
    return error


def test_a_metric_that_its_measure_does_not_declare_is_warned_of(tmp_path: Path) -> None:
    waiting = MetricSpec("queue.wait_ms", "ms", "lower", title="Wait", meaning="time in the queue")

    @register_measure("queue", depends_on=(), version=1, metrics=[waiting])
    def queue(case: CaseContext) -> list[Metric]:
        other_unit = Metric(name="queue.wait_ms", value=2, unit="s", better="lower")
        return [waiting.metric(1), other_unit, Metric(name="queue.length", value=3, unit="")]

    try:
        point = Point(model="c3d", clip="16x1x112")  # type: ignore[arg-type]
        case = Case(suite="s", point=point, measures={"queue": {}})
        result = measure_case(CaseContext(case, artifacts=tmp_path / "artifacts" / "id"))
    finally:
        MEASURES._entries.pop("queue", None)
    assert [metric.value for metric in result.metrics] == [1, 2, 3]
    assert [warning.what for warning in result.warnings] == [
        "measure queue does not declare queue.length with unit '' and better None",
        "measure queue does not declare queue.wait_ms with unit 's' and better 'lower'",
    ]


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (ZeroDivisionError("by zero"), "error"),
        (InputError("too small a clip"), "error"),
        (MemoryError(), "oom"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"), "oom"),
        (type("OutOfMemoryError", (RuntimeError,), {})("CUDA out of memory"), "oom"),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), "oom"),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), "oom"),
        (RuntimeError("GET was unable to find an engine to execute this computation"), "oom"),
        (ort_error("[ONNXRuntimeError] : 6 : EXCEPTION : Failed to allocate memory for a buffer"), "oom"),
        (ort_error("[ONNXRuntimeError] : 1 : FAIL : no such operator"), "error"),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), "error"),
        (ValueError("a message about out of memory in a book"), "error"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_a_failure_keeps_its_status_and_the_metrics_so_far(
    taken: Callable[..., object], error: BaseException, status: str
) -> None:
    outcome = taken(fails(error))
    assert outcome.status == status  # type: ignore[attr-defined]
    assert outcome.metrics == (GOOD,)  # type: ignore[attr-defined]
    assert outcome.details["seen"] is True  # type: ignore[attr-defined]
    assert outcome.error.type == type(error).__name__  # type: ignore[attr-defined]
    assert "failing" in outcome.error.traceback  # type: ignore[attr-defined]


def test_a_missing_device_is_one_line_before_any_measurement(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    point = Point.model_validate({"model": "c3d", "clip": "16x1x112", "device": "cuda:1"})
    case = CaseContext(Case(suite="s", point=point, measures={"params": {}}), artifacts=tmp_path / "artifacts" / "id")
    outcome = measure_case(case)
    assert (outcome.status, outcome.metrics) == ("error", ())
    assert outcome.error is not None
    assert outcome.error.message == "device cuda:1 is not available; torch sees cuda:0"


@pytest.mark.parametrize(("device", "selected"), [("cuda:1", ["cuda:1"]), ("cuda", []), ("cpu", []), (None, [])])
def test_a_numbered_gpu_is_the_current_device_of_its_process(
    device: str | None, selected: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[str] = []
    monkeypatch.setattr("torch.cuda.set_device", found.append)
    select_device(device)
    assert found == selected


def test_an_unsteady_metric_makes_the_case_unsteady(taken: Callable[..., object]) -> None:
    def shaky(case: CaseContext) -> list[Metric]:
        return [Metric(name="shaky.value", value=1, unit="", stopped_because="unsteady")]

    assert taken(shaky).status == "unsteady"  # type: ignore[attr-defined]


def timed(case: CaseContext) -> list[Metric]:
    return [Metric(name="timed.value", value=1, unit="")]


def test_the_canary_runs_around_a_timed_case(taken: Callable[..., object], monkeypatch: pytest.MonkeyPatch) -> None:
    songs = iter([{"matmul_ms": 2.0, "copy_ms": 1.0}, {"matmul_ms": 2.0, "copy_ms": 1.5}])
    monkeypatch.setattr("bench.measure.timing.canary.time_canary", lambda device: next(songs))
    outcome = taken(timed)
    details = outcome.details  # type: ignore[attr-defined]
    assert details["canary"]["copy_ms"] == {"before": 1.0, "after": 1.5, "ratio": 1.5}
    assert "copy +50%" in outcome.warnings[-1].what  # type: ignore[attr-defined]


def test_no_canary_runs_in_turn_taking_where_both_sides_share_what_changes(
    taken: Callable[..., object], monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        monkeypatch.setattr("bench.runner.disturbance.process_turns", lambda: TurnTaking(ours))
        assert "canary" not in taken(timed).details  # type: ignore[attr-defined]


def test_a_timing_whose_level_moved_makes_the_case_drifting(
    taken: Callable[..., object], monkeypatch: pytest.MonkeyPatch
) -> None:
    samples = tuple([8.0, 8.01, 8.02] * 20 + [8.4, 8.41, 8.42] * 20)

    def timed(case: CaseContext) -> list[Metric]:
        rest = {"unit": "ms", "better": "lower", "stopped_because": "time is up", "interval": (8.0, 8.42)}
        steady = Metric(name="timed.other_ms", value=8.01, samples=samples[:60], labels={"batch": "1"}, **rest)
        return [Metric(name="timed.p50_ms", value=8.2, samples=samples, **rest), steady]

    monkeypatch.setattr("bench.measure.timing.canary.time_canary", lambda device: {"copy_ms": 1.0})
    outcome = taken(timed)
    assert outcome.status == "drifting"  # type: ignore[attr-defined]
    drift = outcome.details["drift"]  # type: ignore[attr-defined]
    assert list(drift) == ["timed.p50_ms"]
    assert (drift["timed.p50_ms"]["pattern"], drift["timed.p50_ms"]["start"]) == ("step", pytest.approx(60, abs=1))
    warnings = [warning.what for warning in outcome.warnings if "drifted" in warning.what]  # type: ignore[attr-defined]
    assert warnings == ["timed.p50_ms drifted while it was measured: +5.0% from sample 61 on"]


def test_a_timing_with_a_wide_interval_makes_the_case_unsteady(taken: Callable[..., object]) -> None:
    def timed(case: CaseContext) -> list[Metric]:
        samples, ends = (1.0, 9.0) * 15, (1.0, 9.0)
        return [Metric(name="timed.ms", value=5, unit="ms", samples=samples, interval=ends, stopped_because="plateau")]

    assert taken(timed).status == "unsteady"  # type: ignore[attr-defined]


def test_what_disturbed_a_timed_measure_is_named_with_a_remedy(
    taken: Callable[..., object], monkeypatch: pytest.MonkeyPatch
) -> None:
    given = iter([CpuCounters(at_s=0, busy_s=0, own_s=0), CpuCounters(at_s=10, busy_s=10 * allowed_cpus(), own_s=0.5)])
    monkeypatch.setattr(CpuCounters, "read", lambda **paths: next(given))
    outcome = taken(timed)
    cores = allowed_cpus()
    (warning,) = [w for w in outcome.warnings if "disturbed" in w.what]  # type: ignore[attr-defined]
    assert warning.what == f"timed was disturbed: other processes used {cores - 0.05:.1f} of {cores} cores"
    assert all(part in warning.remedy for part in ("--wait-idle", "fewer threads", "OMP_WAIT_POLICY=passive"))
    assert outcome.details["processors"]["timed"]["own_cores"] == 0.05  # type: ignore[attr-defined]


def test_foreign_processes_on_the_gpu_are_named(taken: Callable[..., object], monkeypatch: pytest.MonkeyPatch) -> None:
    stranger = GpuProcess(pid=1, name="miner", memory_bytes=None)
    monkeypatch.setattr("bench.runner.disturbance.gpu_processes", lambda device: (stranger,))
    outcome = taken(timed)
    assert outcome.details["foreign_gpu_processes"] == ["miner (pid 1)"]  # type: ignore[attr-defined]
    assert any("miner" in warning.what for warning in outcome.warnings)  # type: ignore[attr-defined]


def test_untimed_cases_need_no_canary(taken: Callable[..., object]) -> None:
    def counted(case: CaseContext) -> list[Metric]:
        return []

    assert "canary" not in taken(counted).details  # type: ignore[attr-defined]


def test_a_throttled_metric_makes_the_case_throttled(taken: Callable[..., object]) -> None:
    def hot(case: CaseContext) -> list[Metric]:
        return [
            Metric(name="hot.value", value=1, unit="", stopped_because="unsteady"),
            Metric(name="hot.other", value=1, unit="", stopped_because="throttled"),
        ]

    assert taken(hot).status == "throttled"  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("axes", "measures", "is_added"),
    [
        ({"precision": "bf16"}, {"latency": {}}, True),
        ({"precision": "fp32"}, {"latency": {}}, False),
        ({"precision": "bf16"}, {"memory": {}}, False),
        ({"precision": "bf16"}, {"parity": {"clips": 3}, "latency": {}}, False),
    ],
    ids=["a timed variant", "eager fp32", "not timed", "asked for already"],
)
def test_parity_is_measured_for_every_timed_variant(
    tmp_path: Path, axes: dict[str, str], measures: dict[str, dict[str, int]], is_added: bool
) -> None:
    point = Point.model_validate({"model": "c3d", "clip": "16x1x112", **axes})
    case = Case(suite="s", point=point, measures=measures)  # type: ignore[arg-type]
    found = _measures_of(CaseContext(case, artifacts=tmp_path))
    assert found == ({**measures, "parity": {}} if is_added else measures)
    assert "parity" not in found or list(found)[-1] == "parity", "it looks at what the others timed"
