"""Compares the step time of the trainer with a plain loop of the same step; target: at most 1.03.

Both take the same batches from memory and step the same model with the same optimizer. They alternate block by block in
one process, so that disturbances of the machine affect both.

    python benchmarks/trainer_overhead.py [--device cuda] [--blocks 40]
"""

import argparse
import os
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from statistics import median, quantiles

import torch
import torch.nn.functional as F
from torch import nn

from bench.core.stats import median_interval
from bench.data.clip_batches import Batch
from bench.models.factory import create_model
from bench.runner.environment import describe_environment
from bench.train.ranks import Ranks
from bench.train.recipe import Recipe
from bench.train.training_state import TrainingState

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


def small_model(device: str) -> nn.Module:
    torch.manual_seed(0)
    return create_model("resnet3d", depth=10, widen_factor=0.25, num_classes=8).to(device).train()


def bare_block(device: str) -> Callable[[list[Batch]], None]:
    """Return the step as a plain PyTorch loop."""
    model = small_model(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)

    def run(block: list[Batch]) -> None:
        for batch in block:
            optimizer.zero_grad(set_to_none=True)
            F.cross_entropy(model(*batch.clips), batch.labels).backward()
            optimizer.step()

    return run


def trained_block(device: str) -> Callable[[list[Batch]], None]:
    training = TrainingState(
        small_model(device), Recipe.model_validate(RECIPE), seed=0, device=device, steps_per_epoch=100, ranks=Ranks()
    )

    def run(block: list[Batch]) -> None:
        for batch in block:
            training.step(batch)

    return run


@dataclass(frozen=True, kw_only=True)
class BlockSeconds:
    """Wall-clock and processor seconds of one block."""

    wall_s: float
    cpu_s: float


def time_block(run: Callable[[list[Batch]], None], block: list[Batch], *, device: str) -> BlockSeconds:
    wall, cpu = time.perf_counter(), time.process_time()
    run(block)
    if device != "cpu":
        torch.cuda.synchronize()
    return BlockSeconds(wall_s=time.perf_counter() - wall, cpu_s=time.process_time() - cpu)


def measure(device: str, *, blocks: int) -> list[tuple[BlockSeconds, BlockSeconds]]:
    """Return (plain loop, trainer) of each turn; the order alternates."""
    block = batches(device)
    bare, trained = bare_block(device), trained_block(device)
    for run in (bare, trained, bare, trained):
        time_block(run, block, device=device)
    turns = []
    for number in range(blocks):
        order = (bare, trained) if number % 2 else (trained, bare)
        took = {run: time_block(run, block, device=device) for run in order}
        turns.append((took[bare], took[trained]))
    return turns


def report(turns: list[tuple[BlockSeconds, BlockSeconds]], *, device: str) -> str:
    """Return the environment and, for each clock, the median ratio with its 95 % interval and quartiles."""
    rows = []
    for clock, of in (("wall clock", attrgetter("wall_s")), ("processor time", attrgetter("cpu_s"))):
        ratios = [of(trained) / of(bare) for bare, trained in turns]
        centre = median_interval(ratios)
        low, _, high = quantiles(ratios, n=4)
        step_ms = 1000 * median(of(bare) for bare, _ in turns) / STEPS
        rows.append(
            f"| {clock} | {step_ms:.1f} | {centre.value:.3f} | {centre.low:.3f} to {centre.high:.3f} "
            f"| {low:.3f} to {high:.3f} |"
        )
    return "\n".join(
        [
            f"{describe_machine(device)}, {len(turns)} turns of {STEPS} steps each.",
            "",
            "| clock | plain step, ms | trainer / plain loop, median | its 95 % interval | half of all turns |",
            "|---|---|---|---|---|",
            *rows,
            "",
            "Target: at most 1.03. If other programs share the processor, processor time is the steadier clock; on a",
            "GPU only the wall clock measures a step.",
            "",
        ]
    )


def describe_machine(device: str) -> str:
    facts = describe_environment(device=device)
    processor = facts.hardware.get("gpu") or facts.hardware.get("cpu")
    load = os.getloadavg()[0]
    return (
        f"{processor}, {torch.get_num_threads()} of {os.cpu_count()} threads, load {load:.1f} at the end, "
        f"{platform.system()}, Python {platform.python_version()}, torch {torch.__version__}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--blocks", type=int, default=40)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".md"))
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    text = report(measure(given.device, blocks=given.blocks), device=given.device)
    given.out.write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
