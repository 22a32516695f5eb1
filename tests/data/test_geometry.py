"""Sizes that frames are scaled to, against torchvision's own arithmetic."""

import pytest
from torchvision.transforms.functional import _compute_resized_output_size

from bench.data.geometry import Covering, upright_size

SIZES = [(240, 319), (240, 320), (256, 340), (240, 426), (240, 432), (1080, 1920), (319, 240), (7, 9), (200, 200)]


@pytest.mark.parametrize("native", SIZES)
def test_a_short_side_gives_the_size_of_torchvision(native: tuple[int, int]) -> None:
    for short in range(1, 300):
        assert upright_size(native, short) == tuple(_compute_resized_output_size(native, [short]))


@pytest.mark.parametrize("native", SIZES)
def test_covering_a_square_is_scaling_the_short_side(native: tuple[int, int]) -> None:
    for side in (64, 112, 160, 224):
        assert upright_size(native, Covering(height=side, width=side)) == upright_size(native, side)


@pytest.mark.parametrize("native", SIZES)
@pytest.mark.parametrize("window", [(112, 200), (224, 112), (1, 300)])
def test_the_covering_size_contains_the_window_and_touches_it(native: tuple[int, int], window: tuple[int, int]) -> None:
    height, width = upright_size(native, Covering(height=window[0], width=window[1]))
    assert height >= window[0]
    assert width >= window[1]
    assert height == window[0] or width == window[1]
    assert abs(height * native[1] - width * native[0]) < max(native)  # the aspect ratio, but for one pixel
