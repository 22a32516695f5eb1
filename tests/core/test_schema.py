"""What a metric says of itself: whether it is of its machine, and follows its clocks."""

import pytest
from pydantic import ValidationError

from bench.core.schema import Clip, Metric, SlidingWindows, views_from_text, views_text


@pytest.mark.parametrize(
    ("name", "unit", "is_exact", "is_share", "is_of_machine", "can_drift"),
    [
        ("accuracy.top1", "%", False, True, False, False),
        ("accuracy.train_seconds", "s", False, False, True, True),
        ("accuracy.energy_to_top1_j", "J", False, False, True, True),
        ("latency.p50_ms", "ms", False, False, True, True),
        ("limits.mfu", "%", False, False, True, True),
        ("memory.peak_rss_bytes", "B", False, False, True, False),
        ("instructions.forward", "instructions", False, False, True, False),
        ("memory.peak_rss_bytes", "bytes", False, False, True, False),
        ("memory_estimate.inference_bytes", "B", True, False, False, False),
        ("macs.forward", "MACs", True, False, False, False),
        ("macs.forward", "MACs", False, False, False, False),
        ("params.total", "elements", True, False, False, False),
    ],
)
def test_a_value_is_of_its_machine_unless_it_is_exact_counted_or_a_share_of_videos(
    name: str, unit: str, is_exact: bool, is_share: bool, is_of_machine: bool, can_drift: bool
) -> None:
    metric = Metric(name=name, value=5, unit=unit, is_exact=is_exact)
    assert (metric.is_share, metric.is_of_machine, metric.can_drift) == (is_share, is_of_machine, can_drift)


@pytest.mark.parametrize(
    ("text", "views"),
    [
        ("10x3", (10, 3)),
        ("1xfull", (1, "full")),
        ("sliding:16", (SlidingWindows(16), 1)),
        ("sliding:8x3", (SlidingWindows(8), 3)),
        ("sliding:8xfull", (SlidingWindows(8), "full")),
    ],
)
def test_views_are_read_and_written_alike(text: str, views: object) -> None:
    assert views_from_text(text) == views
    assert views_text(views_from_text(text)) == text


@pytest.mark.parametrize(
    "text", ["", "10", "10x", "x3", "0x1", "sliding", "sliding:", "sliding:0", "sliding:16x", "10x3x1"]
)
def test_other_views_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="temporal x spatial, such as 10x3"):
        views_from_text(text)


@pytest.mark.parametrize(
    "clip",
    [{"frames": 16, "stride": 2, "fps": 15, "size": 112}, {"frames": 16, "seconds": 2, "fps": 15, "size": 112}],
)
def test_a_clip_that_says_its_length_or_rate_twice_is_refused(clip: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match="a clip has"):
        Clip.model_validate(clip)
