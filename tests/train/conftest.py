"""A few tiny real videos, a network that learns from them in a blink, and recipes."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from bench.core.schema import Clip
from bench.data.collection import open_dataset
from bench.train.recipe import Recipe, read_recipe


@pytest.fixture(scope="session")
def tiny_root(tmp_path_factory):
    """The folder of 24 training and 12 evaluation videos of 8 frames, 32 pixels square, in 2 classes."""
    root = tmp_path_factory.mktemp("data") / "motions"
    open_dataset(
        "motions", root=root, split="train", clips_per_class=12, val_clips_per_class=6, frames=8, size=32, classes=2
    )
    return root


@pytest.fixture(scope="session")
def train_videos(tiny_root):
    return open_dataset("motions", root=tiny_root, split="train")


@pytest.fixture(scope="session")
def val_videos(tiny_root):
    return open_dataset("motions", root=tiny_root, split="val")


@pytest.fixture(scope="session")
def damaged_videos(val_videos, tmp_path_factory):
    """The evaluation videos, the fourth of which is text."""
    path = tmp_path_factory.mktemp("damaged") / "text.mp4"
    path.write_text("not a video")
    videos = list(val_videos.videos)
    videos[3] = replace(videos[3], path=path, facts=None)
    return replace(val_videos, videos=tuple(videos))


@pytest.fixture
def clip():
    return Clip.model_validate("4x1x12")


class TinyNet(nn.Module):
    """A 3D convolution, batch norm where asked for, pooling, dropout and a head."""

    head_name = "fc"

    def __init__(self, *, classes: int = 2, norm: bool = True, dropout: float = 0.0) -> None:
        super().__init__()
        self.conv = nn.Conv3d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm3d(8) if norm else nn.Identity()
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(8, classes)

    def forward(self, clip):
        return self.fc(self.dropout(self.norm(self.conv(clip)).relu().mean((2, 3, 4))))


@pytest.fixture
def tiny_net():
    """Builds the same tiny network at every call."""

    def build(**options):
        torch.manual_seed(0)
        return TinyNet(**options)

    return build


RECIPE = """
recipe: tiny
source: a test
epochs: 3
batch: 6
optimizer: {name: sgd, lr: 0.05, weight_decay: 1e-3}
augmentation: {crop: random, resize: 16}
"""


@pytest.fixture
def recipe_of(tmp_path):
    """Reads the tiny recipe with some keys replaced."""

    def read(**changes) -> Recipe:
        path = Path(tmp_path) / "tiny.yaml"
        path.write_text(RECIPE)
        return read_recipe(path).model_copy(update=changes) if not changes else _changed(path, changes)

    return read


def _changed(path, changes):
    return Recipe.model_validate({**read_recipe(path).model_dump(), **changes})
