"""A model fitted under a zoo's preprocessing and written in its container is evaluated without flags as it was fitted.

The conventions below are written down by hand from the zoos' own code, not taken from `protocols.csv`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from bench.core.input_protocol import InputProtocol
from bench.core.schema import Clip, clip_from_text
from bench.models.base import head_name_of
from bench.models.factory import create_model, find_model
from bench.train.evaluating import evaluate
from bench.train.feature_store import take_features
from bench.train.inference import InferenceSettings
from bench.train.preprocessing import checkpoint_protocol

pytestmark = pytest.mark.slow

State = Mapping[str, Tensor]
HARA = {"mean": (0.4345, 0.4051, 0.3775), "std": (0.2768, 0.2713, 0.2737), "resize": 112, "crop_rounding": "half_even"}
IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
SLOWFAST = {"mean": 0.45, "std": 0.225, "crop_rounding": "ceil"}
OPENCV = {"antialias": False}


@dataclass(frozen=True, kw_only=True)
class Zoo:
    """A small form of a model of the zoo, its convention, and how its authors save it."""

    model: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    clip: str
    protocol: Mapping[str, Any]
    content: Callable[[dict[str, Tensor]], dict[str, Any]]
    file: str = "weights.pth"


def prefixed(state: State, prefix: str) -> dict[str, Tensor]:
    return {f"{prefix}{key}": value for key, value in state.items()}


SMALL_VIT = {"dim": 48, "depth": 2, "heads": 2}
ZOOS = {
    "3D-ResNets-PyTorch": Zoo(
        model="resnet3d_10",
        arguments={"widen_factor": 0.125},
        clip="16x1x112",
        protocol=HARA,
        content=lambda state: {"epoch": 9, "arch": "resnet-10", "state_dict": state, "optimizer": {}, "scheduler": {}},
    ),
    "3D-ResNets-PyTorch of 2018": Zoo(
        model="resnet3d_18",
        arguments={"widen_factor": 0.125},
        clip="16x1x112",
        protocol={"scale": 255, "mean": (114.7748, 107.7354, 99.4750), "std": 1, "crop_rounding": "half_even"},
        content=lambda state: {
            "epoch": 9,
            "arch": "resnet-18",
            "state_dict": prefixed(state, "module."),
            "optimizer": {},
        },
    ),
    "jfzhang95": Zoo(
        model="c3d",
        clip="16x1x112",
        protocol={"channels": "bgr", "scale": 255, "mean": (90, 98, 102), "std": 1, "resize": (128, 171), **OPENCV},
        content=lambda state: {"epoch": 9, "state_dict": state, "opt_dict": {}},
        file="C3D-own_epoch-9.pth.tar",
    ),
    "TSM": Zoo(
        model="tsm",
        arguments={"backbone": "torchvision:resnet18"},
        clip="8x8x224",
        protocol={
            **IMAGENET,
            "resize": 256,
            "sampling": "sections",
            "averaging": "score",
            "crop_rounding": "half_even",
        },
        content=lambda state: {"epoch": 9, "arch": "resnet18", "state_dict": prefixed(state, "module.")},
        file="TSM_shift8_blockres_avg_segment8.pth.tar",
    ),
    "VideoMAE": Zoo(
        model="videomae",
        arguments=SMALL_VIT,
        clip="16x4x224",
        protocol={**IMAGENET, "resize": 224, **OPENCV},
        content=lambda state: {"module": state},
    ),
    "VideoMAE V2": Zoo(
        model="videomaev2",
        arguments=SMALL_VIT,
        clip="16x4x224",
        protocol={**IMAGENET, "resize": 224},
        content=lambda state: {"module": state},
        file="vit_k710_ft.pth",
    ),
    "PySlowFast": Zoo(
        model="mvitv2",
        arguments={"dim": 24},
        clip="16x4x224",
        protocol={**SLOWFAST, "resize": 256, "placement": "offset"},
        content=lambda state: {"model_state": state, "epoch": 9, "cfg": "TRAIN: {}"},
    ),
    "TimeSformer": Zoo(
        model="timesformer",
        arguments=SMALL_VIT,
        clip="8x32x224",
        protocol={**SLOWFAST, "resize": 224, "averaging": "score", **OPENCV},
        content=lambda state: {"model_state": prefixed(state, "model."), "cfg": "TRAIN: {}"},
    ),
    "UniFormer": Zoo(
        model="uniformer",
        arguments={"blocks": (1, 1, 1, 1)},
        clip="16x4x224",
        protocol={**SLOWFAST, "resize": 224, "averaging": "score", "placement": "offset", **OPENCV},
        content=lambda state: {"model_state": state},
    ),
    "UniFormerV2": Zoo(
        model="uniformerv2",
        arguments={**SMALL_VIT, "queries": 2},
        clip="8x8x224",
        protocol={**SLOWFAST, "resize": 224, "sampling": "sections", **OPENCV},
        content=lambda state: {"model_state": prefixed(state, "backbone.")},
    ),
}


def fit_head(model: nn.Module, videos: Any, settings: InferenceSettings, folder: Path) -> None:
    """Fit the classifier by least squares on the features that the model gives for these videos."""
    found = take_features(model, videos, settings, folder=folder, about={})
    vectors = found.vectors(range(len(found)))[:, 0]
    mean, spread = vectors.mean(0), vectors.std() + 1e-6
    scaled = (vectors - mean) / spread
    wanted = np.where(np.arange(2) == found.labels[:, None], 4.0, -4.0)
    gram = scaled @ scaled.T + 1e-3 * np.eye(len(scaled))
    weight = (scaled.T @ np.linalg.solve(gram, wanted)).T / spread
    head = model.get_submodule(head_name_of(model))
    with torch.no_grad():
        head.weight.copy_(torch.from_numpy(weight))  # type: ignore[operator]
        head.bias.copy_(torch.from_numpy(-weight @ mean))  # type: ignore[operator]


@pytest.mark.parametrize("name", ZOOS)
def test_a_checkpoint_of_the_zoo_is_evaluated_as_it_was_fitted(name: str, val_videos: Any, tmp_path: Path) -> None:
    zoo = ZOOS[name]
    clip = Clip.model_validate(zoo.clip)
    given = InputProtocol.of({"channels": "rgb", "scale": 1, **zoo.protocol}, mark="given")
    torch.manual_seed(0)
    model = create_model(zoo.model, num_classes=2, **zoo.arguments).eval()
    fit_head(model, val_videos, InferenceSettings(clip=clip, protocol=given, batch=4), tmp_path / "features")
    expected = evaluate(model, val_videos, clip=clip, protocol=given, batch=4)
    assert expected.top(1).value > 0.9
    other = InputProtocol.of({"channels": "rgb", "scale": 1, "mean": 0, "std": 1, "resize": 224}, mark="given")
    plain = evaluate(model, val_videos, clip=clip, protocol=other, batch=4)
    assert not np.allclose(plain.scores, expected.scores, atol=1e-3)  # the convention matters

    state = {key: value.clone() for key, value in model.state_dict().items()}
    torch.save(zoo.content(state), tmp_path / zoo.file)
    loaded = create_model(zoo.model, weights=tmp_path / zoo.file, **zoo.arguments)
    known = checkpoint_protocol(loaded)
    as_published = known.clip_over(clip_from_text(find_model(zoo.model).clip))
    assert as_published == clip
    assert {known.mark(part) for part in ("channels", "scale", "mean", "std")} == {"recognised"}
    found = evaluate(loaded, val_videos, clip=as_published, batch=4)
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-5)
    assert (found.ranks == expected.ranks).all()
