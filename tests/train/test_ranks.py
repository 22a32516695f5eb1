"""Several processes on one machine, over gloo: real processes, so slow."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch.distributed import HashStore

from bench.core.errors import InputError, TrainingError
from bench.core.schema import Clip
from bench.data.collection import open_dataset
from bench.train.checkpointing import read_weights
from bench.train.evaluating import evaluate
from bench.train.fitting import fit
from bench.train.ranks import Ranks, _await_others, _own_gpu, _set_interface_of_gloo, current_ranks, joined
from bench.train.training_state import TrainingState

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

    torch.manual_seed(0)
    model, clip = TinyNet(norm=job["norm"]), Clip.model_validate("4x1x12")
    train, val = (open_dataset("motions", root=job["root"], split=split) for split in ("train", "val"))
    if job.get("rank") == os.environ["RANK"]:
        end_at_third_step(job["end"])
    with joined("cpu", dead_after_s=job.get("dead_after_s", 30)) as ranks:
        folder = Path(job["folder"])
        fit(model, read_recipe(job["recipe"]), train, val=val, clip=clip, seed=3, folder=folder)
        seen = evaluate(model, val, clip=clip, views=(2, 1))
        if ranks.is_first:
            found = {"scores": seen.scores.tolist(), "positions": seen.positions.tolist(), "world": ranks.world}
            (folder / "found.json").write_text(json.dumps(found))


def end_at_third_step(end):
    """From here on the third step of a training ends this process by a signal or an error."""
    step = TrainingState.step

    def last(self, batch):
        if self.step_count == 2:
            print(f"{end} at {time.time()}", file=sys.stderr, flush=True)
            if end == "error":
                raise ValueError("this rank is ill")
            os.kill(os.getpid(), signal.Signals[end])
        step(self, batch)

    TrainingState.step = last


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
    if "rank" in job:
        survivor = running[1 - int(job["rank"])]
        survivor.wait(timeout=300)
        running[int(job["rank"])].kill()
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
@pytest.mark.parametrize(
    ("rank", "end", "told"),
    [
        ("1", "SIGKILL", "rank 1 of 2 died: it sent no heartbeat"),
        ("0", "SIGKILL", "rank 0 of 2 (or the launcher )?died"),
        ("1", "SIGSTOP", "rank 1 of 2 died: it sent no heartbeat"),
        ("1", "error", "rank 1 of 2 failed: ValueError: this rank is ill"),
    ],
)
def test_a_rank_that_dies_ends_the_others_with_its_error_within_a_minute(job, tmp_path, rank, end, told):
    (tmp_path / "tiny.yaml").write_text((tmp_path / "tiny.yaml").read_text().replace("epochs: 3", "epochs: 1000"))
    ended = {"rank": rank, "end": end, "dead_after_s": 8}
    codes, said = run_ranks({**job, "folder": str(tmp_path / "out"), **ended}, world=2)
    survivor = 1 - int(rank)
    assert codes[survivor] not in (0, None)
    assert re.search(told, said[survivor])
    ended_at = float(re.search(rf"{end} at ([\d.]+)", said[int(rank)])[1])
    assert time.time() - ended_at < 60


@pytest.mark.slow
def test_two_ranks_match_one_with_the_same_global_batch(job, tmp_path):
    found, weights = {}, {}
    for world in (1, 2):
        folder = tmp_path / str(world)
        codes, said = run_ranks({**job, "folder": str(folder)}, world=world)
        assert codes == [0] * world, said
        found[world] = json.loads((folder / "found.json").read_text())
        content = read_weights(folder / "last.pt")
        weights[world] = content["state_dict"]
        assert (content["processes"], content["batch_norm"]) == (world, None), "this network has no batch norm"
    assert [found[n]["world"] for n in (1, 2)] == [1, 2]
    for name, value in weights[1].items():
        torch.testing.assert_close(weights[2][name], value, rtol=1e-5, atol=1e-6)
    assert found[1]["positions"] == found[2]["positions"] == list(range(12))
    torch.testing.assert_close(torch.tensor(found[1]["scores"]), torch.tensor(found[2]["scores"]), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("ema", [None, 0.9])
def test_all_ranks_evaluate_with_the_statistics_that_the_checkpoint_holds(job, tmp_path, val_videos, tiny_net, ema):
    """Each rank's batch norm saw other clips; a video's score must not depend on the rank that looks at it.

    With an average of the weights there are two networks whose statistics the ranks agree on, in one order.
    """
    if ema is not None:
        with (tmp_path / "tiny.yaml").open("a") as recipe:
            recipe.write(f"ema: {ema}\n")
    codes, said = run_ranks({**job, "norm": True, "folder": str(tmp_path / "out")}, world=2)
    assert codes == [0, 0], said
    model = tiny_net(norm=True)
    model.load_state_dict(read_weights(tmp_path / "out" / "last.pt")["state_dict"])
    again = evaluate(model, val_videos, clip=Clip.model_validate("4x1x12"), views=(2, 1))
    found = json.loads((tmp_path / "out" / "found.json").read_text())
    torch.testing.assert_close(torch.tensor(found["scores"]), torch.tensor(again.scores), rtol=1e-5, atol=1e-6)


def test_gloo_listens_where_other_machines_see_the_first_rank(monkeypatch):
    monkeypatch.setattr("bench.train.ranks.interface_towards", {"10.0.0.7": "ib0", "10.0.0.8": None}.get)
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "")  # so that it is as before after the test
    for first, given, chosen in (
        (["127.0.1.1", "10.0.0.7"], None, "ib0"),  # the first rank's own view tells nothing
        (["127.0.1.1", "10.0.0.7"], "eth0", "eth0"),  # said by the user
        (["127.0.0.1", "127.0.0.1"], None, None),  # all on one machine
        (["", "10.0.0.8"], None, None),  # without a route
    ):
        monkeypatch.delenv("GLOO_SOCKET_IFNAME", raising=False)
        if given:
            monkeypatch.setenv("GLOO_SOCKET_IFNAME", given)
        _set_interface_of_gloo(first)
        assert os.environ.get("GLOO_SOCKET_IFNAME") == chosen


TWO_HOSTS = """
set -e
hosts() { printf '127.0.0.1 localhost\\n127.0.1.1 %s\\n%s %s\\n' "$1" "$2" "$3" > "$1.hosts"; }
hosts first 10.9.0.2 second
hosts second 10.9.0.1 first
ip link set lo up
unshare --net --uts --mount sh -c 'touch ready; exec sleep 120' & second=$!
trap 'kill $second' EXIT
until [ -e ready ]; do sleep 0.1; done
ip link add veth0 type veth peer name veth1 netns $second
ip addr add 10.9.0.1/24 dev veth0; ip link set veth0 up; ip route add default dev veth0
hostname first; mount --bind first.hosts /etc/hosts
nsenter --target $second --net --uts --mount --wd="$PWD" sh -e -c '
  ip link set lo up; ip addr add 10.9.0.2/24 dev veth1; ip link set veth1 up
  hostname second; mount --bind second.hosts /etc/hosts
  RANK=1 "$PYTHON" -c "$CODE"' &
