"""Compares reading clips from files of `vbench data reencode` with reading them from the originals.

    python benchmarks/reencoded.py [FOLDER] > benchmarks/reencoded.md      # about three minutes

FOLDER holds video files, such as a few clips of Kinetics; without it, clips are generated: 10 s of 340 x 256, H.264,
key frames up to 250 apart. They are re-encoded at their own size and at short side 256, as Kinetics usually is.
A clip is 16 consecutive frames from a random position, read at the file's size by `bench.read_frames` with the facts of
an index, on one thread; all variants read the same positions. Times are CPU seconds, because nothing waits.
"""

import argparse
import random
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from turns import environment_line, long_clips, readable_videos, take_turns

from bench.data.collection import VideoSet
from bench.data.decode import read_frames
from bench.data.prepare import prepare_reencoded

FRAMES, CLIPS = 16, 8
ORIGINALS = "originals"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        originals = options.folder or long_clips(Path(scratch, "videos"))
        sets = {ORIGINALS: readable_videos(originals)}
        for name, short_side in {"re-encoded": None, "re-encoded, short side 256": 256}.items():
            prepare_reencoded(originals, Path(scratch, name), short_side=short_side)
            sets[name] = readable_videos(Path(scratch, name))
        _print_table(sets, rounds=options.rounds)


def _print_table(sets: Mapping[str, VideoSet], *, rounds: int) -> None:
    print(environment_line(), end="\n\n")
    works = {name: _reader(videos) for name, videos in sets.items()}
    turns = take_turns(works, rounds=rounds, clock=time.thread_time)
    clips = CLIPS * len(sets[ORIGINALS])
    print(f"{FRAMES} frames from random positions, {clips} clips a round, {rounds} rounds in turns. Target: 4.\n")
    print("| videos | MB | ms a clip | re-encoded over originals, clips/s: median (quartiles) |")
    print("|---|---|---|---|")
    for name, videos in sets.items():
        ratio = "1" if name == ORIGINALS else turns.ratio(ORIGINALS, name)
        print(f"| {name} | {_megabytes(videos)} | {turns.ms(name, each=clips)} | {ratio} |")


def _reader(videos: VideoSet) -> Callable[[], None]:
    """Return a function that reads the next clips of every video; positions depend only on the number of calls."""
    draw = random.Random(0)

    def read() -> None:
        for video in videos.videos:
            assert video.facts is not None
            for _ in range(CLIPS):
                start = int(draw.random() * max(1, video.facts.frames - FRAMES))
                last = video.facts.frames - 1
                read_frames(video.path, [min(start + i, last) for i in range(FRAMES)], facts=video.facts)

    return read


def _megabytes(videos: VideoSet) -> str:
    return f"{sum(video.facts.bytes for video in videos.videos if video.facts) / 1e6:.1f}"


if __name__ == "__main__":
    main()
