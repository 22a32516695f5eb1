"""What an annotation names against what is there: present, missing, damaged, per class and in all."""

from collections import Counter
from dataclasses import dataclass

from bench.data.collection import VideoSet


@dataclass(frozen=True, kw_only=True)
class ClassCount:
    """One class's videos; a video with several labels counts in each of them."""

    name: str
    present: int
    missing: int
    damaged: int


@dataclass(frozen=True, kw_only=True)
class Verification:
    """The state of one split. `unindexed` videos are there, and nothing is known of their content."""

    dataset: str
    split: str
    hash: str
    hash_covers: str
    present: int
    missing: tuple[str, ...]
    damaged: tuple[tuple[str, str], ...]
    unindexed: int
    classes: tuple[ClassCount, ...]

    @property
    def is_complete(self) -> bool:
        """Everything annotated is there, indexed and sound, and that is not nothing."""
        return self.present > 0 and not (self.missing or self.damaged or self.unindexed)


def verify_videos(videos: VideoSet) -> Verification:
    """Counts by what the index knows; `damaged` are (id, what was found)."""
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
    )