RANK=0 "$PYTHON" -c "$CODE"
wait $!
"""
GREET = """
import socket
from pathlib import Path
from bench.runner.rank_processes import find_first_launcher
from bench.train.ranks import joined
find_first_launcher(Path("rendezvous.json"))
with joined("cpu", dead_after_s=20) as ranks:
    Path(f"met_by_{socket.gethostname()}").write_text(" ".join(ranks.gather(socket.gethostname())))
"""


@pytest.mark.slow
def test_ranks_meet_on_two_hosts_whose_own_names_mean_only_themselves(tmp_path):
    """Two network namespaces with a cable between them; each has its own name at 127.0.1.1, as Debian does."""
    isolated = ["unshare", "--net", "--uts", "--mount"]
    if shutil.which("ip") is None or subprocess.run([*isolated, "true"], check=False).returncode:
        pytest.skip("needs root, unshare and ip")
    variables = {name: value for name, value in os.environ.items() if name != "GLOO_SOCKET_IFNAME"}
    variables |= {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "1", "LOCAL_RANK": "0", "PYTHON": sys.executable}
    variables |= {"CODE": GREET, "PYTHONPATH": str(Path(__file__).parents[2])}
    ended = subprocess.run(
        [*isolated, "sh", "-c", TWO_HOSTS],
        cwd=tmp_path,
        env=variables,
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    for host in ("first", "second"):
        assert (tmp_path / f"met_by_{host}").read_text() == "first second"


def test_who_does_not_come_is_named(monkeypatch):
    monkeypatch.setattr("bench.train.ranks.JOIN_S", 0.2)
    with pytest.raises(TrainingError, match="rank 1 of 3 did not join within 0 s; its own log says why"):
        _await_others(HashStore(), rank=0, world=3)


def test_more_ranks_than_gpus_and_one_gpu_for_all_are_refused(monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(InputError, match="rank 2 of this machine has no GPU of its own: there are 2"):
        _own_gpu("cuda")
    with pytest.raises(InputError, match="device cuda:1 is one GPU"):
        _own_gpu("cuda:1")


@pytest.mark.parametrize(("visible", "local", "own"), [(1, 0, 0), (1, 3, 0), (2, 1, 1), (2, 2, 0), (4, 3, 3)])
def test_slurm_shows_each_task_its_own_gpus(monkeypatch, visible, local, own):
    monkeypatch.setattr("torch.cuda.device_count", lambda: visible)
    monkeypatch.setenv("LOCAL_RANK", str(local))
    monkeypatch.setenv("SLURM_GPUS_PER_TASK", str(visible))
    assert _own_gpu("cuda") == own
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    with pytest.raises(InputError, match="has no GPU of its own: there are 0"):
        _own_gpu("cuda")


def test_a_batch_that_cannot_be_shared_is_refused(recipe_of, train_videos, tiny_net, tmp_path, monkeypatch):
    monkeypatch.setattr("bench.train.fitting.current_ranks", lambda: Ranks(rank=1, world=4))
    monkeypatch.setattr(Ranks, "share", lambda self, value: value)
    with pytest.raises(InputError, match="a batch of 6 clips cannot be split evenly over 4 processes"):
        fit(tiny_net(), recipe_of(), train_videos, clip=Clip.model_validate("4x1x12"), seed=0, folder=tmp_path)


def test_the_statistics_of_batch_norm_are_described_in_words(recipe_of, tiny_net):
    def told(recipe, *, world, norm=True):
        training = TrainingState(tiny_net(norm=norm), recipe, seed=0, device="cpu", steps_per_epoch=1, ranks=Ranks())
        training.ranks = Ranks(world=world)
        return training.batch_norm

    assert told(recipe_of(), world=1, norm=False) is None
    assert told(recipe_of(), world=1) == "over 6 clips"
    assert told(recipe_of(accumulate=3), world=1) == "over 2 clips"
    assert told(recipe_of(), world=2) == "over 3 clips, in each of 2 processes apart"
    assert told(recipe_of(sync_bn=True), world=2) == "over 3 clips, in each of 2 processes apart", "only GPUs can"
    joint = TrainingState(tiny_net(), recipe_of(), seed=0, device="cpu", steps_per_epoch=1, ranks=Ranks())
    joint.step_model, joint.ranks = torch.nn.SyncBatchNorm.convert_sync_batchnorm(joint.step_model), Ranks(world=3)
    assert joint.batch_norm == "over 6 clips of all 3 processes"
