"""Published speeds: what each row states, and what keeps it from being compared."""

import re

import pytest

from bench.core.registry import MODELS
from bench.core.schema import Case, Clip, Environment, Point, Record
from bench.profiling import _published_speed_notes
from bench.reference.published_speeds import PublishedSpeed, published_speeds, speeds_of


def test_every_row_names_a_model_and_the_commit_that_was_read() -> None:
    for speed in published_speeds():
        assert speed.model in MODELS
        assert re.fullmatch(r"[0-9a-f]{40}", speed.commit)
        assert speed.commit in speed.url
        assert speed.value > 0
        assert speed.unit in ("clips/s", "videos/s")
        assert (speed.unit == "videos/s") == bool(speed.views)


def test_hiera_s_readme_prints_four_speeds_on_an_a100() -> None:
    sizes = ("base", "base_plus", "large", "huge")
    rows = [speeds_of(f"hiera_{size}_16x224")[0] for size in sizes]
    assert [row.clips_per_s for row in rows] == [133.6, 84.1, 40.8, 20.9]
    assert {(row.device, row.precision, row.batch, row.includes_decoding) for row in rows} == {
        ("A100", "fp16", None, False)
    }


def test_videos_of_many_views_are_counted_in_clips() -> None:
    [row] = speeds_of("slow_r50")
    assert (row.clips_per_s, row.printed) == (pytest.approx(2.3 * 30), "2.3 videos/s of 10x3 views")
    assert row.conditions == "device not stated, fp32, batch 1, 8x8x256, without decoding"


def hiera() -> PublishedSpeed:
    return speeds_of("hiera_base_16x224")[0]


@pytest.mark.parametrize("gpu", ["NVIDIA A100-SXM4-80GB", "NVIDIA A100 80GB PCIe", "A100"])
def test_the_same_kind_of_device_precision_and_clip_are_alike(gpu: str) -> None:
    assert hiera().differences(gpu=gpu, precision="fp16", clip="16x4x224") == []


@pytest.mark.parametrize(
    ("gpu", "precision", "clip", "expected"),
    [
        ("NVIDIA H200", "fp16", "16x4x224", ["A100 v NVIDIA H200"]),
        ("NVIDIA A1000", "fp16", "16x4x224", ["A100 v NVIDIA A1000"]),
        (None, "fp16", "16x4x224", ["A100 v CPU"]),
        ("NVIDIA A100", "bf16", "16x4x224", ["fp16 v bf16"]),
        ("NVIDIA A100", "fp16", "16x2x224", []),  # the stride chooses frames, which costs nothing
        ("NVIDIA A100", "fp16", "8x4x224", ["clip 16x4x224 v 8x4x224"]),
        ("NVIDIA A100", "fp16", "16x4x224x256", ["clip 16x4x224 v 16x4x224x256"]),
    ],
)
def test_what_differs_is_named(gpu: str | None, precision: str, clip: str, expected: list[str]) -> None:
    assert hiera().differences(gpu=gpu, precision=precision, clip=clip) == expected


def test_a_device_that_is_not_stated_is_compared_with_none() -> None:
    [row] = speeds_of("slowfast_r50")
    assert row.differences(gpu="Tesla V100", precision="fp32", clip="32x2x256") == ["device not stated"]


def test_a_profile_with_speed_names_the_published_ones_and_what_differs() -> None:
    record = Record(
        case=Case(
            suite="profile",
            point=Point(model="hiera_base_16x224", clip=Clip.model_validate("16x4x224"), precision="fp32"),
            measures={},
        ),
        case_id="0",
        run_index=0,
        freshness="",
        status="ok",
        environment=Environment(hardware={"gpu": "NVIDIA A100-SXM4-80GB"}),
        started_at="2026-01-01T00:00:00",
    )
    assert list(_published_speed_notes(record)) == [
        "published: 133.6 clips/s (A100, fp16, batch not stated, 16x4x224, without decoding) by facebookresearch/hiera "
        "README.md; differs in fp16 v fp32"
    ]
