"""The search for the fastest execution mode: with simulated rates and parities, and once with real processes."""

from collections.abc import Callable, Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.core.schema import Metric
from bench.measure.context import CaseContext
from bench.measure.execution_mode import ExecutionMode
from bench.measure.fastest import Space, Trial, find_fastest, speedup
from bench.measure.latency import latency
from bench.measure.throughput import SPEEDUP, throughput
from bench.measure.timing.mode_search import trial_of

Load = Callable[..., CaseContext]
SMALL = Space(precision=("fp32", "bf16_weights"), memory_format=("contiguous",), compile=("off", "aotinductor"))
BF16 = ExecutionMode(precision="bf16_weights")
AHEAD = ExecutionMode(precision="bf16_weights", compile="aotinductor")
PLAIN_AHEAD = ExecutionMode(compile="aotinductor")


def attempting(
    rates: Mapping[ExecutionMode, float], *, wrong: tuple[ExecutionMode, ...] = ()
) -> Callable[[ExecutionMode], Trial]:
    """Answers with these rates; the ways that are `wrong` compute something else, those without a rate fail."""

    def attempt(mode: ExecutionMode) -> Trial:
        if mode not in rates:
            return Trial(mode=mode, fell_out="RuntimeError: no kernel")
        said = "out of tolerance: logits differ" if mode in wrong else None
        return Trial(mode=mode, clips_per_s=rates[mode], max_difference=0.01, top1_agreement=1.0, fell_out=said)

    return attempt


RATES = {ExecutionMode(): 10.0, BF16: 20.0, PLAIN_AHEAD: 12.0, AHEAD: 30.0}


def test_the_fastest_mode_comes_first_and_all_trials_are_listed() -> None:
    trials = find_fastest(SMALL, attempting(RATES), device="cpu")
    assert [(t.mode, t.clips_per_s) for t in trials] == [
        (AHEAD, 30.0),
        (BF16, 20.0),
        (PLAIN_AHEAD, 12.0),
        (ExecutionMode(), 10.0),
    ]


def test_a_fast_mode_with_other_outputs_does_not_win() -> None:
    trials = find_fastest(SMALL, attempting(RATES, wrong=(AHEAD,)), device="cpu")
    assert trials[0].mode == BF16
    assert trials[-1].mode == AHEAD
    assert trials[-1].as_dict() == {
        "mode": "bf16_weights, aotinductor",
        "clips_per_s": 30.0,
        "max_difference": 0.01,
        "top1_agreement": 1.0,
        "fell_out": "out of tolerance: logits differ",
    }


def test_a_precision_that_fails_eagerly_is_not_tried_with_compilers() -> None:
    trials = find_fastest(SMALL, attempting(RATES, wrong=(BF16,)), device="cpu")
    assert AHEAD not in [trial.mode for trial in trials]
    assert trials[0].mode == PLAIN_AHEAD


def test_eager_fp32_is_tried_whatever_the_space_says() -> None:
    space = Space(precision=("bf16_weights",), memory_format=("contiguous",), compile=("aotinductor",))
    trials = find_fastest(space, attempting({ExecutionMode(): 10.0, AHEAD: 5.0}), device="cpu")
    assert [trial.mode for trial in trials] == [ExecutionMode(), AHEAD]


def test_unsupported_modes_are_listed_but_not_tried() -> None:
    space = Space(precision=("tf32",), memory_format=("contiguous",), compile=("off",))
    trials = find_fastest(space, attempting({ExecutionMode(): 1.0}), device="cpu")
    assert trials[1].fell_out == "precision tf32 needs a CUDA device; this case runs on cpu"


def test_an_engine_gets_the_fastest_modes_that_it_accepts() -> None:
    """On a GPU bf16 leads; ONNX Runtime does not take it, and is tried with the best of what it takes."""
    rates = {
        ExecutionMode(): 10.0,
        ExecutionMode(precision="tf32"): 15.0,
        ExecutionMode(precision="fp16_weights"): 18.0,
        BF16: 20.0,
    }
    space = Space(
        precision=("fp32", "tf32", "fp16_weights", "bf16_weights"),
        memory_format=("contiguous",),
        compile=("off", "onnxruntime"),
    )
    trials = find_fastest(space, attempting(rates), device="cuda")
    tried = {trial.mode.precision for trial in trials if trial.mode.compile == "onnxruntime"}
    assert tried == {"tf32", "fp16_weights"}


def test_modes_beyond_the_time_limit_are_listed_but_not_tried() -> None:
    left = iter([False, False, True, True, True])
    trials = find_fastest(SMALL, attempting(RATES), device="cpu", is_over=lambda: next(left))
    late = {trial.mode for trial in trials if trial.fell_out and trial.fell_out.startswith("not tried")}
    assert late == {PLAIN_AHEAD, AHEAD}
    assert trials[0].mode == BF16


