"""Changes of the frames of a clip: their order, and faults of a stream such as lost or frozen frames."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from bench.core.registry import register_change

if TYPE_CHECKING:
    from numpy.random import Generator

    from bench.data.frame_sampling import Part


@register_change("reversed", stage="order")
def reversed_order(frames: Sequence[int], *, part: "Part", value: None, random: "Generator") -> tuple[int, ...]:
    """The frames of the clip in reverse order."""
    return tuple(frames[::-1])


@register_change("shuffled", stage="order")
def shuffled_order(frames: Sequence[int], *, part: "Part", value: None, random: "Generator") -> tuple[int, ...]:
    """The frames of the clip in random order."""
    return tuple(frames[place] for place in random.permutation(len(frames)))


@register_change("frozen", stage="order", default=1, between=(0, 1))
def frozen_stream(frames: Sequence[int], *, part: "Part", value: float, random: "Generator") -> tuple[int, ...]:
    """The picture stands still for the last VALUE of the clip; with 1 the whole clip is its first frame."""
    moving = max(1, len(frames) - round(value * len(frames)))
    return (*frames[:moving], *[frames[moving - 1]] * (len(frames) - moving))


@register_change("single_frame", stage="order")
def single_frame(frames: Sequence[int], *, part: "Part", value: None, random: "Generator") -> tuple[int, ...]:
    """The middle frame of the clip in place of every frame."""
    return (frames[len(frames) // 2],) * len(frames)


@register_change("drop_frames", stage="order", default=0.3, between=(0, 1), severities=(0.1, 0.2, 0.3, 0.5, 0.7))
def dropped_frames(frames: Sequence[int], *, part: "Part", value: float, random: "Generator") -> tuple[int, ...]:
    """A share VALUE of the video's frames is lost at random; a lost frame shows the last one before it that arrived."""
    arrived = 0
    shown = []
    for number, draw in enumerate(random.random(part.frames)):
        arrived = number if draw >= value else arrived
        shown.append(part.first + arrived)
    return tuple(shown[frame - part.first] for frame in frames)


@register_change("fps", stage="order", default=0.5, between=(0.01, 1), severities=(0.75, 0.5, 0.33, 0.25, 0.125))
def lower_rate(frames: Sequence[int], *, part: "Part", value: float, random: "Generator") -> tuple[int, ...]:
    """The video at VALUE of its frame rate: each kept frame is shown until the next one."""
    kept = [int(int((frame - part.first) * value + 1e-6) / value + 1 - 1e-6) for frame in frames]
    return tuple(part.first + min(number, part.frames - 1) for number in kept)
