"""Step time of the trainer over a bare loop of the same step; at most 1.03 is wanted.

Both take the same batches, which are in memory, and step the same network with the same optimizer. They take turns
inside one process, block by block, so that whatever else the machine does hits both. Run it with

    python benchmarks/trainer_overhead.py [--device cuda] [--blocks 20]
"""

import argparse
import time
from collections.abc import Callable
from statistics import median

import torch
import torch.nn.functional as F
from torch import nn

from bench.data.loading import Batch
from bench.models.factory import create_model
from bench.train.ranks import Ranks
from bench.train.recipe import Recipe
from bench.train.training import Training

STEPS, BATCH, CLIP = 5, 8, (3, 16, 56, 56)
RECIPE = {
    "recipe": "overhead",
    "source": "the benchmark of the trainer",
    "epochs": 10_000,
    "batch": BATCH,
    "optimizer": {"name": "sgd", "lr": 1e-3, "momentum": 0.9},
}


def batches(device: str) -> list[Batch]:
    clips = torch.randn(STEPS, BATCH, *CLIP, device=device)
    labels = torch.randint(0, 8, (STEPS, BATCH), device=device)
    return [
        Batch(clips=(c,), labels=y, videos=torch.arange(BATCH), views=1) for c, y in zip(clips, labels, strict=True)
    ]


def network(device: str) -> nn.Module:
    torch.manual_seed(0)
    return create_model("resnet3d", depth=10, widen_factor=0.25, num_classes=8).to(device).train()


def bare_block(device: str) -> Callable[[list[Batch]], None]:
    """The step as anybody would write it."""
    model = network(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)

    def run(block: list[Batch]) -> None:
        for batch in block:
            optimizer.zero_grad(set_to_none=True)
            F.cross_entropy(model(*batch.clips), batch.labels).backward()
            optimizer.step()

    return run


def trained_block(device: str) -> Callable[[list[Batch]], None]:
    training = Training(
        network(device), Recipe.model_validate(RECIPE), seed=0, device=device, steps_per_epoch=100, ranks=Ranks()
    )

    def run(block: list[Batch]) -> None:
        for batch in block:
            training.step(batch)

    return run


def seconds(run: Callable[[list[Batch]], None], block: list[Batch], *, device: str) -> float:
    started = time.perf_counter()
    run(block)
    if device != "cpu":
        torch.cuda.synchronize()
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--blocks", type=int, default=20)
    given = parser.parse_args()
    block = batches(given.device)
    bare, trained = bare_block(given.device), trained_block(given.device)
    for run in (bare, trained):
        seconds(run, block, device=given.device)
    ratios, steps_ms = [], []
    for number in range(given.blocks):
        order = (bare, trained) if number % 2 else (trained, bare)
        took = {run: seconds(run, block, device=given.device) for run in order}
        ratios.append(took[trained] / took[bare])
        steps_ms.append(1000 * took[bare] / STEPS)
    print(f"bare step {median(steps_ms):.1f} ms, trainer / bare loop {median(ratios):.3f} (wanted: at most 1.03)")


if __name__ == "__main__":
    main()
