"""Charts of an ablation."""

from types import SimpleNamespace

from bench.reporting.level_charts import level_charts
from bench.reporting.results import collect


def test_levels_with_the_same_beginning_have_separate_places(make: SimpleNamespace) -> None:
    levels = [f"trained:kinetics700/{'long_' * 3}{end}" for end in ("first", "other", "other_again")]
    records = [
        make.record("net", make.metric("accuracy.top1", 50 + seed, "%"), dataset="d", seed=seed, weights=level)
        for level in levels
        for seed in (0, 1)
    ]
    facts = {"name": "demo", "ablate": {"baseline": {"weights": levels[0]}, "factors": ["weights"]}}
    (ablation,) = collect(records, [facts]).ablations
    shown, differences = level_charts(ablation, "factor-1")
    assert len(shown.layout["yaxis"]["categoryarray"]) == 3
    assert len(set(shown.traces[1]["y"])) == 3
    assert len(set(differences.traces[0]["y"])) == 2
