"""The loader with one worker against the bare decoder: clips/s of the same clips, in turns.

    python benchmarks/loader.py [FOLDER] > benchmarks/loader.md      # about five minutes

FOLDER holds video files, such as a few clips of Kinetics; without it, clips are made up. They are read as they are,
re-encoded by `vbench data reencode`, and as the JPEG folders of `vbench data frames`. The bare decoder reads the frames
of each clip with `read_frames` in one process, on one thread, and throws them away. The loader gives batches of
normalised clips at 112 pixels, cropped at random and mirrored, from one worker process; its first batch does not
count, since it waits for the process to start. A worker decodes one video while it transforms another, so that it can
use a part of a second core.
"""

import argparse
import tempfile
import time
from functools import partial
from pathlib import Path
from statistics import median, quantiles

import torch
from turns import environment_line, long_clips, sound_videos

from bench.core.schema import Clip
from bench.data.clips import ClipReader
from bench.data.collection import VideoSet
from bench.data.loading import epoch_order, train_batches
from bench.data.prepare import prepare_frames, prepare_reencoded
from bench.data.sampling import Part, generator_of, sample_clip
from bench.data.transforms import Augmentation

CLIP = Clip.model_validate("16x1x112")
AUGMENTATION = Augmentation(crop="random_resized", flip=0.5)
BATCH, BATCHES, SEED = 16, 6, 0


class Rgb:
    """What a network of one plain input takes."""

    channels, modality = 3, "rgb"

    def take(self, clip_BCTHW: torch.Tensor) -> torch.Tensor:
        return clip_BCTHW


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        originals = asked.folder or long_clips(Path(scratch, "videos"))
        prepare_reencoded(originals, Path(scratch, "quick"))
        prepare_frames(originals, Path(scratch, "frames"))
        kinds = {
            "as they are": originals,
            "re-encoded": Path(scratch, "quick"),
            "JPEG folders": Path(scratch, "frames"),
        }
        _print_table(kinds, rounds=asked.rounds)


def _print_table(kinds: dict[str, Path], *, rounds: int) -> None:
    print(environment_line(), end="\n\n")
    print(f"Loader (one worker, batches of {BATCH}) over bare decoder, clips/s: median (quartiles) of {rounds} rounds.")
    print("Wanted: 0.95.\n")
    print("| videos | bare decoder, clips/s | loader, clips/s | loader over decoder |")
    print("|---|---|---|---|")
    for kind, folder in kinds.items():
        videos = sound_videos(folder)
        videos = sound_videos(folder, copies=-(-BATCH * BATCHES // len(videos)))
        pairs = [(_bare(videos), _loaded(videos)) for _ in range(rounds)]
        low, middle, high = quantiles([loaded / bare for bare, loaded in pairs], n=4)
        bare, loaded = (median(rates) for rates in zip(*pairs, strict=True))
        print(f"| {kind} | {bare:.1f} | {loaded:.1f} | {middle:.2f} ({low:.2f} to {high:.2f}) |", flush=True)


def _bare(videos: VideoSet) -> float:
    """Clips/s of decoding alone what the loader decodes after its first batch."""
    reader = ClipReader(size=AUGMENTATION.decode_size(CLIP))
    orders = epoch_order(len(videos), batch=BATCH, seed=SEED, epoch=0, rank=0, world=1)[1:BATCHES]
    positions = [position for order in orders for position in order]
    started = time.perf_counter()
    for position in positions:
        reader.read(videos.videos[position], partial(_choose, position))
    return len(positions) / (time.perf_counter() - started)


def _choose(position: int, part: Part) -> list[tuple[int, ...]]:
    random = generator_of(SEED, epoch=0, sample=position)
    return [sample_clip(part, CLIP, sampling=AUGMENTATION.sampling, short=AUGMENTATION.short, random=random)]


def _loaded(videos: VideoSet) -> float:
    """Clips/s of the loader from the end of its first batch on."""
    batches = train_batches(
        videos,
        clip=CLIP,
        inputs=(Rgb(),),
        augmentation=AUGMENTATION,
        mean=(0.45,) * 3,
        std=(0.225,) * 3,
        batch=BATCH,
        seed=SEED,
        epoch=0,
        workers=1,
    )
    next(batches)
    started = time.perf_counter()
    for _ in range(BATCHES - 1):
        next(batches)
    return BATCH * (BATCHES - 1) / (time.perf_counter() - started)


if __name__ == "__main__":
    main()
