"""Video Swin's windows, their relative positions and the mask of shifted ones."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from bench.models.video_swin import fitted, join_windows, relative_positions, shift_mask, split_windows


@given(counts=st.tuples(*[st.integers(1, 3)] * 3), window=st.tuples(*[st.integers(1, 3)] * 3))
def test_windows_are_joined_as_they_were_split(counts: tuple[int, int, int], window: tuple[int, int, int]) -> None:
    size = [count * side for count, side in zip(counts, window, strict=True)]
    grid = torch.randn(2, *size, 5)
    windows = split_windows(grid, window)
    assert torch.equal(join_windows(windows, window, grid.shape), grid)
    corner = grid[0, : window[0], : window[1], : window[2]].reshape(-1, 5)
    assert torch.equal(windows[0], corner)


def test_relative_positions_by_hand() -> None:
    """Two tokens along the width: the table has rows for the differences -1, 0 and 1."""
    assert relative_positions((1, 1, 2)).tolist() == [[1, 0], [2, 1]]
    assert relative_positions((2, 1, 1)).tolist() == [[1, 0], [2, 1]]
    assert relative_positions((8, 7, 7)).max() == 15 * 13 * 13 - 1


def test_a_window_spans_a_smaller_grid_and_stays_put_there() -> None:
    assert fitted((8, 7, 7), (4, 14, 7), shifts=True) == ((4, 7, 7), (0, 3, 0))
    assert fitted((8, 7, 7), (16, 14, 14), shifts=False) == ((8, 7, 7), (0, 0, 0))


def test_tokens_that_a_shift_brought_together_do_not_attend() -> None:
    """A row of four in windows of two, shifted by one: the last window joins the last and the first token."""
    mask = shift_mask((1, 1, 4), (1, 1, 2), (0, 0, 1), like=torch.zeros(()))
    assert mask.tolist() == [[[0, 0], [0, 0]], [[0, -100], [-100, 0]]]
