"""Compare a split with its annotation: present, missing and damaged videos, per class and in total."""

from collections import Counter
from dataclasses import dataclass

from bench.data.collection import VideoSet


@dataclass(frozen=True, kw_only=True)
class ClassCount:
    """The videos of one class; a video with several labels counts in each of them."""

    name: str
    present: int
    missing: int
    damaged: int


@dataclass(frozen=True, kw_only=True)
class Verification:
    """The state of one split. `unindexed` videos exist, and nothing is known about their content.

    `notes` say how the annotation was read.
    """

    dataset: str
    split: str
    hash: str
    hash_covers: str
    present: int
    missing: tuple[str, ...]
    damaged: tuple[tuple[str, str], ...]
    unindexed: int
    classes: tuple[ClassCount, ...]
    notes: tuple[str, ...] = ()

    @property
    def is_complete(self) -> bool:
        """Whether there are videos, and all that are annotated are present, indexed and sound."""
        return not self.shortcomings()

    def shortcomings(self) -> list[str]:
        """Return what keeps the split from being complete, each with the remedy."""
        found = []
        if not self.present:
            found.append("no video is present: check root and the option videos")
        if self.missing:
            found.append(f"{_videos(len(self.missing))} missing, the first is {self.missing[0]}: get the files")
        if self.damaged:
            found.append(f"{_videos(len(self.damaged))} damaged, the first is {self.damaged[0][0]}: replace the files")
        if self.unindexed:
            found.append(f"{_videos(self.unindexed)} not indexed, so damage is unknown: run vbench data index")
        return found


def verify_videos(videos: VideoSet) -> Verification:
    """Count the videos of a split by what its index knows; `damaged` are pairs of id and what was found."""
    damaged = {v.id: v.facts.problem or v.facts.verdict for v in videos.videos if v.facts and not v.facts.is_ok}
    there, broken, absent = Counter[int](), Counter[int](), Counter[int]()
    for video in videos.videos:
        there.update(video.labels)
        if video.id in damaged:
            broken.update(video.labels)
    for labels in videos.missing.values():
        absent.update(labels)
    return Verification(
        dataset=videos.name,
        split=videos.split,
        hash=videos.hash,
        hash_covers=videos.hash_covers,
        present=len(videos.videos),
        missing=tuple(videos.missing),
        damaged=tuple(damaged.items()),
        unindexed=sum(video.facts is None for video in videos.videos),
        classes=tuple(
            ClassCount(name=name, present=there[label], missing=absent[label], damaged=broken[label])
            for label, name in enumerate(videos.classes)
        ),
        notes=videos.notes,
    )


def _videos(count: int) -> str:
    return "1 video is" if count == 1 else f"{count} videos are"
