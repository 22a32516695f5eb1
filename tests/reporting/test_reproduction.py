"""The ledger of reproduction, from records made by hand: each outcome, its numbers and its reasons."""

import math
from types import SimpleNamespace
from typing import Any

import pytest

from bench.core.schema import Failure, Point, Record
from bench.reporting.reproduction import LedgerEntry, fold_of, initial_weights, ledger, zoo_name
from bench.reporting.results import collect

K400 = {"dataset": "kinetics400", "split": "val", "views": "10x3", "clip": "8x8x256", "seed": None, "recipe": None}
SLOW = {**K400, "weights": "SLOW_8x8_R50.pyth"}  # in print: 74.58 (PyTorchVideo), 10x3 views, 256 pixels


def protocol(**changes: Any) -> dict[str, Any]:
    return {"protocol": {"split": "val", "missing": 0, "annotated": 19_881, "shared_with_training": None, **changes}}


@pytest.fixture
def record(make: SimpleNamespace):
    """An accuracy: `top1` with its interval, at axes of the point."""

    def build(model: str, top1: float, low: float, high: float, **rest: Any) -> Record:
        metric = make.metric("accuracy.top1", top1, "%", interval=(low, high))
        return make.record(model, metric, **{"details": protocol(), **rest})

    return build


def entries(*records: Record) -> list[LedgerEntry]:
    return ledger(collect(records).cases)


def of_source(found: list[LedgerEntry], source: str, **fields: Any) -> list[LedgerEntry]:
    return [
        entry
        for entry in found
        if entry.row.source.startswith(source) and all(getattr(entry.row, k) == v for k, v in fields.items())
    ]


def test_a_published_value_inside_the_interval_is_reproduced(record) -> None:
    [entry] = of_source(entries(record("slow_r50", 74.3, 73.7, 74.9, **SLOW)), "pytorchvideo")
    assert (entry.outcome, entry.published, entry.value, entry.differences) == ("reproduced", 74.58, 74.3, ())
    assert entry.difference == pytest.approx(-0.28)
    assert (entry.low, entry.high) == (pytest.approx(-0.88), pytest.approx(0.32))


def test_a_published_value_outside_the_interval_is_not_reproduced(record) -> None:
    [below] = of_source(entries(record("slow_r50", 73.0, 72.4, 73.6, **SLOW)), "pytorchvideo")
    [above] = of_source(entries(record("slow_r50", 76.0, 75.4, 76.6, **SLOW)), "pytorchvideo")
    assert (below.outcome, above.outcome) == ("not reproduced", "not reproduced")


def test_published_digits_leave_half_a_unit_open(record) -> None:
    """74.58 may be 74.575; an interval that ends at 74.576 holds it, one at 74.57 does not."""
    [inside] = of_source(entries(record("slow_r50", 74.0, 73.5, 74.576, **SLOW)), "pytorchvideo")
    [outside] = of_source(entries(record("slow_r50", 74.0, 73.5, 74.57, **SLOW)), "pytorchvideo")
    assert (inside.outcome, outside.outcome) == ("reproduced", "not reproduced")


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"views": "10x1"}, "10x3 views v 10x1"),
        ({"clip": "16x8x256"}, "8 frames v 16"),
        ({"clip": "8x4x256"}, "stride 8 v 4"),
        ({"clip": "8x8x224"}, "crop 256 v 224"),
        ({"recipe": "quick"}, "from scratch v from SLOW_8x8_R50.pyth"),
        ({"details": protocol(missing=1200)}, "1200 of 19881 videos missing"),
        ({"details": protocol(shared_with_training={"kinetics400": 3})}, "test videos share material"),
    ],
)
def test_a_differing_protocol_rules_a_comparison_out_and_is_named(record, changes: dict[str, Any], told: str) -> None:
    [entry] = of_source(entries(record("slow_r50", 74.3, 73.7, 74.9, **{**SLOW, **changes})), "pytorchvideo")
    assert entry.outcome == "not comparable"
    assert len(entry.differences) == 1
    assert told in entry.differences[0]
    assert entry.difference == pytest.approx(-0.28), "the difference is shown all the same"


