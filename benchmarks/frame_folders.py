"""Compares reading folders of JPEG frames with `bench.read_frames` and with Pillow.

    python benchmarks/frame_folders.py [FOLDER] > benchmarks/frame_folders.md      # about a minute

FOLDER holds video files, such as a few clips of Kinetics; without it, clips are generated. `vbench data frames`
converts them to folders at short side 240. Then 16 frames, evenly over the video, are read as one array (T, H, W, 3).
Pillow opens each file, converts it to RGB, resizes it to the same size with BILINEAR (the filter that vbench uses too:
the arrays differ by less than one grey level) and stacks. Files are in the page cache. `one thread` compares CPU
seconds of one thread each. `all threads` compares elapsed seconds of `read_frames` as it is called by default with
Pillow on a pool of as many threads. `all over one` compares with a caller that uses Pillow in a loop.
"""

import argparse
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from turns import environment_line, long_clips, take_turns

from bench.data.decode import read_frames
from bench.data.frame_folder import list_frames
from bench.data.prepare import prepare_frames

FRAMES = 16
SIZES = (112, 224, None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        videos = options.folder or long_clips(Path(scratch, "videos"))
        prepare_frames(videos, Path(scratch, "frames"))
        folders = [path for path in Path(scratch, "frames").rglob("*") if any(path.glob("image_*.jpg"))]
        _print_table(folders, rounds=options.rounds)


def _print_table(folders: list[Path], *, rounds: int) -> None:
    threads = torch.get_num_threads()
    print(environment_line(), end="\n\n")
    print(
        f"16 frames from each of {len(folders)} folders; Pillow's time over that of `read_frames`, median (quartiles)"
    )
    print(f"of {rounds} rounds in turns; {threads} threads in the last two columns. Target: 2.5.\n")
    print("| size | read_frames, ms a clip, one thread | one thread | all threads | all over one |")
    print("|---|---|---|---|---|")
    for size in SIZES:
        _check_equal(folders[0], size)
        torch.set_num_threads(1)
        works = {"ours": partial(_ours, folders, size), "pillow": partial(_pillow, folders, size)}
        alone = take_turns(works, rounds=rounds, clock=time.thread_time)
        torch.set_num_threads(threads)
        works["pillow, pool"] = partial(_pillow, folders, size, threads=threads)
        together = take_turns(works, rounds=rounds)
        each_ms = alone.ms("ours", each=len(folders))
        ratios = [
            alone.ratio("pillow", "ours"),
            together.ratio("pillow, pool", "ours"),
            together.ratio("pillow", "ours"),
        ]
        print(f"| {size or 'as stored'} | {each_ms} | {' | '.join(ratios)} |", flush=True)


def _indices(folder: Path) -> list[int]:
    frames = list_frames(folder).frames
    return [i * frames // FRAMES for i in range(FRAMES)]


def _ours(folders: list[Path], size: int | None) -> list[NDArray[np.uint8]]:
    return [read_frames(folder, _indices(folder), size=size) for folder in folders]


def _pillow(folders: list[Path], size: int | None, *, threads: int = 1) -> list[NDArray[np.uint8]]:
    def image(file: Path) -> NDArray[np.uint8]:
        return _pillow_image(file, size)

    files = [[folder / f"image_{index + 1:05d}.jpg" for index in _indices(folder)] for folder in folders]
    if threads == 1:
        return [np.stack([image(file) for file in each]) for each in files]
    with ThreadPoolExecutor(threads) as pool:
        return [np.stack(list(pool.map(image, each))) for each in files]


def _pillow_image(file: Path, size: int | None) -> NDArray[np.uint8]:
    with Image.open(file) as image:
        rgb = image.convert("RGB")
        if size is not None:
            width, height = (round(side * size / min(image.size)) for side in image.size)
            rgb = rgb.resize((width, height), Image.Resampling.BILINEAR)
        return np.asarray(rgb)


def _check_equal(folder: Path, size: int | None) -> None:
    difference = np.abs(_ours([folder], size)[0].astype(int) - _pillow([folder], size)[0]).mean()
    if difference >= 1:
        raise SystemExit(f"at size {size} the two readers differ by {difference:.2f} grey levels")


if __name__ == "__main__":
    main()
