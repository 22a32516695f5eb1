"""From what an annotation says to a VideoSet: every entry is found among the media, or named as missing."""

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.data.collection import Video, VideoSet, video_set
from bench.data.facts import VideoFacts
from bench.data.index import read_facts
from bench.data.media import Media, UnreadMediaWarning


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One annotated video; `names` are what it may be called among the media, without suffix, tried in order."""

    id: str
    labels: tuple[int, ...]
    names: tuple[str, ...]
    start_s: float | None = None
    end_s: float | None = None
    segment: tuple[int, int] | None = None
    frames: int | None = None
    fps: float | None = None


def assemble(
    name: str,
    split: str,
    entries: Iterable[Entry],
    *,
    classes: Sequence[str],
    media: Media,
    root: Path,
    is_multi_label: bool = False,
) -> VideoSet:
    """The split with what is there; what an index of `root` knows of the files goes along.

    Folders and shards that cannot be read are warned of, and their videos are missing.
    """
    if media.unread:
        more = f" (and {len(media.unread) - 1} more)" if len(media.unread) > 1 else ""
        warnings.warn(f"{media.unread[0]}{more}; videos there count as missing", UnreadMediaWarning, stacklevel=2)
    entries = list(entries)
    found = {entry.id: media.find(entry.names) for entry in entries}
    index = read_facts(root, {path for path in found.values() if path is not None})
    present = [_video(entry, path, index.get(path)) for entry in entries if (path := found[entry.id]) is not None]
    return video_set(
        name,
        split,
        classes=classes,
        videos=present,
        root=root,
        missing={entry.id: entry.labels for entry in entries if found[entry.id] is None},
        is_multi_label=is_multi_label,
    )


def _video(entry: Entry, path: Path, facts: VideoFacts | None) -> Video:
    return Video(
        id=entry.id,
        path=path,
        labels=entry.labels,
        start_s=entry.start_s,
        end_s=entry.end_s,
        segment=entry.segment,
        frames=facts.frames if facts else entry.frames,
        fps=entry.fps,
        sha256=facts.sha256 if facts else "",
        facts=facts,
    )
