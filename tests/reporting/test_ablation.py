"""What one factor does, worked out by hand."""

import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from bench.core.schema import Record
from bench.core.stats import paired_shares
from bench.reporting.ablation import Ablation, Effect
from bench.reporting.findings import ablation_findings
from bench.reporting.results import collect
from bench.store import RecordStore, read_records
from bench.train.predictions import Predictions, store_predictions

T1 = 12.706204736432095  # Student's t, 0.975, one degree of freedom
T2 = 4.302652729911275


def ablation_of(records: list[Record], factor: str = "depth", baseline: object = 3) -> Ablation:
    facts = {"name": "demo", "ablate": {"baseline": {factor: baseline}, "factors": [factor]}}
    (found,) = collect(records, [facts]).ablations
    return found


def effect(ablation: Ablation, level: str, metric: str) -> Effect:
    column = next(c for c in ablation.columns if c.metric == metric)
    return ablation.effects[level, column]


def accuracies(make: SimpleNamespace, levels: dict[object, tuple[float, ...]], **rest: object) -> list[Record]:
    """One record per level and seed, without an interval of the test set."""
    return [
        make.record(
            "net",
            make.metric("accuracy.top1", top1, "%"),
            args={"depth": level},
            dataset="d",
            seed=seed,
            **rest,
        )
        for level, values in levels.items()
        for seed, top1 in enumerate(values)
    ]


def test_a_level_is_compared_pair_by_pair_of_equal_seeds(make: SimpleNamespace) -> None:
    found = ablation_of(accuracies(make, {3: (90.0, 80.0), 1: (50.0, 44.0)}))
    level = effect(found, "1", "accuracy.top1")
    assert level.summary.value == 47.0
    assert level.pairs == 2
    difference = level.difference
    assert difference is not None
    spread = math.sqrt(8.0)  # differences -40 and -36
    assert difference.value == -38.0
    assert difference.high - difference.value == pytest.approx(T1 * spread / math.sqrt(2))
    assert level.verdict == "worse"


def test_an_interval_over_no_difference_is_called_so(make: SimpleNamespace) -> None:
    found = ablation_of(accuracies(make, {3: (90.0, 80.0), 5: (91.0, 80.5)}))
    level = effect(found, "5", "accuracy.top1")
    assert level.verdict == "no difference seen"
    (sentence,) = ablation_findings(found)
    assert sentence.startswith("No difference seen in top-1 on d between depth 5 and 3 (+0.75 pt; 95 % interval ")
    assert sentence.endswith(", 2 pairs).")


def test_a_finding_has_its_interval_and_its_cost_ratio(make: SimpleNamespace) -> None:
    records = accuracies(make, {3: (90.0, 91.0, 92.0), 1: (50.0, 52.0, 51.0)})
    counts = [make.counts("net", macs=macs, args={"depth": level}) for level, macs in ((3, 1000), (1, 250))]
    found = ablation_of([*records, *counts])
    half = T2 * 1.0 / math.sqrt(3)  # differences -40, -39, -41
    low, high = f"{40 + half:.1f}", f"{40 - half:.1f}"
    assert ablation_findings(found) == [
        "Top-1 on d is 40.0 points lower with depth 1 than with 3 "
        f"(95 % interval \N{MINUS SIGN}{low} to \N{MINUS SIGN}{high} pt, 3 pairs), at 0.25 times the MACs."
    ]


def test_a_difference_of_shares_is_no_larger_than_the_whole(make: SimpleNamespace) -> None:
    found = ablation_of(accuracies(make, {3: (90.0, 20.0), 1: (10.0, 15.0)}))
    difference = effect(found, "1", "accuracy.top1").difference
    assert difference is not None
    assert (difference.value, difference.low, difference.high) == (-42.5, -100.0, 100.0)


def test_one_pair_is_not_enough(make: SimpleNamespace) -> None:
    found = ablation_of(accuracies(make, {3: (90.0,), 1: (50.0,)}))
    assert effect(found, "1", "accuracy.top1").verdict == "one pair"
    assert ablation_findings(found)[0].endswith("but a single pair cannot show whether this is chance.")


