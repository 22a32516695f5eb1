"""Sizes that frames are scaled to, and the filters, against torchvision, Pillow and OpenCV."""

import cv2
import numpy as np
import pytest
from PIL import Image
from torchvision.transforms.functional import _compute_resized_output_size

from bench.data.geometry import Covering, Scaling, resize, upright_size

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


@pytest.mark.parametrize("native", SIZES)
def test_a_rounded_long_side_is_that_of_mmcv(native: tuple[int, int]) -> None:
    """mmcv's rescale_size: int(side * factor + 0.5)."""
    for short in range(1, 300):
        factor = short / min(native)
        expected = tuple(int(side * factor + 0.5) for side in native)
        assert upright_size(native, Scaling(size=short, rounding="round")) == expected


def test_a_scaling_without_a_size_keeps_frames_as_they_are() -> None:
    assert upright_size((240, 319), Scaling(size=None)) == (240, 319)


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    """Smooth colours with fine detail, 96 x 128."""
    noise = np.random.default_rng(0).integers(0, 256, (24, 32, 3), np.uint8)
    smooth = np.array(Image.fromarray(noise).resize((128, 96), Image.Resampling.BICUBIC))
    smooth[::7, ::5] = 255
    return smooth


@pytest.mark.parametrize("target", [(48, 64), (40, 55), (200, 300)])
@pytest.mark.parametrize(
    ("interpolation", "antialias", "pillow", "opencv"),
    [
        ("bilinear", True, Image.Resampling.BILINEAR, None),
        ("bicubic", True, Image.Resampling.BICUBIC, None),
        ("bilinear", False, None, cv2.INTER_LINEAR),
        ("area", False, None, cv2.INTER_AREA),
        ("nearest", False, None, cv2.INTER_NEAREST),
    ],
)
def test_each_filter_is_that_of_the_library_the_zoos_use(picture, target, interpolation, antialias, pillow, opencv):
    if interpolation == "area" and target != (48, 64):
        pytest.skip("the two agree at whole factors only: torch's weights of cells that are cut are equal")
    found = resize(picture, target, Scaling(size=None, interpolation=interpolation, antialias=antialias))
    if pillow is not None:
        expected = np.array(Image.fromarray(picture).resize(target[::-1], pillow))
    else:
        expected = cv2.resize(picture, target[::-1], interpolation=opencv)
    assert np.abs(found.astype(int) - expected.astype(int)).max() <= 1
