"""Sizes and options of the authors" code that no variant here has: a file shows them, and their model gives its logits.

The authors" own code was run once on weights and clips made by the rule below; only its numbers are kept.
"""

import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from bench.measure.counting.model_count import count
from bench.models.factory import create_model
from bench.models.weights.identification import identify

CASES = [
    (
        "videomae",
        {"dim": 192, "depth": 4, "heads": 3, "num_classes": 101, "layer_scale": True},
        (1, 3, 16, 96, 96),
        "model",
        [1.6416, -2.18078, 0.04551, 0.42915],
        1443927936,
    ),
    (
        "videomae",
        {"dim": 192, "depth": 4, "heads": 3, "num_classes": 101, "pooling": "first"},
        (1, 3, 16, 96, 96),
        "model",
        [2.05687, -0.04096, 1.08138, 0.33184],
        1443927936,
    ),
    (
        "videomae",
        {"dim": 192, "depth": 4, "heads": 3, "num_classes": 101, "learned_positions": True, "size": 96},
        (1, 3, 16, 96, 96),
        "model",
        [1.04703, -0.81124, 0.18309, 1.74972],
        1443927936,
    ),
    (
        "videomae",
        {"dim": 192, "depth": 4, "heads": 3, "num_classes": 101, "qkv_bias": False},
        (1, 3, 16, 96, 96),
        "model",
        [1.81696, -2.24064, 0.3656, 0.78565],
        1443927936,
    ),
    (
        "videomae",
        {"tubelet": 1, "dim": 192, "depth": 4, "heads": 3, "num_classes": 101},
        (1, 3, 8, 96, 96),
        "model",
        [2.34397, -1.79632, -0.08565, 1.1254],
        1358993280,
    ),
    (
        "videomaev2",
        {"dim": 192, "depth": 4, "heads": 3, "num_classes": 101, "cosine": True},
        (1, 3, 16, 96, 96),
        "module",
        [2.06127, -2.03104, 0.1913, 0.86843],
        1443927936,
    ),
    (
        "uniformer",
        {"blocks": [1, 1, 2, 1], "dims": [16, 32, 64, 128], "head_width": 16, "num_classes": 11, "splits": True},
        (1, 3, 4, 64, 64),
        "model_state",
        [-0.91968, -4.76293, -1.57862, -0.55466],
        26092288,
    ),
    (
        "uniformer",
        {"blocks": [1, 1, 2, 1], "dims": [16, 32, 64, 128], "head_width": 16, "num_classes": 11, "patch_frames": 3},
        (1, 3, 4, 64, 64),
        "model_state",
        [0.26437, 0.68606, 2.19105, -1.95402],
        26329856,
    ),
    (
        "uniformer_light",
        {"blocks": [1, 1, 2, 1], "dims": [16, 32, 64, 128], "head_width": 8, "num_classes": 11, "layer_scale": True},
        (2, 3, 8, 64, 64),
        "model_state",
        [-0.09964, -2.80583, 4.88418, 2.28166],
        100175872,
    ),
    (
        "uniformerv2",
        {
            "dim": 128,
            "depth": 6,
            "heads": 2,
            "num_classes": 174,
            "size": 64,
            "queries": 6,
            "local_blocks": 2,
            "halves_time": True,
        },
        (1, 3, 16, 64, 64),
        "model_state",
        [0.51613, -2.51033, 2.11239, 0.91068],
        532308480,
    ),
    (
        "uniformerv2",
        {"dim": 128, "depth": 6, "heads": 2, "num_classes": 174, "size": 64, "local_blocks": 1},
        (1, 3, 8, 64, 64),
        "model_state",
        [0.55798, -3.10379, -0.00818, 0.49259],
        427771904,
    ),
    (
        "uniformerv2",
        {"dim": 128, "depth": 6, "heads": 2, "num_classes": 174, "size": 64, "mixes": False},
        (1, 3, 8, 64, 64),
        "model_state",
        [0.20594, -1.81183, -0.6286, 0.49151],
        393956864,
    ),
    (
        "mvitv1",
        {"dim": 32, "depth": 5, "widens_at": [1, 3], "num_classes": 11, "frames": 8, "size": 64},
        (1, 3, 8, 64, 64),
        "model_state",
        [0.25043, 2.17215, 1.32759, -1.12933],
        232112512,
    ),
    (
        "mvitv1",
        {
            "dim": 32,
            "depth": 5,
            "widens_at": [1, 3],
            "num_classes": 11,
            "frames": 8,
            "size": 64,
            "stride_kernels": True,
        },
        (1, 3, 8, 64, 64),
        "model_state",
        [-0.0631, 0.68466, -0.11797, -0.09795],
        230560128,
    ),
    (
        "mvitv2",
        {"dim": 32, "depth": 5, "widens_at": [1, 3], "num_classes": 11, "frames": 8, "size": 64},
        (1, 3, 8, 64, 64),
        "model_state",
        [-1.75258, -0.1529, -0.41831, 1.45225],
        194670976,
    ),
    (
        "mvitv2",
        {
            "dim": 32,
            "depth": 5,
            "widens_at": [1, 3],
            "num_classes": 11,
            "frames": 8,
            "size": 64,
            "pooling": "mean",
            "widens_in_mlp": True,
        },
        (1, 3, 8, 64, 64),
        "model_state",
        [2.22936, 2.15154, 0.74222, -3.50899],
        236716416,
    ),
    (
        "mae_vit",
        {"dim": 192, "depth": 2, "heads": 3, "num_classes": 11, "frames": 4, "size": 64},
        (1, 3, 4, 64, 64),
        "model_state",
        [-1.02593, 2.50823, -0.97646, -0.54089],
        78943872,
    ),
    (
        "hiera",
        {"dim": 48, "stages": [1, 2, 3, 2], "num_classes": 101, "size": 64},
        (1, 3, 16, 64, 64),
        "model_state",
        [1.5761, 0.43846, 1.09593, 0.18598],
        1209806592,
    ),
]