@pytest.fixture
def trained_once(make: SimpleNamespace, tmp_path: Path) -> Callable[..., Ablation]:
    """Two levels, each trained once, whose predictions are right for the videos that are listed, of 40."""

    def stored(*, right: dict[int, range], top1: dict[int, float] | None = None, videos: int = 40) -> Ablation:
        for level, of_level in right.items():
            scores = np.tile(np.float32([1, 0]), (videos, 1))
            scores[[n not in of_level for n in range(videos)]] = (0, 1)
            found = Predictions(
                videos=tuple(f"v{n}" for n in range(videos)),
                labels=np.zeros(videos, dtype=np.int64),
                scores=scores,
                classes=("a", "b"),
                protocol={},
            )
            file = f"artifacts/{level}/predictions.parquet"
            (tmp_path / file).parent.mkdir(parents=True)
            store_predictions(tmp_path / file, found)
            value = (top1 or {}).get(level, 100 * len(of_level) / videos)
            metric = make.metric("accuracy.top1", value, "%", better="higher")
            record = make.record(
                "net", metric, args={"depth": level}, dataset="d", seed=0, artifacts={"predictions": file}
            )
            RecordStore(tmp_path).append(record)
        facts = {"name": "demo", "ablate": {"baseline": {"depth": 3}, "factors": ["depth"]}}
        records = read_records(tmp_path)
        (ablation,) = collect(records, [facts], folders={id(record): tmp_path for record in records}).ablations
        return ablation

    return stored


def test_levels_that_were_trained_once_are_compared_on_the_same_videos(trained_once: Callable[..., Ablation]) -> None:
    found = trained_once(right={3: range(36), 1: range(4, 20)})  # 20 videos only with 3, none only with 1
    level = effect(found, "1", "accuracy.top1")
    expected = paired_shares(0, 20, 40)
    assert level.difference is not None
    assert level.difference.value == pytest.approx(-50.0)
    assert (level.difference.low, level.difference.high) == pytest.approx((100 * expected.low, 100 * expected.high))
    assert (level.verdict, level.is_of_weights) == ("worse", True)
    (sentence,) = ablation_findings(found)
    assert sentence.startswith("Top-1 on d is 50.0 points lower with depth 1 than with 3 (95 % interval ")
    assert sentence.endswith(" pt over the same videos; for these weights, since each was trained once).")


def test_a_small_difference_on_the_same_videos_is_not_seen(trained_once: Callable[..., Ablation]) -> None:
    found = trained_once(right={3: range(36), 1: range(1, 36)})
    assert effect(found, "1", "accuracy.top1").verdict == "no difference seen"
    assert "trained once" in ablation_findings(found)[0]


def test_predictions_of_another_accuracy_than_the_recorded_one_are_not_used(
    trained_once: Callable[..., Ablation],
) -> None:
    found = trained_once(right={3: range(36), 1: range(20)}, top1={1: 60.0})
    assert effect(found, "1", "accuracy.top1").verdict == "one pair"


def test_equal_differences_on_a_small_test_set_are_not_sure(make: SimpleNamespace) -> None:
    def on_20_videos(level: int, top1: float, seed: int) -> Record:
        half = 1.96 * math.sqrt(top1 * (100 - top1) / 20)
        metric = make.metric("accuracy.top1", top1, "%", interval=(top1 - half, min(100.0, top1 + half)))
        return make.record("net", metric, args={"depth": level}, dataset="d", seed=seed)

    records = [on_20_videos(level, top1, seed) for level, top1 in ((3, 90.0), (1, 85.0)) for seed in (0, 1)]
    level = effect(ablation_of(records), "1", "accuracy.top1")
    assert level.difference is not None
    assert level.difference.value == -5.0
    assert level.verdict == "no difference seen"
    below = math.hypot(1.96 * math.sqrt(85 * 15 / 20), 10.0)  # Newcombe's: own lower half, the other's upper half
    assert level.difference.low == pytest.approx(-5.0 - below)


def test_costs_are_compared_as_ratios_over_runs(make: SimpleNamespace) -> None:
    records = [
        make.record("net", make.metric("latency.p50_ms", ms, "ms"), args={"depth": level}, batch=1, run_index=run)
        for level, times in ((3, (10.0, 20.0)), (1, (5.0, 9.0)))
        for run, ms in enumerate(times)
    ]
    level = effect(ablation_of(records), "1", "latency.p50_ms")
    assert level.is_ratio
    logs = [math.log(0.5), math.log(0.45)]
    middle = sum(logs) / 2
    half = T1 * abs(logs[0] - logs[1]) / math.sqrt(2) / math.sqrt(2)
    assert level.difference is not None
    assert (level.difference.value, level.difference.low) == pytest.approx((math.exp(middle), math.exp(middle - half)))
    assert level.verdict == "better"


