"""The table of published results: what is a fact, what a claim, and which rows are about our models."""

import csv
import json
import re
from collections import defaultdict
from itertools import combinations
from pathlib import Path

import pytest

from bench.catalog import shipped_models
from bench.core.registry import MODELS
from bench.reference.published import PublishedRow, later_rows, published_for, published_rows, zoo_names


def test_the_table_is_the_one_that_was_read(assets: Path) -> None:
    ours = Path(__file__).parents[2] / "bench" / "reference" / "published.csv"
    assert ours.read_bytes() == (assets / "reference" / "published.csv").read_bytes()


@pytest.mark.parametrize("name", ["corrections", "published_2026"])
def test_the_other_tables_are_those_that_were_read(assets: Path, name: str) -> None:
    ours = Path(__file__).parents[2] / "bench" / "reference" / f"{name}.csv"
    assert ours.read_bytes() == (assets / "reference" / f"{name}.csv").read_bytes()


def lines(name: str) -> list[dict[str, str]]:
    path = Path(__file__).parents[2] / "bench" / "reference" / f"{name}.csv"
    return list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))


def test_every_correction_is_applied_or_noted() -> None:
    fields = {"top1": "top1", "top5": "top5", "dataset": "dataset"}
    for found in lines("corrections"):
        row = published_rows()[int(found["published_csv_line"]) - 2]
        assert found["verdict"] in row.note, found
        if found["column"] in fields and "not stated" not in found["verdict"]:
            assert str(getattr(row, fields[found["column"]])) == found["value_at_source"], found


@pytest.mark.parametrize(
    ("variant", "top1", "top5"),
    [("MViT-small", 81.1, 94.7), ("MViT-base", 82.6, 95.8), ("MViT-large", 85.4, 96.2)],
)
def test_each_mvit_has_its_own_accuracy(variant: str, top1: float, top5: float) -> None:
    found = [row for row in published_rows() if "mmaction2" in row.source and row.variant.startswith(variant)]
    of_kinetics = [row for row in found if row.dataset == "Kinetics-400" and "maskfeat" not in row.variant]
    assert (top1, top5) in {(row.top1, row.top5) for row in of_kinetics}


def test_the_row_that_mixes_two_models_keeps_what_belongs_together() -> None:
    [row] = [row for row in published_rows() if "mixes the cost" in row.note]
    assert row.variant.startswith("ResNet101")
    assert (row.dataset, row.top1, row.params_millions, row.giga_macs) == ("SthV2", 63.7, None, None)


def test_no_two_variants_of_a_source_share_their_accuracies_by_slip() -> None:
    """One page prints both top-1 and top-5 of two variants alike only if it copied a line."""
    by_accuracy: dict[tuple[object, ...], list[PublishedRow]] = defaultdict(list)
    for row in (*published_rows(), *later_rows()):
        if row.top1 is not None and row.top5 is not None:
            by_accuracy[row.source, row.dataset, row.top1, row.top5].append(row)
    for rows in by_accuracy.values():
        for one, other in combinations(rows, 2):
            assert (one.model, one.variant) == (other.model, other.variant), (one, other)


def test_no_two_architectures_of_a_source_share_their_cost_by_slip() -> None:
    """One page prints both parameters and MACs of two architectures alike only if it copied a line."""
    by_cost: dict[tuple[object, ...], set[tuple[str, ...]]] = defaultdict(set)
    for row in (*published_rows(), *later_rows()):
        if row.params_millions is None or row.giga_macs is None or row.source.startswith("torchvision"):
            continue  # torchvision's variants are weights of one architecture
        backbone, _, config = row.variant.partition(" | ")
        architecture = (row.model, backbone, re.split("[-_]", config)[0])  # `ResNet152 | ircsn_r152_…` is CSN's ircsn
        by_cost[row.source, row.params_millions, row.giga_macs].add(architecture)
    assert [cost for cost in by_cost.items() if len(cost[1]) > 1] == []


def test_misprinted_costs_are_those_of_the_same_model() -> None:
    [ir_csn] = [row for row in published_rows() if "| ircsn_sports1m" in row.variant]
    assert (ir_csn.params_millions, ir_csn.giga_macs, ir_csn.giga_macs_printed) == (29.7, 97.63, "97.63")
    assert "cost 109.9 G, 33.02 M there, of another model" in ir_csn.note
    [swin] = [row for row in published_rows() if row.variant.startswith("Swin-S") and row.dataset == "Kinetics-710"]
    assert (swin.params_millions, swin.giga_macs) == (None, 166.0)  # its head is not the one of 400 classes
    assert "cost 604 G, 197 M there, of another model" in swin.note


def test_metrics_of_one_later_result_are_one_row() -> None:
    [row] = [row for row in later_rows() if row.variant == "Swin-T" and row.dataset == "Kinetics-400"]
    assert (row.top1, row.top5, row.giga_macs, row.views, row.clip) == (78.8, 93.6, 87.9, "4x3", "32x2")
    assert (row.adaptation, row.sampling, row.commit != "") == ("fine-tuned", "dense", True)
    printed = sum(line["metric"] in ("top1", "top5") for line in lines("published_2026"))
    assert sum((row.top1 is not None) + (row.top5 is not None) for row in later_rows()) == printed == 332


def test_a_cost_of_all_views_is_not_that_of_one() -> None:
    [row] = [row for row in later_rows() if (row.variant, row.clip, row.dataset) == ("B", "8x8", "Kinetics-400")]
    assert (row.giga_macs, row.giga_macs_printed, row.cost_is_published) == (None, "161", False)
    assert "all views" in row.convention
    [movinet] = [row for row in later_rows() if row.variant == "A2-Base"]
    assert (movinet.giga_macs, movinet.views) == (10.0, "1x1")


