"""The clips of a case: the same for every device, and drawn without the memory of the whole batch."""

from math import prod

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bench.measure.context import _standard_normal


@given(st.lists(st.integers(1, 6), min_size=2, max_size=5), st.integers(0, 3))
def test_clips_drawn_one_by_one_are_those_drawn_together(sizes: list[int], seed: int) -> None:
    for shape in (tuple(sizes), (*sizes, 16)):
        whole = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
        found = _standard_normal(shape, torch.Generator().manual_seed(seed), torch.device("cpu"))
        assert torch.equal(found, whole)


def test_main_memory_holds_one_clip_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[int] = []
    randn = torch.randn
    monkeypatch.setattr(torch, "randn", lambda shape, **given: drawn.append(prod(shape)) or randn(shape, **given))
    _standard_normal((5, 3, 4, 16, 16), torch.Generator(), torch.device("cpu"))
    assert drawn == [3 * 4 * 16 * 16] * 5
