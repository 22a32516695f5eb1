"""Draw small textured objects that move over a textured background, for the data set `motions`, and their true flow.

A scene is rendered once per direction with the same background, objects and speeds, so only the motion tells the
classes apart. A clip of one direction is the exact reverse of the clip of the opposite direction. Positions are whole
pixels, uniform over the picture and wrapped round, so a single frame has the same distribution for every class.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

AXES = ((0, 1), (1, 0), (1, 1), (-1, 1))  # (down, right) a step; direction 2k runs along axis k, 2k + 1 against it
SPEEDS_PX = (2, 3)
OBJECTS = (3, 4, 5)
ANY, GREY = (60, 195), (110, 145)  # the background stays near grey, or its colours would hide the motion


@dataclass(frozen=True, kw_only=True)
class MovingObject:
    """A patch (h, w, 3), the mask (h, w, 1) of its shape, and its speed in pixels a frame along each moving axis."""

    patch: NDArray[np.uint8]
    mask: NDArray[np.bool_]
    speed_px: int


@dataclass(frozen=True, kw_only=True)
class Scene:
    """A background (H, W, 3) and objects; `starts` (axes, objects, 2) is where each object is at frame 0."""

    background: NDArray[np.uint8]
    objects: tuple[MovingObject, ...]
    starts: NDArray[np.int64]


def draw_scene(seed: tuple[int, ...], *, size: int) -> Scene:
    """Return the scene of this seed, `size` pixels square."""
    random = np.random.default_rng(seed)
    objects = tuple(_draw_object(random, size=size) for _ in range(random.choice(OBJECTS)))
    starts = random.integers(0, size, (len(AXES), len(objects), 2))
    return Scene(background=_texture(random, size=size, contrast=8, colours=GREY), objects=objects, starts=starts)


def film(scene: Scene, direction: int, *, frames: int) -> NDArray[np.uint8]:
    """Return the scene with every object moving in `direction` (0 to 7, see `AXES`), uint8 RGB (T, H, W, 3)."""
    axis, is_reversed = divmod(direction, 2)
    pictures = np.stack([_picture(scene, axis=axis, time=time) for time in range(frames)])
    return pictures[::-1] if is_reversed else pictures


def flow_of_film(scene: Scene, direction: int, *, frames: int) -> NDArray[np.float32]:
    """Return the motion (x, y) in pixels from frame i to frame i + 1, (T - 1, H, W, 2); 0 in the background."""
    axis, is_reversed = divmod(direction, 2)
    fields = np.stack([_field(scene, axis=axis, time=time) for time in range(frames)])
    return -fields[::-1][:-1] if is_reversed else fields[:-1]


def _picture(scene: Scene, *, axis: int, time: int) -> NDArray[np.uint8]:
    picture = scene.background.copy()
    size, (down, right) = picture.shape[0], AXES[axis]
    for thing, (top, left) in zip(scene.objects, scene.starts[axis], strict=True):
        steps, side = thing.speed_px * time, np.arange(thing.patch.shape[0])
        rows, columns = (top + down * steps + side) % size, (left + right * steps + side) % size
        where = np.ix_(rows, columns)
        picture[where] = np.where(thing.mask, thing.patch, picture[where])
    return picture


def _field(scene: Scene, *, axis: int, time: int) -> NDArray[np.float32]:
    """Return speeds (H, W, 2) at one time of the film along `axis`; objects in front hide those behind."""
    size, (down, right) = scene.background.shape[0], AXES[axis]
    field = np.zeros((size, size, 2), dtype=np.float32)
    for thing, (top, left) in zip(scene.objects, scene.starts[axis], strict=True):
        steps, side = thing.speed_px * time, np.arange(thing.patch.shape[0])
        where = np.ix_((top + down * steps + side) % size, (left + right * steps + side) % size)
        speed = np.array([right, down], dtype=np.float32) * thing.speed_px
        field[where] = np.where(thing.mask, speed, field[where])
    return field


def _draw_object(random: np.random.Generator, *, size: int) -> MovingObject:
    side = int(random.integers(size // 4, size // 3 + 1))
    rows, columns = np.mgrid[:side, :side] - (side - 1) / 2
    is_disc = bool(random.integers(2))
    mask = rows**2 + columns**2 <= (side / 2) ** 2 if is_disc else np.ones((side, side), dtype=np.bool_)
    patch = _texture(random, size=side, contrast=45, colours=ANY)
    return MovingObject(patch=patch, mask=mask[..., None], speed_px=int(random.choice(SPEEDS_PX)))


def _texture(random: np.random.Generator, *, size: int, contrast: float, colours: tuple[int, int]) -> NDArray[np.uint8]:
    """Return smooth noise (size, size, 3) around a random colour of the range `colours`, without a direction."""
    noise = random.standard_normal((size, size, 1))
    for axis in (0, 1, 0, 1):
        noise = np.roll(noise, -1, axis=axis) / 4 + noise / 2 + np.roll(noise, 1, axis=axis) / 4
    texture = random.uniform(*colours, 3) + contrast * random.uniform(0.6, 1.4, 3) * noise / noise.std()
    return np.asarray(texture.round().clip(0, 255), dtype=np.uint8)
