"""Several processes on one machine, over gloo: real processes, so slow."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from bench.data.collection import open_dataset
from bench.errors import InputError
from bench.schema import Clip
from bench.train.checkpointing import read_weights
from bench.train.evaluating import evaluate
from bench.train.fitting import fit
from bench.train.ranks import Ranks, current_ranks, joined

SCRIPT = """
import json, os, sys
from pathlib import Path
sys.path.insert(0, os.environ["TESTS"])
import torch
torch.set_num_threads(1)
import test_ranks
test_ranks.train_and_evaluate(json.loads(sys.argv[1]))
"""


def train_and_evaluate(job):
    """What every rank does: train the tiny network, evaluate it; the first writes down what came out."""
    from conftest import TinyNet

    from bench.train.recipe import read_recipe

    if job.get("dies") == os.environ.get("RANK"):
        raise RuntimeError("this rank is ill")
    torch.manual_seed(0)
    model, clip = TinyNet(norm=job["norm"]), Clip.model_validate("4x1x12")
    train, val = (open_dataset("motions", root=job["root"], split=split) for split in ("train", "val"))
    with joined("cpu") as ranks:
        folder = Path(job["folder"])
        fit(model, read_recipe(job["recipe"]), train, val=val, clip=clip, seed=3, folder=folder)
        seen = evaluate(model, val, clip=clip, views=(2, 1))
        if ranks.is_first:
            found = {"scores": seen.scores.tolist(), "positions": seen.positions.tolist(), "world": ranks.world}
            (folder / "found.json").write_text(json.dumps(found))


def run_ranks(job, *, world):
    """Run the script once per rank; returns the exit codes and what was said."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    here = str(Path(__file__).parent)
    running = []
    for rank in range(world):
        place = {"RANK": str(rank), "WORLD_SIZE": str(world), "LOCAL_RANK": str(rank)}
        place |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "TESTS": here, "GLOO_SOCKET_IFNAME": "lo"}
        running.append(
            subprocess.Popen(
                [sys.executable, "-c", SCRIPT, json.dumps(job)],
                env={**os.environ, **place},
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    said = [process.communicate(timeout=300)[1] for process in running]
    return [process.returncode for process in running], said


@pytest.fixture
def job(tiny_root, tmp_path, recipe_of):
    recipe_of()
    return {"root": str(tiny_root), "recipe": str(tmp_path / "tiny.yaml"), "norm": False}


def test_alone_there_is_one_rank():
    with joined("cpu") as ranks:
        assert ranks == Ranks() == current_ranks()
    assert ranks.gather("x") == ["x"]
    assert ranks.share("x") == "x"


@pytest.mark.slow
def test_two_ranks_match_one_with_the_same_global_batch(job, tmp_path):
    found, weights = {}, {}
    for world in (1, 2):
        folder = tmp_path / str(world)
        codes, said = run_ranks({**job, "folder": str(folder)}, world=world)
        assert codes == [0] * world, said
        found[world] = json.loads((folder / "found.json").read_text())
        weights[world] = read_weights(folder / "last.pt")["state_dict"]
    assert [found[n]["world"] for n in (1, 2)] == [1, 2]
    for name, value in weights[1].items():
        torch.testing.assert_close(weights[2][name], value, rtol=1e-5, atol=1e-6)
    assert found[1]["positions"] == found[2]["positions"] == list(range(12))
    torch.testing.assert_close(torch.tensor(found[1]["scores"]), torch.tensor(found[2]["scores"]), rtol=1e-4, atol=1e-5)


def test_a_batch_that_cannot_be_shared_is_refused(recipe_of, train_videos, tiny_net, tmp_path, monkeypatch):
    monkeypatch.setattr("bench.train.fitting.current_ranks", lambda: Ranks(rank=1, world=4))
    with pytest.raises(InputError, match="a batch of 6 clips cannot be shared evenly by 4 processes"):
        fit(tiny_net(), recipe_of(), train_videos, clip=Clip.model_validate("4x1x12"), seed=0, folder=tmp_path)