def test_a_variant_is_not_another_one_with_a_longer_name() -> None:
    assert {found.row.crop for found in published_for("uniformerv2_l14_8")} <= {"224", ""}
    assert "224" not in {found.row.crop for found in published_for("uniformerv2_l14_336_8")}
    assert {found.row.dataset for found in published_for("video_swin_b_ssv2")} == {"Something-Something V2"}
    assert "Something-Something V2" not in {found.row.dataset for found in published_for("video_swin_b")}


def test_only_rows_read_at_their_source_are_published() -> None:
    by_status: dict[str, set[str]] = {}
    for row in published_rows():
        by_status.setdefault(row.status, set()).add(row.confidence)
    assert by_status["published"] == {
        "mirror",
        "mirror + re-measured",
        "mirror (accuracy)",
        "installed package meta",
    }
    assert by_status["claimed, unsupported"] == {"UNSUPPORTED"}
    assert "memory, unverified" in by_status["claimed"]


def test_the_quoted_kinetics_700_values_are_never_more_than_a_claim() -> None:
    quoted = [row for row in published_rows() if row.top1 in (67.1, 68.3, 68.9) and row.dataset == "Kinetics-700"]
    assert [row.status for row in quoted] == ["claimed, unsupported"] * 3


def test_numbers_that_are_not_printed_are_none() -> None:
    rows = [row for row in published_rows() if row.source.startswith("Carreira")]
    assert {row.giga_macs for row in rows} == {None}
    assert {row.params_millions for row in rows} == {9.0, 79.0, 12.0, 39.0, 25.0}


def test_costs_that_were_measured_for_the_table_are_not_called_published() -> None:
    row = published_for("i3d_rgb")[0].row
    assert (row.giga_macs, row.cost_is_published, row.status) == (111.15, False, "published")


def test_every_row_of_the_zoo_is_about_a_model_of_ours_and_about_something_printed() -> None:
    for name in zoo_names():
        assert published_for(name), name
        assert name.startswith(("torchvision:", "hf:")) or name in MODELS, name


def test_an_unpublished_model_has_no_rows() -> None:
    assert published_for("c3d_search") == ()


@pytest.mark.parametrize(
    ("name", "frames", "size", "printed"),
    [("slowfast_r50", 32, 256, "65.71"), ("x3d_m", 16, 256, "6.72"), ("torchvision:s3d", 16, 224, "17.979")],
)
def test_rows_carry_the_clip_that_was_counted(name: str, frames: int, size: int, printed: str) -> None:
    first = published_for(name)[0]
    assert (first.frames, first.size, first.row.giga_macs_printed) == (frames, size, printed)


def shipped_counts() -> dict[str, tuple[int, int]]:
    """Parameters and MACs of every registered model at its default clip, as they come with vbench."""
    shipped = json.loads((Path(shipped_models.__file__).with_suffix(".json")).read_text(encoding="utf-8"))
    counts = [(check["params"], check["macs"]) for _, _, check in shipped["counts"]]
    return {model["name"]: count for model, count in zip(shipped["models"], counts, strict=True)}


@pytest.mark.parametrize(
    ("name", "source", "params_tolerance"),
    [
        ("mvitv2_s_16x4", "SlowFast projects/mvitv2", 0.005),
        ("mvitv2_b_32x3", "SlowFast projects/mvitv2", 0.005),
        ("mvitv2_l_40x3", "SlowFast projects/mvitv2", 0.025),  # 217.6 M and 213.1 M are printed for one architecture
        ("video_swin_t", "SwinTransformer/", 0.01),
        ("video_swin_s", "SwinTransformer/", 0.01),
        ("video_swin_b", "SwinTransformer/", 0.01),
        ("video_swin_b_ssv2", "SwinTransformer/", 0.01),
        ("video_swin_l", "mmaction2", 0.01),
        ("timesformer_b_8x32", "mmaction2", None),
        ("timesformer_joint_8x32", "mmaction2", None),
        ("timesformer_space_8x32", "mmaction2", None),
    ],
)
def test_larger_variants_cost_what_is_printed(name: str, source: str, params_tolerance: float | None) -> None:
    """Where no implementation was run beside ours: printed GFLOPs of one view to half a percent, and parameters."""
    params, macs = shipped_counts()[name]
    rows = [found.row for found in published_for(name) if found.row.source.startswith(source)]
    costs = [row for row in rows if row.giga_macs is not None]
    assert costs
    for row in costs:
        assert macs / 1e9 == pytest.approx(row.giga_macs, rel=0.005)
        if params_tolerance is not None:
            assert row.params_millions is not None
            assert params / 1e6 == pytest.approx(row.params_millions, rel=params_tolerance)


@pytest.mark.parametrize("name", ["uniformer_s_8x8", "uniformer_s_16x4", "uniformer_b_8x8", "uniformer_b_16x4"])
def test_a_cost_printed_for_all_views_is_ours_times_the_views(name: str) -> None:
    _, macs = shipped_counts()[name]
    rows = [found.row for found in published_for(name) if "all views" in found.row.convention]
    assert rows
    for row in rows:
        temporal, spatial = (int(part) for part in row.views.split("x"))
        assert temporal * spatial * macs / 1e9 == pytest.approx(float(row.giga_macs_printed), rel=0.005)


@pytest.mark.parametrize("size", range(6))
def test_movinets_cost_about_what_tensorflow_counts(size: int) -> None:
    """Printed to two digits; every block has the widths and kernels of the port that has the published weights."""
    _, macs = shipped_counts()[f"movinet_a{size}_base"]
    [row] = [found.row for found in published_for(f"movinet_a{size}_base") if found.row.giga_macs is not None]
    assert macs / 1e9 == pytest.approx(row.giga_macs, rel=0.16 if size == 2 else 0.07)
