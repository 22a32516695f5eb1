"""Ratios of the loader: against the bare decoder, frame folders against Pillow, quick files against the originals.

python benchmarks/loader.py FOLDER     # a folder of video files, such as a few Kinetics clips
"""

import argparse
import random
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from bench.data.collection import Video, VideoSet, video_set
from bench.data.decode import probe, read_frames
from bench.data.frame_folder import list_frames
from bench.data.lanes import time_lanes
from bench.data.prepare import prepare_frames, prepare_reencoded
from bench.data.transforms import Augmentation
from bench.schema import Clip

CLIP = Clip.model_validate("16x1x112")
ROUNDS = 3


def main() -> None:
    """Print one ratio a line, with what it should be."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    originals = _videos(parser.parse_args().folder)
    with tempfile.TemporaryDirectory() as scratch:
        _compare(originals, Path(scratch))


def _compare(originals: VideoSet, scratch: Path) -> None:
    assert originals.root is not None
    prepare_reencoded(originals.root, scratch / "quick")
    prepare_frames(originals.root, scratch / "frames")
    quick = _videos(scratch / "quick")
    folders = [path for path in (scratch / "frames").rglob("*") if any(path.glob("image_*.jpg"))]
    slow_s, quick_s = _seconds(lambda: _read_clips(originals)), _seconds(lambda: _read_clips(quick))
    print(f"re-encoded over originals, clips/s: {slow_s / quick_s:.2f} (at least 4)")
    ours_s, pillow_s = (
        _seconds(lambda read=read: _read_folders(folders, read)) for read in (read_frames, _with_pillow)
    )
    print(f"frame folders over Pillow, at {CLIP.height} pixels, clips/s: {pillow_s / ours_s:.2f} (at least 2.5)")
    augmentation = Augmentation(crop="random_resized", flip=0.5)
    times = time_lanes(originals, clip=CLIP, augmentation=augmentation, clips=40, clock=time.process_time)
    decode_ms = times.ms["decode"] or 0.0
    print(f"one worker over the bare decoder, clips/s: {times.clips_per_s * decode_ms / 1000:.2f} (at least 0.95)")
    print("ms a clip:", ", ".join(f"{lane} {ms:.2f}" for lane, ms in times.ms.items() if ms is not None))


def _videos(folder: Path) -> VideoSet:
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    facts = {path: probe(path) for path in files}
    videos = [Video(id=str(path), path=path, labels=(0,), facts=facts[path]) for path in files if facts[path].is_ok]
    return video_set("folder", "train", classes=["any"], videos=videos, root=folder)


def _read_clips(videos: VideoSet) -> None:
    draw = random.Random(0)
    for video in videos.videos:
        assert video.facts is not None
        start = draw.randrange(max(1, video.facts.frames - CLIP.frames))
        indices = [min(start + i, video.facts.frames - 1) for i in range(CLIP.frames)]
        read_frames(video.path, indices, facts=video.facts)


def _read_folders(folders: list[Path], read: Callable[..., np.ndarray]) -> None:
    for folder in folders:
        frames = list_frames(folder).frames
        read(folder, [i * frames // CLIP.frames for i in range(CLIP.frames)], size=CLIP.height)


def _with_pillow(folder: Path, indices: list[int], *, size: int) -> np.ndarray:
    from PIL import Image

    images = []
    for index in indices:
        with Image.open(folder / f"image_{index + 1:05d}.jpg") as image:
            width, height = (round(side * size / min(image.size)) for side in image.size)
            images.append(np.asarray(image.convert("RGB").resize((width, height), Image.Resampling.BILINEAR)))
    return np.stack(images)


def _seconds(work: Callable[[], None]) -> float:
    """CPU seconds of the quickest of some rounds: other processes must not count."""
    best = float("inf")
    for _ in range(ROUNDS):
        started = time.process_time()
        work()
        best = min(best, time.process_time() - started)
    return best


if __name__ == "__main__":
    main()