def test_a_difference_between_doubtful_timings_is_not_judged(make: SimpleNamespace) -> None:
    """Twice as slow in every pair, but the canary moved in one of the four runs; top-1 is the goal."""
    canary = {"copy_ms": {"before": 1.0, "after": 1.3, "ratio": 1.3}}
    records = [
        make.timing("net", ms=ms, args={"depth": level}, run_index=run, details={"canary": canary} if ms == 5 else {})
        for level, times in ((3, (10.0, 20.0)), (1, (5.0, 10.0)))
        for run, ms in enumerate(times)
    ]
    alone = ablation_of(records)
    assert effect(alone, "1", "latency.p50_ms").verdict == "doubtful"
    trained = ablation_of([*records, *accuracies(make, {3: (90.0, 80.0), 1: (50.0, 44.0)})])
    (sentence,) = ablation_findings(trained)
    assert "latency" not in sentence, "a doubtful timing is no cost that a finding names"
    steady = [record.model_copy(update={"details": {"drift": {}}}) for record in records]
    assert effect(ablation_of(steady), "1", "latency.p50_ms").verdict in ("better", "no difference seen")


def test_exact_counts_need_no_interval(make: SimpleNamespace) -> None:
    records = [make.counts("net", params=p, macs=7, args={"depth": d}) for d, p in ((3, 100), (1, 50))]
    found = ablation_of(records)
    assert effect(found, "1", "params.total").verdict == "lower"
    assert effect(found, "1", "macs.forward").verdict == "the same"


def test_pairs_are_equal_in_everything_else(make: SimpleNamespace) -> None:
    wide = accuracies(make, {3: (90.0, 80.0), 1: (50.0, 44.0)})
    small = accuracies(make, {3: (60.0, 61.0), 1: (20.0, 23.0)}, clip="8x1x64")
    found = ablation_of([*wide, *small])
    level = effect(found, "1", "accuracy.top1")
    assert level.pairs == 4
    assert level.difference is not None
    assert level.difference.value == pytest.approx((-40 - 36 - 40 - 38) / 4)
    assert found.contexts == ({"clip": "16x1x112"}, {"clip": "8x1x64"})
    within = effect(found.within({"clip": "8x1x64"}), "1", "accuracy.top1")
    assert within.difference is not None
    assert (within.pairs, within.difference.value) == (2, -39.0)


def test_a_setting_that_only_one_model_has_makes_another_context(make: SimpleNamespace) -> None:
    """As `num_classes` in one entry of a suite and not in another, or weights and none."""
    models: list[tuple[dict[str, object], float]] = [
        ({"args": {"width": 2, "num_classes": 8}}, 10),
        ({"args": {"width": 2}}, 20),
        ({"args": {"width": 2}, "weights": "k700.pt"}, 30),
        ({"args": {"kernel": 3}}, 40),
    ]
    records = [
        make.record("net", make.metric("accuracy.top1", top1 + gain, "%"), dataset="d", views=views, **model)
        for model, top1 in models
        for views, gain in (("1x1", 0), ("3x1", 1))
    ]
    found = ablation_of(records, factor="views", baseline="1x1")
    values = [effect(found.within(context), '"3x1"', "accuracy.top1").values for context in found.contexts]
    assert values == [(11,), (21,), (31,), (41,)]


