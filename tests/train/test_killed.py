"""kill -9 at any moment, in real processes: what is started again ends with the same weights."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from bench.train.checkpointing import read_weights

SCRIPT = """
import os, sys
from pathlib import Path
sys.path.insert(0, os.environ["TESTS"])
import torch
torch.set_num_threads(1)
from conftest import TinyNet
from bench.data.collection import open_dataset
from bench.core.schema import Clip
from bench.train.evaluating import evaluate
from bench.train.fitting import CheckpointInterval, fit
from bench.train.recipe import read_recipe
root, recipe, folder = sys.argv[1:]
torch.manual_seed(0)
model, clip = TinyNet(dropout=0.3), Clip.model_validate("4x1x12")
train, val = (open_dataset("motions", root=root, split=split) for split in ("train", "val"))
print("ready", flush=True)
interval = CheckpointInterval(steps=1)
fitted = fit(model, read_recipe(recipe), train, val=val, clip=clip, seed=3, folder=Path(folder), interval=interval)
print("resumed at", fitted.resumed_at, flush=True)
for _ in range(20):
    seen = evaluate(model, val, clip=clip, views=(3, 2))
print("top1", seen.top(1).value, flush=True)
"""


@pytest.fixture
def start(tiny_root, tmp_path, recipe_of):
    recipe_of()
    recipe = tmp_path / "tiny.yaml"
    recipe.write_text(recipe.read_text().replace("epochs: 3", "epochs: 10"))

    def run(folder):
        return subprocess.Popen(
            [sys.executable, "-c", SCRIPT, str(tiny_root), str(recipe), str(folder)],
            env={**os.environ, "TESTS": str(Path(__file__).parent)},
            stdout=subprocess.PIPE,
            text=True,
        )

    return run


def wait_for(condition, *, process):
    """Look again and again until `condition` holds; the process ends by itself if it never does."""
    while not condition() and process.poll() is None:
        time.sleep(0.001)


@pytest.mark.slow
def test_a_training_killed_at_any_moment_ends_with_the_same_weights(start, tmp_path):
    with start(tmp_path / "whole") as process:
        whole = process.stdout.read()
    expected = read_weights(tmp_path / "whole" / "last.pt")["state_dict"]
    folder = tmp_path / "killed"
    moments = [
        lambda: list(folder.glob("state_*1_*.pt")),
        lambda: list(folder.glob(".unfinished-*")),
        lambda: list(folder.glob("state_*2?_*.pt")),
        lambda: (folder / "last.pt").is_file(),
    ]
    for moment in moments:
        with start(folder) as process:
            assert process.stdout.readline() == "ready\n"
            wait_for(moment, process=process)
            process.send_signal(signal.SIGKILL)
    with start(folder) as process:
        again = process.stdout.read()
    assert again.splitlines()[-1] == whole.splitlines()[-1], "the accuracy is the same as well"
    found = read_weights(folder / "last.pt")["state_dict"]
    assert all(torch.equal(found[name], value) for name, value in expected.items())
    assert not list(folder.glob("state_*"))
