"""The true optical flow of the films of `moving_objects`: nothing is estimated, so no library is needed to have it."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.data.moving_objects import AXES, Scene
from bench.data.prepare_flow import as_bytes, write_flow_pictures


def flow_of_film(scene: Scene, direction: int, *, frames: int) -> NDArray[np.float32]:
    """Pixels that each point of frame i moves until frame i + 1, (T - 1, H, W, 2) as x and y; the background rests."""
    axis, is_reversed = divmod(direction, 2)
    fields = np.stack([_field(scene, axis=axis, time=time) for time in range(frames)])
    return -fields[::-1][:-1] if is_reversed else fields[:-1]


def write_flow(folder: Path, scene: Scene, direction: int, *, frames: int) -> None:
    """Write that flow into `folder` in the form of `vbench data flow`."""
    write_flow_pictures(folder, iter(as_bytes(flow_of_film(scene, direction, frames=frames))))


def _field(scene: Scene, *, axis: int, time: int) -> NDArray[np.float32]:
    """Speeds (H, W, 2) at one moment of the film that runs along `axis`; what lies in front hides what is behind."""
    size, (down, right) = scene.background.shape[0], AXES[axis]
    field = np.zeros((size, size, 2), dtype=np.float32)
    for thing, (top, left) in zip(scene.objects, scene.starts[axis], strict=True):
        steps, side = thing.speed_px * time, np.arange(thing.patch.shape[0])
        where = np.ix_((top + down * steps + side) % size, (left + right * steps + side) % size)
        speed = np.array([right, down], dtype=np.float32) * thing.speed_px
        field[where] = np.where(thing.mask, speed, field[where])
    return field