def test_a_few_missing_videos_are_listed_and_do_not_rule_a_comparison_out(record) -> None:
    details = protocol(missing=312)
    [entry] = of_source(entries(record("slow_r50", 74.3, 73.7, 74.9, **{**SLOW, "details": details})), "pytorchvideo")
    assert (entry.outcome, entry.differences) == ("reproduced", ("312 of 19881 videos missing",))


def test_an_accuracy_without_an_interval_decides_nothing(make: SimpleNamespace) -> None:
    bare = make.record("slow_r50", make.metric("accuracy.top1", 74.58, "%"), details=protocol(), **SLOW)
    [entry] = of_source(entries(bare), "pytorchvideo")
    assert entry.outcome == "not comparable"
    assert math.isnan(entry.low)


def test_accuracies_of_kinetics_700_stay_a_claim_without_source(record) -> None:
    axes = {**K400, "dataset": "kinetics700", "clip": "16x1x112", "views": "10x1"}
    found = [
        record(f"resnet3d_{depth}", top1, top1 - 0.3, top1 + 0.3, **axes, weights="w.pth")
        for depth, top1 in ((50, 67.1), (101, 60.0))
    ]
    failure = Failure(type="DatasetError", message="data set kinetics700: there is no folder\nExpected there: …")
    found.append(found[0].model_copy(update={"status": "error", "metrics": (), "error": failure}))
    missing = record("resnet3d_152", 1, 1, 1, **axes, weights="w.pth")
    missing = missing.model_copy(update={"status": "error", "metrics": (), "error": failure})
    listed = entries(*found[:2], missing)
    assert [(e.zoo, e.published, e.value, e.outcome) for e in listed] == [
        ("resnet3d_50", 67.1, 67.1, "claim without source"),
        ("resnet3d_101", 68.3, 60.0, "claim without source"),
        ("resnet3d_152", 68.9, None, "claim without source"),
    ]
    assert listed[2].reason == "data set kinetics700: there is no folder"


def test_a_failed_case_is_not_run_in_the_ledger_and_has_its_reason(record) -> None:
    failure = Failure(type="WeightsError", message="SLOW_8x8_R50.pyth is not a file")
    failed = record("slow_r50", 1, 1, 1, **SLOW).model_copy(update={"status": "error", "metrics": (), "error": failure})
    [entry] = of_source(entries(failed), "pytorchvideo")
    assert (entry.outcome, entry.value, entry.reason) == ("not run", None, "SLOW_8x8_R50.pyth is not a file")


def test_a_published_mean_over_splits_is_compared_with_the_mean_over_three_splits(record) -> None:
    """84.4 in print for ResNet-18, the mean of 84, 85 and 86 here is 85 with the mean of the ends."""
    axes = {"dataset": "ucf101", "views": "10x1", "clip": "16x1x112", "recipe": "resnet3d_finetune", "seed": 0}
    axes["weights"] = "r3d18_K_200ep.pth"
    runs = [
        record("resnet3d_18", top1, top1 - 1, top1 + 2, split=split, **axes)
        for split, top1 in zip((1, 2, 3), (84, 85, 86), strict=True)
    ]
    [entry] = of_source(entries(*runs), "Hara CVPR 2018")
    assert (entry.published, entry.value) == (84.4, 85)
    assert (entry.low, entry.high) == (pytest.approx(-0.4), pytest.approx(2.6))
    assert entry.differences == ("views: not stated v 10x1",)
    [part] = of_source(entries(*runs[:2]), "Hara CVPR 2018")
    assert part.value == 84.5
    assert part.differences[0] == "mean of 3 splits v split 1, 2"


def test_a_published_accuracy_of_one_split_is_compared_with_that_split(record) -> None:
    axes = {"dataset": "ucf101", "views": "10x1", "clip": "16x1x112", "recipe": "resnet3d_finetune", "seed": 0}
    axes["weights"] = "r3d50_KM_200ep.pth"
    runs = [
        record("resnet3d_50", top1, top1 - 1, top1 + 1, split=split, **axes) for split, top1 in ((2, 90), (1, 92.5))
    ]
    [entry] = of_source(entries(*runs), "mindspore")
    assert (entry.value, entry.outcome) == (92.5, "reproduced")
    assert entry.differences == ("views: sliding v 10x1",), "ten views stand for a sliding window"
    [other] = of_source(entries(runs[0]), "mindspore")
    assert (other.outcome, other.differences[0]) == ("not comparable", "split 1 v 2")


