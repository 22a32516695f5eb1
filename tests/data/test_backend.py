"""What a data set was opened to be decoded with is what every reader of its clips uses."""

import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import nn

from bench.core.errors import MissingFrameError, UnknownNameError
from bench.core.schema import Clip
from bench.data import clips
from bench.data.clip_batches import train_batches, view_batches
from bench.data.collection import VideoSet, open_dataset
from bench.data.decode import read_frames
from bench.data.loading_stages import time_stages
from bench.data.transforms import Augmentation
from bench.models.base import InputSpec
from bench.train.fitting import identity
from bench.train.recipe import Recipe

SIZES: dict[str, Any] = {"clips_per_class": 1, "val_clips_per_class": 1, "frames": 8, "size": 16, "classes": 2}
CLIP = Clip.model_validate("4x1x8")
RECIPE = Recipe.model_validate(
    {"recipe": "r", "source": "none", "epochs": 1, "batch": 2, "optimizer": {"name": "sgd", "lr": 0.1}}
)
SEEN: dict[str, Any] = {"clip": CLIP, "inputs": (InputSpec(),), "mean": (0.5,) * 3, "std": (0.2,) * 3, "batch": 2}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data") / "motions"
    open_dataset("motions", root=root, split="train", **SIZES)
    return root


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The backends that clips were read with."""
    found: set[str] = set()
    read = clips.read_frames

    def spy(*arguments: Any, backend: str, **options: Any) -> Any:
        found.add(backend)
        return read(*arguments, backend="pyav", **options)

    monkeypatch.setattr(clips, "read_frames", spy)
    return found


def opened(root: Path, backend: str) -> VideoSet:
    return open_dataset("motions", root=root, split="train", decode=backend)


def test_loaders_and_lanes_read_with_the_backend_of_the_set(root: Path, asked: set[str]) -> None:
    for read in (
        lambda videos: list(train_batches(videos, **SEEN, augmentation=Augmentation(), seed=0, epoch=0)),
        lambda videos: list(view_batches(videos, **SEEN, cache_bytes=0)),
        lambda videos: time_stages(videos, clip=CLIP, augmentation=Augmentation(), clips=2),
    ):
        for backend in ("torchcodec", "nvdec"):  # the second finds nothing that the first kept in memory
            read(opened(root, backend))
        assert asked == {"torchcodec", "nvdec"}
        asked.clear()


def test_another_backend_is_another_training(root: Path) -> None:
    names = {
        identity(nn.Module(), RECIPE, opened(root, backend), clip=CLIP, seed=0, about={})
        for backend in ("auto", "auto", "torchcodec", "nvdec")
    }
    assert len(names) == 3


def test_an_unknown_backend_is_refused_before_anything_is_opened(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="did you mean: torchcodec"):
        open_dataset("kinetics", root=tmp_path / "nowhere", split="train", decode="torchcode")


def test_torchcodec_counts_frames_and_reads_shards(
    tmp_path: Path, write_video: Callable[..., Path], torchcodec_works: None
) -> None:
    path = write_video(tmp_path / "x.mp4", frames=6)
    with pytest.raises(MissingFrameError) as caught:
        read_frames(path, [6], backend="torchcodec")
    assert caught.value.frames == 6
    with tarfile.open(tmp_path / "s.tar", "w") as shard:
        shard.add(path, "a/x.mp4")
    member = read_frames(tmp_path / "s.tar/a/x.mp4", [3], backend="torchcodec")
    assert np.array_equal(member, read_frames(path, [3], backend="torchcodec"))
