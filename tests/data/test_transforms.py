"""Augmentation and crops on frames whose pixels say where they came from."""

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torchvision.transforms import v2

from bench.core.errors import InputError, UnknownNameError
from bench.core.schema import Clip
from bench.data.transforms import Augmentation, normalise, spatial_views

CLIP = Clip.model_validate("4x1x8")


def ramp(height: int = 16, width: int = 20) -> NDArray[np.uint8]:
    """Frames whose red is the row, green the column and blue the frame's number, (4, H, W, 3)."""
    rows, columns, frames = np.mgrid[:height, :width, :4]
    return np.stack([rows, columns, frames], -1).transpose(2, 0, 1, 3).astype(np.uint8)


def test_the_default_is_the_centre_window() -> None:
    clip = Augmentation().build(CLIP)({"rgb": ramp()}, 0)["rgb"]
    assert clip.shape == (3, 4, 8, 8)
    assert clip[0, 0, :, 0].tolist() == list(range(4, 12))
    assert clip[1, 0, 0].tolist() == list(range(6, 14))
    assert clip[2, :, 0, 0].tolist() == [0, 1, 2, 3]


def test_all_frames_of_a_clip_get_the_same_draw() -> None:
    still = np.repeat(np.random.default_rng(0).integers(0, 255, (1, 32, 40, 3), dtype=np.uint8), 4, axis=0)
    augmentation = Augmentation.from_mapping(
        {
            "crop": "random_resized",
            "flip": 0.5,
            "color_jitter": [0.4, 0.4, 0.4, 0.1],
            "grayscale": 0.3,
            "rand_augment": [2, 9],
            "erase": 0.5,
        }
    )
    transform = augmentation.build(CLIP)
    for seed in range(10):
        clip = transform({"rgb": still}, seed)["rgb"]
        assert all(torch.equal(clip[:, 0], clip[:, t]) for t in range(4))


def test_the_seed_decides_the_draw_and_leaves_the_global_generator_alone() -> None:
    transform = Augmentation(crop="random_resized", flip=0.5).build(CLIP)
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    one, same, other = (transform({"rgb": ramp()}, seed)["rgb"] for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert torch.equal(before, torch.random.get_rng_state())


def test_flip_mirrors_columns_only() -> None:
    straight = Augmentation().build(CLIP)({"rgb": ramp()}, 0)["rgb"]
    flipped = Augmentation(flip=1.0).build(CLIP)({"rgb": ramp()}, 0)["rgb"]
    assert torch.equal(flipped, straight.flip(-1))


def test_flow_is_mirrored_with_its_horizontal_part_turned_round() -> None:
    flow = ramp()[..., :2]
    clips = Augmentation(flip=1.0).build(CLIP)({"rgb": ramp(), "flow": flow}, 0)
    straight = Augmentation().build(CLIP)({"flow": flow}, 0)["flow"]
    assert torch.equal(clips["flow"][0], 255 - straight[0].flip(-1))
    assert torch.equal(clips["flow"][1], straight[1].flip(-1))


@pytest.mark.parametrize("crop", ["random_resized", "multi_scale", "random"])
def test_rgb_and_flow_are_cropped_equally(crop: str) -> None:
    transform = Augmentation.from_mapping({"crop": crop}).build(CLIP)
    for seed in range(8):
        clips = transform({"rgb": ramp(), "flow": ramp()[..., :2]}, seed)
        assert torch.equal(clips["rgb"][:2], clips["flow"])
        assert clips["rgb"].shape == (3, 4, 8, 8)


def test_multi_scale_takes_corners_and_centre_of_the_scales_that_are_named() -> None:
    transform = Augmentation(crop="multi_scale", scales=(0.5,)).build(CLIP)
    corners = {tuple(transform({"rgb": ramp()}, seed)["rgb"][:2, 0, 0, 0].tolist()) for seed in range(60)}
    assert corners == {(0, 0), (0, 12), (8, 0), (8, 12), (4, 6)}


def test_scale_jitter_draws_the_short_side() -> None:
    augmentation = Augmentation(short_side=(8, 8), crop="centre")
    assert augmentation.decode_size(CLIP) is None
    clip = augmentation.build(CLIP)({"rgb": np.full((4, 16, 20, 3), 7, np.uint8)}, 0)["rgb"]
    assert clip.shape == (3, 4, 8, 8)


def test_spatial_views_go_along_the_longer_side() -> None:
    wide = spatial_views(ramp(8, 20), height=8, width=8, views=3)
    assert [int(view[1, 0, 0, 0]) for view in wide] == [0, 6, 12]
    tall = spatial_views(ramp(20, 8), height=8, width=8, views=3)
    assert [int(view[0, 0, 0, 0]) for view in tall] == [0, 6, 12]
    (centre,) = spatial_views(ramp(10, 20), height=8, width=8, views=1)
    assert (int(centre[0, 0, 0, 0]), int(centre[1, 0, 0, 0])) == (1, 6)
    with pytest.raises(InputError, match="does not fit"):
        spatial_views(ramp(4, 20), height=8, width=8, views=1)


def test_normalise_is_scale_less_mean_over_std() -> None:
    clip = torch.randint(0, 256, (3, 2, 4, 4), dtype=torch.uint8)
    mean, std = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
    expected = (clip / 255 - torch.tensor(mean).view(3, 1, 1, 1)) / torch.tensor(std).view(3, 1, 1, 1)
    torch.testing.assert_close(normalise(clip, mean=mean, std=std), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        ({"crop": "rand"}, "crop: .*'random_resized', 'multi_scale', 'random' or 'centre', found 'rand'"),
        ({"flip": 2}, "flip: .*less than or equal to 1, found 2"),
        ({"scale": [0.9, 0.2]}, "scale must ascend"),
        ({"resize": 0}, "resize"),
        ({"color_jitter": [0.4]}, "color_jitter"),
        ({"flip": 2, "erase": -1}, "flip.*erase"),
    ],
)
def test_wrong_values_are_refused_with_the_allowed_ones(mapping: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Augmentation.from_mapping(mapping)


def test_unknown_keys_suggest_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="did you mean: flip"):
        Augmentation.from_mapping({"flips": 0.5})


@pytest.mark.parametrize("width", range(8, 20))
@pytest.mark.parametrize("height", [8, 9, 11])
def test_a_centre_crop_is_placed_as_torchvision_and_pyslowfast_place_it(height: int, width: int) -> None:
    """torchvision rounds half to even; PySlowFast's uniform_crop takes math.ceil((size - crop) / 2)."""
    frames = np.arange(height * width, dtype=np.uint8).reshape(1, height, width, 1).repeat(3, axis=3)
    expected = v2.functional.center_crop(torch.from_numpy(frames).permute(0, 3, 1, 2), [8, 8])
    (found,) = spatial_views(frames, height=8, width=8, views=1, rounding="half_even")
    assert torch.equal(found, expected.permute(1, 0, 2, 3))
    (up,) = spatial_views(frames, height=8, width=8, views=1, rounding="ceil")
    top, left = math.ceil((height - 8) / 2), math.ceil((width - 8) / 2)
    assert torch.equal(up[0, 0], torch.from_numpy(frames[0, top : top + 8, left : left + 8, 0]))