def test_seeds_are_averaged_and_each_training_has_its_own_entry(record) -> None:
    axes = {**K400, "clip": "16x1x112", "views": "10x1"}
    seeds = [
        record("resnet3d_18", top1, top1 - 1, top1 + 1, **{**axes, "recipe": "r", "seed": seed})
        for seed, top1 in ((0, 54.0), (1, 54.6))
    ]
    given = record("resnet3d_18", 54.1, 53.5, 54.7, **{**axes, "weights": "r3d18_K400.pth"})
    found = of_source(entries(*seeds, given), "Hara CVPR 2018 /")
    assert [(entry.value, entry.outcome) for entry in found] == [
        (pytest.approx(54.3), "reproduced"),
        (54.1, "reproduced"),
    ]


def test_a_model_with_arguments_of_its_own_is_not_the_published_one(record) -> None:
    narrow = record("resnet3d", 54.1, 53.5, 54.7, **K400, args={"depth": 18, "widen_factor": 0.5})
    assert entries(narrow) == []
    assert entries(record("resnet3d_18", 54.1, 53.5, 54.7, **{**K400, "dataset": "motions"})) == []


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        ({}, "resnet3d"),
        ({"depth": 50, "num_classes": 700}, "resnet3d_50"),
        ({"depth": 50, "shortcut": "A"}, None),
        ({"inflated_from": "googlenet.pth"}, "resnet3d"),
    ],
)
def test_names_of_the_zoo(args: dict[str, Any], expected: str | None) -> None:
    assert zoo_name(Point(model="resnet3d", clip="16x1x112", args=args)) == expected  # type: ignore[arg-type]


def test_what_a_model_initial_weights_and_which_split_it_is() -> None:
    point = Point(model="m", clip="16x1x112", args={"inflated_from": "g.pth", "width": 2}, split="test2")  # type: ignore[arg-type]
    assert (initial_weights(point), fold_of(point)) == ("g.pth", 2)
    assert (
        initial_weights(point.model_copy(update={"args": {}})),
        fold_of(point.model_copy(update={"split": "val"})),
    ) == (
        None,
        None,
    )


def test_the_page_has_the_ledger_and_the_mean_over_splits(record, make: SimpleNamespace) -> None:
    axes = {"dataset": "ucf101", "views": "10x1", "clip": "16x1x112", "recipe": "resnet3d_finetune", "seed": 0}
    axes["weights"] = "<r3d18>.pth"
    tops = ((1, 84.0), (2, 85.0), (3, 86.0))
    html = make.report(
        collect([record("resnet3d_18", top, top - 1, top + 2, split=split, **axes) for split, top in tops])
    )
    assert "<r3d18>" not in html
    page = make.page(html)
    assert page.column("splits-table", "Split 2") == ["85.0|84.0–87.0"]
    assert page.column("splits-table", "Mean") == ["85.0|84.0–87.0"]
    [line] = page.tables["ledger-table"][1:]
    assert line[0] == "resnet3d_18|resnet3d_finetune, from <r3d18>.pth, 10x1 views"
    assert line[1].startswith("Hara CVPR 2018|3D ResNet-18 fine-tune")
    assert line[1].endswith("claimed")
    assert line[2:] == [
        "UCF-101 (3-split avg)",
        "84.4",
        "85.0|84.0–87.0",
        "+0.6|−0.4 to +2.6",
        "not comparable",
        "views: not stated v 10x1",
    ]
    assert "1 published accuracy: 1 not comparable." in page.text


def test_results_without_published_models_have_neither_section(make: SimpleNamespace) -> None:
    page = make.page(make.report(collect(make.quickstart(), [make.quickstart_facts])))
    assert not {"ledger-table", "splits-table"} & set(page.tables)


HIERA = {**K400, "weights": "hiera_base_16x224.pth", "clip": "16x4x224", "views": "5x3"}  # published: 84.0


def test_later_rows_are_reproduced_under_the_same_protocol(record) -> None:
    details = protocol(sampling="blocks")
    [entry] = of_source(
        entries(record("hiera_base_16x224", 83.9, 83.3, 84.5, **HIERA, details=details)), "facebookresearch/hiera"
    )
    assert (entry.outcome, entry.published, entry.differences) == ("reproduced", 84.0, ())