@given(
    rates=st.dictionaries(st.sampled_from(list(RATES)), st.floats(0.1, 1000.0)),
    wrong=st.sets(st.sampled_from([*RATES])),
)
def test_no_matching_trial_is_faster_than_the_result(
    rates: dict[ExecutionMode, float], wrong: set[ExecutionMode]
) -> None:
    trials = find_fastest(SMALL, attempting(rates, wrong=tuple(wrong)), device="cpu")
    good = [trial for trial in trials if trial.fell_out is None]
    assert trials[: len(good)] == good
    if good:
        assert trials[0].clips_per_s == max(trial.clips_per_s or 0.0 for trial in good)
        assert trials[0].mode not in wrong


@pytest.mark.parametrize(
    ("better", "unit", "own", "best"), [("higher", "clips/s", 5.0, 10.0), ("lower", "ms", 10.0, 5.0)]
)
def test_twice_as_fast_is_a_speedup_of_two_in_both_directions(better: str, unit: str, own: float, best: float) -> None:
    def metric(value: float) -> Metric:
        return Metric.model_validate({"name": "x.y", "value": value, "unit": unit, "better": better})

    assert speedup(SPEEDUP, metric(best), metric(own), note="").value == pytest.approx(2.0)


def test_only_a_case_of_eager_fp32_searches(load: Load) -> None:
    case = load(precision="bf16")
    (only,) = throughput(case, search="best", max_s=0.01)
    assert only.key == "throughput.clips_per_s{batch=1}"
    assert "eager fp32" in str(case.details["throughput.search"])


@pytest.mark.parametrize("is_synchronous", [True, False])
def test_a_trial_has_a_rate_and_its_parity(load: Load, is_synchronous: bool) -> None:
    answer = trial_of(load(precision="bf16_weights", batch=2), is_synchronous=is_synchronous)
    assert answer["clips_per_s"] > 0
    assert 0 < answer["max_difference"] < 0.1
    assert "fell_out" not in answer


def test_a_failed_trial_has_a_one_line_reason(load: Load) -> None:
    assert trial_of(load(compile="cudagraphs"), is_synchronous=True) == {
        "fell_out": "InputError: compile cudagraphs needs a CUDA device; this case runs on cpu"
    }


@pytest.mark.slow
def test_a_search_in_real_processes_reports_what_matches(load: Load) -> None:
    space = {"precision": ["bf16_weights", "tf32"], "memory_format": ["contiguous"], "compile": ["off"]}
    case = load(batch=2)
    found = {m.key: m for m in latency(case, search=Space.model_validate(space), max_s=0.2)}
    told = {trial["mode"]: trial for trial in case.details["latency.search"]["batch 2"]}  # type: ignore[index,call-overload,union-attr]
    assert set(told) == {"fp32", "bf16_weights", "tf32"}
    assert told["bf16_weights"]["clips_per_s"] > 0
    assert 0 < told["bf16_weights"]["max_difference"] < 0.1
    assert told["fp32"]["max_difference"] == 0
    assert "CUDA" in told["tf32"]["fell_out"]
    best = found["latency.p50_ms{variant=best}"]
    assert best.samples
    assert "eager fp32" in (best.note or "")
    ratio = found["latency.p50_ms"].value / best.value  # type: ignore[operator]
    assert found["latency.speedup"].value == pytest.approx(ratio)


@pytest.mark.slow
def test_throughput_is_searched_at_every_batch(load: Load) -> None:
    case = load()
    space = Space(precision=("fp32",), memory_format=("contiguous",), compile=("off", "default"))
    found = {m.key: m for m in throughput(case, batch=[1, 2], search=space, views="2x1", max_s=0.2)}
    assert found["throughput.speedup{batch=2}"].value
    assert found["throughput.clips_per_s{batch=1,variant=best}"].value
    assert found["throughput.videos_per_s{batch=2,variant=best,views=2x1}"].value
    assert set(case.details["throughput.search"]) == {"batch 1", "batch 2"}  # type: ignore[arg-type]


def test_if_eager_is_the_fastest_its_own_values_are_used(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    def fastest_is_eager(*_: object, **__: object) -> Trial:
        return Trial(mode=ExecutionMode(), clips_per_s=1.0, max_difference=0.0, top1_agreement=1.0)

    monkeypatch.setattr("bench.measure.timing.mode_search.fastest_mode", fastest_is_eager)
    for measure, key in ((latency, "latency.p50_ms"), (throughput, "throughput.clips_per_s")):
        found = measure(load(), search="best", max_s=0.05)
        own, best = (m for m in found if m.name == key)
        assert (best.samples, best.labels["variant"]) == (own.samples, "best")
        assert "nothing is faster" in (best.note or "")
        assert [m.value for m in found if m.name.endswith("speedup")] == [1.0]


@pytest.mark.gpu
def test_the_best_mode_on_a_gpu_is_not_slower_than_eager(load: Load) -> None:
    space = Space(
        precision=("tf32", "bf16_weights"), memory_format=("channels_last_3d",), compile=("off", "cudagraphs")
    )
    case = load(device="cuda", clip="16x1x112", batch=8, args={"width": 1.0, "num_classes": 16})
    found = {m.key: m for m in throughput(case, batch=8, search=space, max_s=2.0)}
    assert (found["throughput.speedup{batch=8}"].value or 0) > 1
