"""What a loader's worker is asked for: the videos of one batch, and those to take where not one of them can be read."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from bench.data.collection import Video, VideoSet

SPARES = 8
Placed = tuple[tuple[int, Video], ...]


@dataclass(frozen=True, kw_only=True)
class Order:
    """The videos of one batch with their positions, and `spare` ones."""

    videos: Placed
    spare: Placed = ()

    @classmethod
    def of(cls, videos: VideoSet, own: Sequence[int], *, spare: Sequence[int] = ()) -> "Order":
        placed, spares = (tuple((place, videos.videos[place]) for place in places) for places in (own, spare))
        return cls(videos=placed, spare=spares)


def spares_behind(batches: Sequence[Sequence[int]]) -> list[list[int]]:
    """For each batch the positions that follow it, at most SPARES, round to the first ones again."""
    order = [position for batch in batches for position in batch]
    ends = accumulate(len(batch) for batch in batches)
    others = (len(order) - len(batch) for batch in batches)
    return [
        [order[(end + i) % len(order)] for i in range(min(SPARES, other))]
        for end, other in zip(ends, others, strict=True)
    ]
