"""Choose the frames of clips. Pure arithmetic; randomness is passed in as a generator.

Frame numbers count from the first frame of the video. A clip of stride s takes every s-th frame; a clip given in fps
takes the frame that is shown at each of its own times.
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from bench.core.errors import InputError
from bench.core.input_protocol import Placement, Short, ViewSampling
from bench.core.schema import Clip, SlidingWindows

Sampling = Literal["random", "centre", "dense", "uniform", "segments"]

_ROUNDING = 1e-6  # so that 29.97 over 14.985 steps by 2 and not by 1.9999999


@dataclass(frozen=True, kw_only=True)
class Part:
    """The frames of a video that may be used: `frames` of them from `first` on; `fps` is None if it is unknown."""

    first: int = 0
    frames: int
    fps: float | None = None


def generator_of(seed: int, *, epoch: int, sample: int) -> np.random.Generator:
    """Return the generator of one sample in one epoch. It does not depend on the worker or rank that uses it."""
    return np.random.default_rng((seed, epoch, sample))


def sample_clip(
    part: Part, clip: Clip, *, sampling: Sampling, short: Short, random: np.random.Generator
) -> tuple[int, ...]:
    """Return the frame numbers of one clip.

    `random`: one block anywhere inside the part; `centre`: the block in its middle; `dense`: a block that starts
    anywhere and wraps round the end; `uniform`: the middles of `clip.frames` equal sections (TSN, Wang et al., 2016);
    `segments`: a random frame of each such section. A block longer than the part loops, or stays on the last frame
    (`clamp`).
    """
    if sampling in ("uniform", "segments"):
        return _of_sections(part, clip.frames, random=random if sampling == "segments" else None)
    step = frame_step(clip, part)
    room = part.frames - _extent(clip, step)
    if sampling == "dense":
        return _block(part, clip, step, start=int(random.integers(part.frames)), short="loop")
    start = room // 2 if sampling == "centre" else int(random.integers(room + 1)) if room > 0 else 0
    return _block(part, clip, step, start=max(0, start), short=short)


def view_sampling(sampling: Sampling) -> ViewSampling:
    """Return how views are sampled for a model that was trained on clips of `sampling`."""
    return "sections" if sampling in ("uniform", "segments") else "blocks"


def sample_views(
    part: Part,
    clip: Clip,
    *,
    views: int | SlidingWindows,
    sampling: ViewSampling = "blocks",
    placement: Placement = "ends",
    short: Short,
) -> tuple[tuple[int, ...], ...]:
    """Return the frame numbers of `views` clips.

    `blocks` are placed by `placement` (see `_starts`). `sections` takes one frame of each of `clip.frames` equal
    sections: the middles for one view (TSN, Wang et al., 2016); further views step evenly through the sections, so that
    two take beginnings and middles (TSM, Lin et al., 2019). Sliding windows are blocks in any case.
    """
    step = frame_step(clip, part) if sampling == "blocks" or isinstance(views, SlidingWindows) else 1.0
    if isinstance(views, SlidingWindows):
        return _windows(part, clip, step, every=views.every, short=short)
    if sampling == "sections":
        places = sorted((views + 2 * i) % (2 * views) for i in range(views))
        return tuple(_at_place_of_sections(part, clip.frames, place, of=2 * views) for place in places)
    return tuple(
        _block(part, clip, step, start=start, short=short)
        for start in _starts(part, clip, step, views=views, placement=placement)
    )


def _starts(part: Part, clip: Clip, step: float, *, views: int, placement: Placement) -> list[int]:
    """The first frames of `views` blocks; the zoos place them differently.

    `ends`: evenly from the beginning of the part to its end, each rounded down; a single one lies in the middle.
    The others count a whole step after the last frame as part of the block, so that the last block may end earlier:
    `rounded` rounds to the nearest frame (MMAction2), `offset` rounds the distance of two blocks down (PySlowFast's
    MViT), `starts` puts blocks at the beginnings of `views` equal stretches, a single one at the first frame
    (PySlowFast), `middles` into their middles (Video Swin).
    """
    if placement == "ends":
        room = max(0, part.frames - _extent(clip, step))
        return [room // 2] if views == 1 else [i * room // (views - 1) for i in range(views)]
    spare = max(0.0, part.frames - clip.frames * step)
    if placement == "starts":
        return [math.floor(spare * i / views + _ROUNDING) for i in range(views)]
    if placement == "middles":
        stretch = (spare + 1) / views
        return [math.floor(stretch / 2 + stretch * i + _ROUNDING) for i in range(views)]
    if views == 1:
        return [math.floor(spare / 2)]
    if placement == "offset":
        return [i * math.floor(spare / (views - 1)) for i in range(views)]
    return [round(spare / (views - 1) * i) for i in range(views)]


def _windows(part: Part, clip: Clip, step: float, *, every: int, short: Short) -> tuple[tuple[int, ...], ...]:
    """Blocks that begin every `every` frames of the clip; the last is filled with its own frames up to the end."""
    windows = []
    for number in range(part.frames):
        start = math.floor(number * every * step + _ROUNDING)
        left = part.frames - start
        if left <= 0:
            break
        rest = Part(first=part.first + start, frames=left, fps=part.fps)
        windows.append(_block(rest, clip, step, start=0, short=short))
        if left < _extent(clip, step):
            break
    return tuple(windows)


def frame_step(clip: Clip, part: Part) -> float:
    """Return the video frames per clip frame; InputError for a clip in fps of a video whose rate is unknown."""
    if clip.fps is None:
        return float(clip.stride or 1)
    if not part.fps:
        raise InputError(
            f"the clip {clip} is given in frames per second and the rate of the video is not known; "
            "index the data set, put fps into its annotation, or give the clip a stride"
        )
    return part.fps / clip.fps


def part_between(frames: int, fps: float | None, *, start_s: float | None, end_s: float | None) -> Part:
    """Return the part from `start_s` to `end_s` of a video of `frames` at a constant `fps`; at least one frame."""
    if start_s is None and end_s is None:
        return Part(frames=frames, fps=fps)
    if not fps:
        raise InputError(
            "a part given in seconds needs the rate of the video; put fps into its annotation, or index the data set"
        )
    first = min(max(0, round((start_s or 0.0) * fps)), frames - 1)
    end = frames if end_s is None else min(frames, max(first + 1, round(end_s * fps)))
    return Part(first=first, frames=end - first, fps=fps)


def _extent(clip: Clip, step: float) -> int:
    """Return the number of frames from the first to the last of a block, both included."""
    return math.floor((clip.frames - 1) * step + _ROUNDING) + 1


def _block(part: Part, clip: Clip, step: float, *, start: int, short: Short) -> tuple[int, ...]:
    offsets = [start + math.floor(i * step + _ROUNDING) for i in range(clip.frames)]
    if short == "loop":
        return tuple(part.first + offset % part.frames for offset in offsets)
    return tuple(part.first + min(offset, part.frames - 1) for offset in offsets)


def _of_sections(part: Part, sections: int, *, random: np.random.Generator | None) -> tuple[int, ...]:
    within = np.full(sections, 0.5) if random is None else random.random(sections)
    offsets = np.floor((np.arange(sections) + within) * part.frames / sections).astype(int)
    return tuple(part.first + min(int(offset), part.frames - 1) for offset in offsets)


def _at_place_of_sections(part: Part, sections: int, place: int, *, of: int) -> tuple[int, ...]:
    """Return the frame at `place / of` of each section; in integers, because floats round at section borders."""
    return tuple(part.first + (k * of + place) * part.frames // (sections * of) for k in range(sections))
