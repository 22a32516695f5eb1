"""Shared by the benchmarks of video data: timing in turns, a description of the machine, generated long clips."""

import os
import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from statistics import median, quantiles

import numpy as np
import torch
from numpy.typing import NDArray

from bench.data.collection import Video, VideoSet, video_set
from bench.data.encode import write_mp4
from bench.data.index import videos_under
from bench.data.probing import probe
from bench.runner.environment import describe_environment


@dataclass(frozen=True, kw_only=True)
class Turns:
    """Seconds of each work per round. The works of one round ran one right after the other."""

    seconds: Mapping[str, list[float]]

    def ms(self, name: str, *, each: int = 1) -> str:
        return f"{1000 * median(self.seconds[name]) / each:.2f}"

    def ratio(self, slow: str, quick: str) -> str:
        """Return `slow` over `quick`: the median over the rounds with the quartiles."""
        ratios = [a / b for a, b in zip(self.seconds[slow], self.seconds[quick], strict=True)]
        low, middle, high = quantiles(ratios, n=4)
        return f"{middle:.2f} ({low:.2f} to {high:.2f})"


def take_turns(
    works: Mapping[str, Callable[[], object]], *, rounds: int, clock: Callable[[], float] = time.perf_counter
) -> Turns:
    """Time every work once per round, after one untimed round, so that changes of the machine affect all."""
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for number in range(rounds + 1):
        for name, work in works.items():
            started = clock()
            work()
            if number:
                seconds[name].append(clock() - started)
    return Turns(seconds=seconds)


def environment_line() -> str:
    facts = describe_environment()
    load = f"load {os.getloadavg()[0]:.1f} at the start"
    threads = f"{facts.hardware['cpu_threads_usable']} threads"
    versions = f"Python {platform.python_version()}, torch {torch.__version__}"
    return f"{facts.hardware['cpu']}, {threads}, {load}, {platform.system()}, {versions}."


def long_clips(folder: Path, *, count: int = 3, frames: int = 300) -> Path:
    """Write clips like those of Kinetics: 10 s of 340 x 256 at 30 frames/s, H.264, key frames up to 250 apart."""
    folder.mkdir(parents=True, exist_ok=True)
    for seed in range(count):
        pictures = _panned(frames, seed=seed)
        write_mp4(folder / f"long_{seed}.mp4", pictures, fps=Fraction(30), options={"preset": "medium", "crf": "23"})
    return folder


def _panned(frames: int, *, seed: int) -> list[NDArray[np.uint8]]:
    """Return frames of a camera panning over a grainy scene: about 0.7 MB as H.264, like clips of Kinetics."""
    random = np.random.default_rng(seed)
    scene = sum(_blocks(random, side) for side in (64, 24, 8)) / 3
    grains = random.normal(0, 8, (7, 256, 340, 1))
    steps = np.cumsum(random.normal(0, 0.4, (frames, 2)) + random.normal(0, 1, 2), axis=0).astype(int)
    pictures = (np.roll(scene, tuple(step), (0, 1))[:256, :340] for step in steps)
    grainy = (picture + grains[random.integers(7)] for picture in pictures)
    return [np.clip(picture, 0, 255).astype(np.uint8) for picture in grainy]


def _blocks(random: np.random.Generator, side: int) -> NDArray[np.float64]:
    blocks = random.uniform(0, 255, (512 // side + 1, 512 // side + 1, 3))
    return blocks.repeat(side, 0).repeat(side, 1)[:512, :512]


def readable_videos(folder: Path, *, copies: int = 1) -> VideoSet:
    """Return the readable videos under `folder`, each `copies` times, with their facts."""
    facts = {path: probe(path) for path in (folder / name for name in videos_under(folder))}
    videos = [
        Video(id=f"{path} {copy}", path=path, labels=(0,), facts=known)
        for copy in range(copies)
        for path, known in facts.items()
        if known.is_ok
    ]
    return video_set("folder", "train", classes=["any"], videos=videos, root=folder)
