"""Decoding, and the stages from files to logits, on small real video files; verdicts on given rates."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.core.errors import InputError
from bench.measure.context import CaseContext
from bench.measure.decode import decode
from bench.measure.end_to_end import end_to_end
from bench.measure.timing.pipeline import LaneRates, find_bottleneck

Load = Callable[..., CaseContext]
FEW = {"clips_per_class": 1, "val_clips_per_class": 2, "frames": 8, "size": 32, "classes": 2}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder: Path = tmp_path_factory.mktemp("data")
    return str(folder / "motions")


@pytest.mark.parametrize(
    ("rates", "slowest", "is_level"),
    [
        ({"decode": 10.0, "copy": None, "model": 100.0}, "decode", False),
        ({"decode": 1000.0, "copy": 50.0, "model": 100.0}, "copy", False),
        ({"decode": 1000.0, "copy": 500.0, "model": 100.0}, "model", False),
        ({"decode": 95.0, "copy": 500.0, "model": 100.0}, "decode", True),
        ({"decode": 89.0, "copy": 500.0, "model": 100.0}, "decode", False),
    ],
)
def test_the_slowest_stage_is_the_bottleneck_unless_the_rates_are_level(
    rates: dict[str, float | None], slowest: str, is_level: bool
) -> None:
    verdict = find_bottleneck(rates)
    assert verdict.slowest == slowest
    assert verdict.is_level is is_level
    assert ("is the bottleneck: it reaches" in str(verdict)) is not is_level


def test_a_verdict_names_the_stage_and_both_rates() -> None:
    rates = LaneRates(decode=12.0, copy=None, model=345.6, together=(11.0,))
    assert str(rates.bottleneck) == "decode is the bottleneck: it reaches 12 clips/s, model 345.6"


def test_decoding_of_real_files_is_timed_step_by_step(load: Load, root: str) -> None:
    case = load(dataset="motions")
    found = {m.name: m for m in decode(case, root=root, options=FEW, clips=4, rounds=6)}
    rate = found["decode.clips_per_s"]
    assert len(rate.samples) == 6
    assert rate.interval is not None
    steps = [found[f"decode.{step}_ms"].samples for step in ("decode", "transform", "collate")]
    per_clip_ms = [sum(times) for times in zip(*steps, strict=True)]
    assert rate.samples == pytest.approx([1000 / ms for ms in per_clip_ms])


@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_every_stage_is_timed_alone_and_all_together(load: Load, root: str, workers: int) -> None:
    case = load(dataset="motions", batch=2)
    found = {m.name: m for m in end_to_end(case, root=root, options=FEW, lane_s=0.2, workers=workers)}
    assert found["end_to_end.decode_clips_per_s"].value
    assert found["end_to_end.model_clips_per_s"].value
    assert len(found["end_to_end.clips_per_s"].samples) == 6
    assert found["end_to_end.copy_clips_per_s"].value is None
    assert found["end_to_end.copy_clips_per_s"].note
    assert "verdict" in case.details["end_to_end"]  # type: ignore[operator]


def test_without_a_data_set_the_error_shows_what_to_write(load: Load) -> None:
    with pytest.raises(InputError, match=re.escape("end_to_end: {dataset: ucf101}")):
        end_to_end(load())


def test_a_batch_beyond_the_data_set_is_refused(load: Load, root: str) -> None:
    with pytest.raises(InputError, match="holds 4 videos, fewer than a batch of 5"):
        end_to_end(load(dataset="motions", batch=5), root=root, options=FEW)


@pytest.mark.gpu
def test_copying_is_a_stage_on_cuda(load: Load, root: str) -> None:
    case = load(dataset="motions", batch=2, device="cuda")
    found = {m.name: m.value for m in end_to_end(case, root=root, options=FEW, lane_s=0.5)}
    assert found["end_to_end.copy_clips_per_s"]