def test_a_setting_shows_no_metric_in_which_others_would_be_mixed(make: SimpleNamespace) -> None:
    """Timings depend on the precision, accuracies on the recipe, counts on neither."""
    args: list[dict[str, object]] = [{"depth": level} for level in (3, 1)]
    timings = [make.timing("net", ms=ms, precision=p, args=a) for p, ms in (("fp32", 9), ("bf16", 4)) for a in args]
    trained = [make.accuracy("net", top1=t, recipe=r, args=a) for r, t in (("quick", 50), ("long", 60)) for a in args]
    found = ablation_of([*timings, *trained, *(make.counts("net", params=7, args=a) for a in args)])
    told = {
        str(*context.values()): {
            column.metric: effect(found.within(context), "3", column.metric).values
            for column in found.within(context).columns
            if column.metric in ("params.total", "latency.p50_ms", "accuracy.top1")
        }
        for context in found.contexts
    }
    assert told == {
        "fp32": {"params.total": (7,), "latency.p50_ms": (9,)},
        "bf16": {"params.total": (7,), "latency.p50_ms": (4,)},
        "quick": {"params.total": (7,), "accuracy.top1": (50,)},
        "long": {"params.total": (7,), "accuracy.top1": (60,)},
    }


def test_a_seed_without_a_partner_is_left_out_of_the_pairs(make: SimpleNamespace) -> None:
    found = ablation_of(accuracies(make, {3: (90.0, 80.0), 1: (50.0, 44.0, 99.0)}))
    level = effect(found, "1", "accuracy.top1")
    assert level.pairs == 2
    assert level.difference is not None
    assert level.difference.value == -38.0


def test_timings_of_different_machines_are_not_paired(make: SimpleNamespace) -> None:
    records = [
        make.timing("net", args={"depth": 3}, environment=make.host),
        make.timing("net", args={"depth": 1}, environment=make.gpu_host),
    ]
    assert effect(ablation_of(records), "1", "latency.p50_ms").difference is None


def test_a_failed_baseline_is_reported(make: SimpleNamespace) -> None:
    found = ablation_of(accuracies(make, {1: (50.0, 51.0), 5: (60.0, 61.0)}))
    assert ablation_findings(found) == ["The baseline, depth 3, has no result to compare with."]


def test_the_baseline_comes_first_and_numbers_before_words(make: SimpleNamespace) -> None:
    found = ablation_of(accuracies(make, {"increasing": (1.0,), 10: (1.0,), 3: (1.0,), 5: (1.0,)}))
    assert list(found.levels.values()) == [3, 5, 10, "increasing"]


def test_a_baseline_clip_may_be_written_in_any_way(make: SimpleNamespace) -> None:
    records = [make.counts(clip=clip) for clip in ("16x1x112", "8x1x112")]
    found = ablation_of(records, "clip", {"frames": 16, "stride": 1, "size": 112})
    assert found.has_baseline


@pytest.mark.parametrize("factor", ["depth", "nothing"])
def test_a_factor_with_fewer_than_two_levels_has_no_ablation(make: SimpleNamespace, factor: str) -> None:
    facts = {"name": "demo", "ablate": {"baseline": {factor: 3}, "factors": [factor]}}
    assert collect(accuracies(make, {3: (90.0, 91.0)}), [facts]).ablations == ()


def test_views_can_be_an_ablated_factor(make: SimpleNamespace) -> None:
    few = accuracies(make, {3: (80.0, 82.0, 84.0)}, views="1x1")
    many = accuracies(make, {3: (85.0, 88.0, 88.0)}, views="10x1")
    found = ablation_of([*few, *many], factor="views", baseline="1x1")
    level = effect(found, '"10x1"', "accuracy.top1")
    assert level.difference is not None
    assert level.difference.value == 5.0
    assert (level.pairs, level.verdict) == (3, "better")
    (sentence,) = ablation_findings(found)
    assert sentence.startswith("Top-1 on d is 5.0 points higher with views 10x1 than with 1x1 (95 % interval ")


def test_a_model_without_weights_is_compared_only_with_the_same_model_from_weights(make: SimpleNamespace) -> None:
    """What has no weights has no such axis; other models without weights are no baseline of these."""
    afresh = accuracies(make, {3: (80.0, 82.0), 5: (10.0, 20.0)})
    begun = accuracies(make, {3: (90.0, 93.0)}, weights="trained:motions/quick")
    found = ablation_of([*afresh, *begun], factor="weights", baseline=None)
    assert effect(found, "null", "accuracy.top1").values == (80.0, 82.0)
    level = effect(found, '"trained:motions/quick"', "accuracy.top1")
    assert level.difference is not None
    assert (level.difference.value, level.pairs) == (10.5, 2)
    (sentence,) = ablation_findings(found)
    assert sentence.startswith("Top-1 on d is 10.5 points higher with weights trained:motions/quick than with none (")
