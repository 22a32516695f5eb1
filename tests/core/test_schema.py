"""What a metric says of itself: whether it is of its machine, and follows its clocks."""

import pytest

from bench.core.schema import Metric


@pytest.mark.parametrize(
    ("name", "unit", "is_exact", "is_share", "is_of_machine", "can_drift"),
    [
        ("accuracy.top1", "%", False, True, False, False),
        ("accuracy.train_seconds", "s", False, False, True, True),
        ("accuracy.energy_to_top1_j", "J", False, False, True, True),
        ("latency.p50_ms", "ms", False, False, True, True),
        ("limits.mfu", "%", False, False, True, True),
        ("memory.peak_rss_bytes", "B", False, False, True, False),
        ("memory.peak_rss_bytes", "bytes", False, False, True, False),
        ("memory_estimate.inference_bytes", "B", True, False, False, False),
        ("macs.forward", "MACs", True, False, False, False),
        ("macs.forward", "MACs", False, False, False, False),
        ("params.total", "elements", True, False, False, False),
    ],
)
def test_a_figure_is_of_its_machine_unless_it_is_exact_counted_or_a_share_of_videos(
    name: str, unit: str, is_exact: bool, is_share: bool, is_of_machine: bool, can_drift: bool
) -> None:
    metric = Metric(name=name, value=5, unit=unit, is_exact=is_exact)
    assert (metric.is_share, metric.is_of_machine, metric.can_drift) == (is_share, is_of_machine, can_drift)
