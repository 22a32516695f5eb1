"""Compares the loader with one worker to the decoder alone: clips/s of the same clips, in turn.

    python benchmarks/loader.py [FOLDER] > benchmarks/loader.md      # about five minutes

FOLDER holds video files, such as a few clips of Kinetics; without it, clips are generated. They are read unchanged,
re-encoded by `vbench data reencode`, and as JPEG folders of `vbench data frames`. The decoder alone reads the frames of
each clip with `read_frames` in one process on one thread and drops them. The loader returns batches of normalised clips
at 112 pixels, randomly cropped and flipped, from one worker process; its first batch is not timed, because it waits for
the process to start. A worker decodes one video while it transforms another, so it can use part of a second core.
"""

import argparse
import tempfile
import time
from functools import partial
from pathlib import Path
from statistics import median, quantiles

import torch
from turns import environment_line, long_clips, readable_videos

from bench.core.schema import Clip
from bench.data.clip_batches import epoch_order, train_batches
from bench.data.clips import ClipReader
from bench.data.collection import VideoSet
from bench.data.frame_sampling import Part, generator_of, sample_clip
from bench.data.prepare import prepare_frames, prepare_reencoded
from bench.data.transforms import Augmentation

CLIP = Clip.model_validate("16x1x112")
AUGMENTATION = Augmentation(crop="random_resized", flip=0.5)
BATCH, BATCHES, SEED = 16, 6, 0


class Rgb:
    """The input of a model that takes one RGB clip."""

    channels, modality = 3, "rgb"

    def take(self, clip_BCTHW: torch.Tensor) -> torch.Tensor:
        return clip_BCTHW


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        originals = options.folder or long_clips(Path(scratch, "videos"))
        prepare_reencoded(originals, Path(scratch, "quick"))
        prepare_frames(originals, Path(scratch, "frames"))
        kinds = {
            "unchanged": originals,
            "re-encoded": Path(scratch, "quick"),
            "JPEG folders": Path(scratch, "frames"),
        }
        _print_table(kinds, rounds=options.rounds)


def _print_table(kinds: dict[str, Path], *, rounds: int) -> None:
    print(environment_line(), end="\n\n")
    print(f"Loader (one worker, batches of {BATCH}) over decoder, clips/s: median (quartiles) of {rounds} rounds.")
    print("Target: 0.95.\n")
    print("| videos | decoder alone, clips/s | loader, clips/s | loader over decoder |")
    print("|---|---|---|---|")
    for kind, folder in kinds.items():
        videos = readable_videos(folder)
        videos = readable_videos(folder, copies=-(-BATCH * BATCHES // len(videos)))
        pairs = [(_bare(videos), _loaded(videos)) for _ in range(rounds)]
        low, middle, high = quantiles([loaded / bare for bare, loaded in pairs], n=4)
        bare, loaded = (median(rates) for rates in zip(*pairs, strict=True))
        print(f"| {kind} | {bare:.1f} | {loaded:.1f} | {middle:.2f} ({low:.2f} to {high:.2f}) |", flush=True)


def _bare(videos: VideoSet) -> float:
    """Return clips/s of only decoding what the loader decodes after its first batch."""
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
    """Return clips/s of the loader after its first batch."""
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
