"""The canary: what it compares, and that it sings on a CPU."""

import pytest
import torch

from bench.measure.timing.canary import compare, drifted, sing


def test_a_ratio_above_one_is_a_slower_machine() -> None:
    compared = compare({"matmul_ms": 2.0, "copy_ms": 4.0}, {"matmul_ms": 2.5, "copy_ms": 4.0})
    assert compared["matmul_ms"] == {"before": 2.0, "after": 2.5, "ratio": 1.25}
    assert drifted(compared) == ["matmul +25%"]


@pytest.mark.parametrize(("after", "seen"), [(1.04, []), (0.96, []), (1.06, ["copy +6%"]), (0.9, ["copy -10%"])])
def test_drift_is_seen_in_both_directions_beyond_its_limit(after: float, seen: list[str]) -> None:
    assert drifted(compare({"copy_ms": 1.0}, {"copy_ms": after})) == seen


def test_it_sings_on_a_cpu() -> None:
    assert all(ms > 0 for ms in sing(torch.device("cpu")).values())


@pytest.mark.gpu
def test_it_sings_on_a_gpu() -> None:
    assert all(ms > 0 for ms in sing(torch.device("cuda")).values())