def values_for(key: str, shape: tuple[int, ...]) -> Tensor:
    """Values of a weight from its name and shape alone: normal, scaled by what kind of weight it is."""
    noise = np.random.RandomState(zlib.crc32(key.encode())).standard_normal(shape or 1).astype(np.float32)
    if not shape or key.endswith("num_batches_tracked"):
        return torch.zeros(shape)
    if key.endswith("running_var"):
        noise = 1 + 0.1 * np.abs(noise)
    elif key.endswith(("running_mean", "bias")):
        noise = 0.1 * noise
    elif len(shape) == 1:
        noise = 1 + 0.1 * noise
    else:
        noise = noise * np.sqrt(2 / np.prod(shape[1:]))
    return torch.from_numpy(np.asarray(noise, dtype=np.float32))


def filled(model: nn.Module) -> dict[str, Tensor]:
    """Every weight of `model` with its values; the wrapper `backbone.` of UniFormerV2 is no part of the rule."""
    shapes = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    return {key: values_for(key.removeprefix("backbone."), shape) for key, shape in shapes.items()}


def by_cost() -> list[Any]:
    """UniFormer's files are compared with two families; the names of the others are those of every large ViT."""
    quick = ("uniformer", "uniformer_light")
    return [pytest.param(*case, marks=() if case[0] in quick else pytest.mark.slow) for case in CASES]


@pytest.mark.parametrize(("name", "arguments", "shape", "entry", "logits", "flops"), by_cost())
def test_a_file_shows_what_it_was_built_with_and_gives_its_logits(
    name: str,
    arguments: dict[str, Any],
    shape: tuple[int, ...],
    entry: str,
    logits: list[float],
    flops: int,
    tmp_path: Path,
) -> None:
    file = tmp_path / "weights.pth"
    torch.save({entry: filled(create_model(name, device="meta", **arguments))}, file)
    (found,) = (fit for fit in identify(file).fits if fit.model == name)
    assert dict(found.arguments) == arguments
    model = create_model(name, weights=file, **found.arguments).eval()
    clip = torch.from_numpy(np.random.RandomState(0).standard_normal(shape).astype(np.float32))
    with torch.no_grad():
        output = model(clip).flatten()
    assert output[:4].tolist() == pytest.approx(logits, abs=1e-4 * output.norm().item())
    counted = count(model, (clip.to("meta"),))
    assert (2 * counted.macs, counted.is_complete) == (flops, True)