def test_another_sampling_rules_a_comparison_out(record) -> None:
    details = protocol(sampling="sections")
    [entry] = of_source(
        entries(record("hiera_base_16x224", 83.9, 83.3, 84.5, **HIERA, details=details)), "facebookresearch/hiera"
    )
    assert (entry.outcome, entry.differences) == ("not comparable", ("dense sampling v sections",))


def test_a_frozen_backbone_is_not_compared_with_a_model_trained_as_a_whole(record) -> None:
    somethings = {**K400, "dataset": "somethingsomething", "clip": "16x4x256", "views": "2x3", "weights": "vitl.pt"}
    [entry] = of_source(entries(record("vjepa2_l", 73.7, 73.2, 74.2, **somethings)), "facebookresearch/vjepa2")
    assert entry.outcome == "not comparable"
    assert "attentive v the whole model trained" in entry.differences


@pytest.mark.parametrize(
    ("head", "shots", "outcomes"),
    [("attentive", "all", ["reproduced"]), ("linear", "all", []), ("attentive", "5", [])],
)
def test_a_head_on_frozen_features_is_compared_with_the_published_head_of_its_kind(
    make: SimpleNamespace, head: str, shots: str, outcomes: list[str]
) -> None:
    labels = {"head": head, "shots": shots}
    metric = make.metric("frozen.top1", 73.5, "%", interval=(73.0, 74.0), labels=labels)  # published: 73.7
    axes = {**K400, "dataset": "somethingsomething", "clip": "16x4x256", "views": "2x3", "weights": "vitl.pt"}
    details = {"frozen": protocol()}
    record = make.record("vjepa2_l_encoder", metric, **axes, details=details)
    found = of_source(entries(record), "facebookresearch/vjepa2")
    assert [entry.outcome for entry in found] == outcomes
    assert all(entry.published == 73.7 and entry.differences == () for entry in found)


@pytest.mark.parametrize(
    "model", ["hf:microsoft/xclip-base-patch16-zero-shot", "hf:models/xclip-base-patch16-zero-shot/"]
)
@pytest.mark.parametrize(
    ("prompts", "told"), [(["{}"], None), (["a video of {}", "{}"], "prompts '{}' v 'a video of {}', '{}'")]
)
def test_a_zero_shot_accuracy_stands_beside_the_published_one_of_that_model(
    make: SimpleNamespace, model: str, prompts: list[str], told: str | None
) -> None:
    labels = {"head": "zero_shot", "shots": "0"}
    metric = make.metric("frozen.top1", 65.0, "%", interval=(64.6, 65.4), labels=labels)  # published: 65.2
    heads = [{**labels, "adaptation": "zero-shot", "prompts": prompts}]
    details = {"frozen": {**protocol(sampling="sections"), "heads": heads}}
    axes = {"clip": "32x8x224", "views": "1x1", "dataset": "kinetics600", "split": "val", "seed": None, "recipe": None}
    [entry] = entries(make.record(model, metric, **axes, details=details))
    assert (entry.row.adaptation, entry.published, entry.value) == ("zero-shot", 65.2, 65.0)
    # The source does not say how many views it took, which the ledger names, and any other text.
    assert entry.outcome == "not comparable"
    assert entry.differences == (*([told] if told else []), "views: not stated v 1x1")


def test_other_heads_and_other_models_have_no_published_zero_shot_accuracy(make: SimpleNamespace) -> None:
    axes = {"clip": "32x8x224", "dataset": "kinetics600", "split": "val", "seed": None, "recipe": None}

    def found(model: str, head: str, shots: str) -> list[LedgerEntry]:
        metric = make.metric("frozen.top1", 65.0, "%", interval=(64.6, 65.4), labels={"head": head, "shots": shots})
        return entries(make.record(model, metric, **axes, details={"frozen": protocol()}))

    published = "hf:microsoft/xclip-base-patch16-zero-shot"
    assert len(found(published, "zero_shot", "0")) == 1
    assert found(published, "linear", "all") == []
    assert found("hf:microsoft/xclip-base-patch32", "zero_shot", "0") == []
