"""Clips out of files from `vbench data reencode` against clips out of the originals.

    python benchmarks/reencoded.py [FOLDER] > benchmarks/reencoded.md      # about three minutes

FOLDER holds video files, such as a few clips of Kinetics; without it, clips are made up: 10 s of 340 x 256, H.264, key
frames up to 250 apart. A clip is 16 frames from a random place, read by `bench.read_frames` at full size with the facts
that an index keeps, on one thread; both sides read the same places. CPU seconds, since nothing else is waited for.
"""

import argparse
import random
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from turns import environment_line, long_clips, sound_videos, take_turns

from bench.data.collection import VideoSet
from bench.data.decode import read_frames
from bench.data.prepare import prepare_reencoded

FRAMES, CLIPS = 16, 8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--rounds", type=int, default=9)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        originals = asked.folder or long_clips(Path(scratch, "videos"))
        prepare_reencoded(originals, Path(scratch, "quick"))
        _print_table(sound_videos(originals), sound_videos(Path(scratch, "quick")), rounds=asked.rounds)


def _print_table(originals: VideoSet, quick: VideoSet, *, rounds: int) -> None:
    works = {"originals": _reader(originals), "re-encoded": _reader(quick)}
    print(environment_line(), end="\n\n")
    turns = take_turns(works, rounds=rounds, clock=time.thread_time)
    clips = CLIPS * len(originals)
    print(f"{FRAMES} frames from random places, {clips} clips a round, {rounds} rounds in turns. Wanted: 4.\n")
    print("| videos | MB | ms a clip | re-encoded over originals, clips/s: median (quartiles) |")
    print("|---|---|---|---|")
    print(f"| originals | {_megabytes(originals)} | {turns.ms('originals', each=clips)} | 1 |")
    ratio = turns.ratio("originals", "re-encoded")
    print(f"| re-encoded | {_megabytes(quick)} | {turns.ms('re-encoded', each=clips)} | {ratio} |")


def _reader(videos: VideoSet) -> Callable[[], None]:
    """Reads the next clips of every video; the places depend on how often it was called alone."""
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
