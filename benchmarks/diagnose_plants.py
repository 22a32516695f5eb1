"""Does `vbench diagnose` name a planted mistake? Six plants and one right evaluation, of models trained here.

    python benchmarks/diagnose_plants.py --seeds 20

Each line of `diagnose_plants.jsonl` is one diagnosis of one seed; a run that was stopped goes on. The videos are made
for this: a square of one of three colours moves slowly, fast, or to and fro, so that colour, stride and clip length all
matter. Swapping red and blue maps two colours to one, so that no order of classes explains it.
"""

import argparse
import csv
import json
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from bench.core.schema import Clip
from bench.data.collection import VideoSet, open_dataset
from bench.data.encode import HISTORY_FREE, write_mp4
from bench.models.factory import create_model
from bench.train.candidates import Setting
from bench.train.diagnosing import Diagnosis, diagnose
from bench.train.fitting import fit
from bench.train.preprocessing import checkpoint_protocol, default_protocol
from bench.train.recipe import read_recipe

HERE = Path(__file__).parent
RECIPE = HERE.parent / "suites" / "recipes" / "quick.yaml"
OUT = HERE / "diagnose_plants.jsonl"
COLOURS = {"red": (200, 50, 50), "orange": (200, 125, 50), "purple": (125, 50, 200)}
MOTIONS = ("slow", "fast", "to and fro")
FRAMES, SIDE, SQUARE = 48, 32, 10
CLIP = Clip.model_validate("16x1x32")
TRAIN, VAL = 40, 24  # videos of a class
RIGHT = "right"
# What a diagnosis must name first, by plant.
TOPICS = {
    "bgr": {"channel order"},
    "range": {"value range", "value range, mean and deviation"},
    "mean and deviation": {"mean and deviation"},
    "class order": {"class order"},
    "stride": {"stride", "clip"},
    "clip length": {"clip length", "clip"},
    RIGHT: set(),
}


def film(random: np.random.Generator, colour: str, motion: str) -> np.ndarray:
    """Frames (T, H, W, 3) of one video: a square on grey noise, moving in a random direction, wrapped round."""
    angle, speed = random.uniform(0, 2 * np.pi), {"slow": 0.7, "fast": 3.0, "to and fro": 2.0}[motion]
    step = speed * np.array([np.sin(angle), np.cos(angle)])
    place = random.uniform(0, SIDE, 2)
    background = random.integers(100, 150, (SIDE, SIDE, 1))
    frames = np.broadcast_to(background, (FRAMES, SIDE, SIDE, 3)).astype(np.uint8).copy()
    phase = int(random.integers(10))
    for number, frame in enumerate(frames):
        rows, columns = ((np.arange(SQUARE) + int(value)) % SIDE for value in place)
        frame[np.ix_(rows, columns)] = COLOURS[colour]
        is_back = motion == "to and fro" and (number + phase) // 5 % 2
        place = place - step if is_back else place + step
    return frames


def write_videos(root: Path, *, seed: int) -> None:
    """Write the videos of one seed, and a list of each split."""
    for number, split in enumerate(("train", "val")):
        with (root / f"{split}.csv").open("w", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(["path", "label"])
            kinds = [(colour, motion) for colour in COLOURS for motion in MOTIONS]
            for kind, (colour, motion) in enumerate(kinds):
                for video in range(TRAIN if split == "train" else VAL):
                    random = np.random.default_rng((seed, number, kind, video))
                    name = f"{split}-{kind}-{video}.mp4"
                    write_mp4(root / name, film(random, colour, motion), fps=12, options=HISTORY_FREE)
                    rows.writerow([name, f"{colour} {motion}"])


def trained(root: Path, *, seed: int) -> tuple[nn.Module, VideoSet]:
    """A network trained on the videos below `root`, and the videos to diagnose it on."""
    torch.manual_seed(seed)
    train, val = (open_dataset("csv", root=root, split=split) for split in ("train", "val"))
    model = create_model("c3d_search", width=0.125, num_classes=len(train.classes))
    fit(model, read_recipe(RECIPE), train, val=val, clip=CLIP, seed=seed, folder=root / "training")
    return model, val


def right_setting(model: nn.Module) -> Setting:
    """The setting of the training."""
    return Setting(protocol=checkpoint_protocol(model).over(default_protocol(model, CLIP)), clip=CLIP)


def planted(plant: str, model: nn.Module, videos: VideoSet) -> Setting:
    """The setting of an evaluation with this mistake."""
    start = right_setting(model)
    protocol = start.protocol
    match plant:
        case "bgr":
            return start.with_parts(channels="bgr")
        case "range":
            return start.with_parts(scale=255)
        case "mean and deviation":
            return start.with_parts(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
        case "class order":
            shuffled = np.random.default_rng(0).permutation(len(videos.classes))
            return start.with_parts(classes=tuple(videos.classes[place] for place in shuffled))
        case "stride":
            return replace(start, clip=CLIP.model_copy(update={"stride": 4}))
        case "clip length":
            return replace(start, clip=CLIP.model_copy(update={"frames": 4}))
    assert plant == RIGHT, protocol
    return start


def found(plant: str, model: nn.Module, videos: VideoSet, *, number: int = 200) -> Diagnosis:
    """The diagnosis of one plant on at most `number` videos."""
    return diagnose(model, videos, start=planted(plant, model, videos), number=number)


def is_named(plant: str, diagnosis: Diagnosis) -> bool:
    """Whether the first cause is the plant, and the accuracy of the right setting is reached; no cause for none."""
    if plant == RIGHT:
        return not diagnosis.causes
    return bool(diagnosis.causes) and diagnosis.causes[0].candidate.topic in TOPICS[plant]


def lines(seed: int, plants: Sequence[str]) -> Iterator[dict]:
    """The result of these plants of one seed."""
    with tempfile.TemporaryDirectory() as folder:
        write_videos(Path(folder), seed=seed)
        model, videos = trained(Path(folder), seed=seed)
        for plant in plants:
            cpu_started = time.process_time()
            diagnosis = found(plant, model, videos)
            yield {
                "seed": seed,
                "plant": plant,
                "is_named": is_named(plant, diagnosis),
                "causes": [f"{c.candidate.topic}: {c.candidate.what}" for c in diagnosis.causes],
                "top1": [round(100 * top.value, 1) for top in (diagnosis.start_top1, diagnosis.top1)],
                "cpu_seconds": round(time.process_time() - cpu_started, 1),
            }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--out", type=Path, default=OUT)
    given = parser.parse_args()
    known = [json.loads(line) for line in given.out.read_text().splitlines()] if given.out.is_file() else []
    done = {(line["seed"], line["plant"]) for line in known}
    for seed in range(given.seeds):
        left = [plant for plant in TOPICS if (seed, plant) not in done]
        for line in lines(seed, left) if left else ():
            print(json.dumps(line), flush=True)
            with given.out.open("a") as file:
                file.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()
