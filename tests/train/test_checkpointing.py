import os
import resource
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

from bench.core.errors import TrainingError
from bench.train.checkpointing import (
    read_arrays,
    read_state,
    read_weights,
    remove_states,
    write_state,
    write_text,
    write_weights,
)

WRITE_FOR_EVER = """
import sys, torch
from pathlib import Path
from bench.train.checkpointing import write_state
step = 0
while True:
    step += 1
    write_state(Path(sys.argv[1]), {"step": step, "weights": torch.full((300_000,), float(step))}, step=step)
    print(step, flush=True)
"""


def state(step):
    return {"step": step, "weights": torch.full((1000,), float(step)), "curves": [{"loss": 0.5}]}


def test_a_state_is_restored_exactly(tmp_path):
    write_state(tmp_path, state(7), step=7)
    restored = read_state(tmp_path)
    assert restored.state["step"] == 7
    assert torch.equal(restored.state["weights"], state(7)["weights"])
    assert restored.damaged == ()


def test_an_empty_folder_has_no_state(tmp_path):
    assert read_state(tmp_path) is None
    assert read_state(tmp_path / "not there") is None


def test_the_newest_two_are_kept(tmp_path):
    for step in (1, 2, 30, 100):
        write_state(tmp_path, state(step), step=step)
    assert sorted(path.name[:14] for path in tmp_path.iterdir()) == ["state_00000030", "state_00000100"]


@pytest.mark.parametrize("damage", ["truncated", "one bit", "empty"])
def test_a_damaged_state_falls_back_to_the_one_before(tmp_path, damage):
    write_state(tmp_path, state(1), step=1)
    newest = write_state(tmp_path, state(2), step=2)
    data = bytearray(newest.read_bytes())
    data[len(data) // 2] ^= 1
    newest.write_bytes({"truncated": data[: len(data) // 2], "one bit": data, "empty": b""}[damage])
    restored = read_state(tmp_path)
    assert restored.state["step"] == 1
    assert restored.damaged == (newest,)


def test_all_damaged_is_an_error_that_names_them(tmp_path):
    path = write_state(tmp_path, state(1), step=1)
    path.write_bytes(b"")
    with pytest.raises(TrainingError, match=path.name):
        read_state(tmp_path)


@pytest.fixture
def full_disk():
    """No file may grow beyond 100 kB, as on a disk that is full."""
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    signal.signal(signal.SIGXFSZ, handler)


def test_a_full_disk_leaves_the_state_before_and_no_half_file(tmp_path, full_disk):
    write_state(tmp_path, state(1), step=1)
    with pytest.raises(TrainingError, match=r"state_00000002\.pt cannot be written: File too large"):
        write_state(tmp_path, {"weights": torch.zeros(1_000_000)}, step=2)
    with pytest.raises(TrainingError, match=r"last\.pt cannot be written: File too large"):
        write_weights(tmp_path / "last.pt", {"w": torch.zeros(1_000_000)}, about={})
    with pytest.raises(TrainingError, match="File too large"):
        write_text(tmp_path / "curves.csv", "x" * 200_000)
    assert [path.name[:14] for path in tmp_path.iterdir()] == ["state_00000001"]
    assert read_state(tmp_path).state["step"] == 1


def test_leftovers_of_a_killed_writer_are_removed(tmp_path):
    (tmp_path / "state_00000009.pt").write_bytes(b"without its hash")
    (tmp_path / ".unfinished-elsewhere-1-00000000").write_bytes(b"half")
    write_state(tmp_path, state(1), step=1)
    assert read_state(tmp_path).state["step"] == 1
    assert len(list(tmp_path.iterdir())) == 1
    remove_states(tmp_path)
    assert not list(tmp_path.iterdir())


def test_weights_carry_their_notes_and_need_no_trust(tmp_path):
    path = write_weights(tmp_path / "last.pt", {"fc.weight": torch.ones(2)}, about={"epoch": 3, "recipe": "quick"})
    content = torch.load(path, weights_only=True)
    assert (content["epoch"], content["recipe"]) == (3, "quick")
    assert torch.equal(read_weights(path)["state_dict"]["fc.weight"], torch.ones(2))
    assert [p.name for p in tmp_path.iterdir()] == ["last.pt"]


def test_the_bytes_of_a_file_do_not_depend_on_its_name(tmp_path):
    one, other = (write_weights(tmp_path / f"{name}.pt", {"w": torch.ones(2)}, about={}) for name in ("a", "best"))
    assert one.read_bytes() == other.read_bytes()


def test_text_replaces_the_old_content(tmp_path):
    write_text(tmp_path / "curves.csv", "long text")
    write_text(tmp_path / "curves.csv", "new")
    assert (tmp_path / "curves.csv").read_text() == "new"


@pytest.mark.slow
def test_kill_9_during_writes_never_costs_more_than_the_last_state(tmp_path):
    for delay in (0.0, 0.003, 0.007, 0.011):
        with subprocess.Popen([sys.executable, "-c", WRITE_FOR_EVER, str(tmp_path)], stdout=subprocess.PIPE) as writer:
            said = [int(writer.stdout.readline()) for _ in range(5)]
            time.sleep(delay)
            writer.send_signal(signal.SIGKILL)
            said += [int(line) for line in writer.stdout.read().split()]
        restored = read_state(tmp_path)
        assert restored.state["step"] >= said[-1]
        assert restored.damaged == ()
        assert torch.all(restored.state["weights"] == restored.state["step"])
        remove_states(tmp_path)


class RunsWhenUnpickled:
    def __reduce__(self):
        return os.mkdir, ("unpickled",)


def test_arrays_of_unfinished_work_are_read_or_computed_again(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "scored.npz"
    assert read_arrays(file) == {}
    np.savez(file, scores=np.arange(3.0))
    assert read_arrays(file)["scores"].tolist() == [0, 1, 2]
    whole = file.read_bytes()
    damaged = [whole[:length] for length in (0, 1, 5, 40, len(whole) // 2, len(whole) - 1)]
    place = whole.index(np.arange(3.0).tobytes()) + 9
    damaged.append(whole[:place] + b"\xff" + whole[place + 1 :])
    for content in damaged:
        file.write_bytes(content)
        with pytest.warns(UserWarning, match=r"scored\.npz is damaged .*; what it held is computed again"):
            assert read_arrays(file) == {}


def test_arrays_of_objects_are_refused_and_run_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.savez(tmp_path / "objects.npz", scores=np.array([RunsWhenUnpickled()], dtype=object))
    with pytest.warns(UserWarning, match="Object arrays cannot be loaded"):
        assert read_arrays(tmp_path / "objects.npz") == {}
    assert not (tmp_path / "unpickled").exists()
