"""Checkpoints for other code bases: keys, shapes, `arch` and epoch as those read them, and the way back."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from bench.cli.app import run_command
from bench.core.errors import InputError, WeightsError
from bench.core.schema import Clip
from bench.models.factory import create_model
from bench.models.weights.checkpoint import read_checkpoint
from bench.models.weights.checkpoint_protocol import protocol_of_checkpoint
from bench.train.checkpointing import write_weights
from bench.train.exporting import export_weights
from bench.train.fitting import CheckpointInterval, TrainingInterrupted, fit

NARROW = {"widen_factor": 0.125}
MULTISTEP = {"name": "multistep", "milestones": [2], "factor": 0.1}


def trained(folder, recipe, videos, *, clip="4x1x32", **options):
    torch.manual_seed(0)
    model = create_model("resnet3d_10", num_classes=2, **NARROW)
    about = {"model": "resnet3d_10", "arguments": NARROW}
    return fit(
        model, recipe, videos, clip=Clip.model_validate(clip), seed=0, folder=folder, about=about, **options
    ), model


def resumed_there(content, *, arch, lr, milestones):
    """What main.py of 3D-ResNets-PyTorch does with `--resume_path`, with its own optimizer and scheduler."""
    model = create_model("resnet3d_10", num_classes=2, **NARROW)
    assert arch == content["arch"]
    model.load_state_dict(content["state_dict"])
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9, weight_decay=1e-3)
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, milestones)
    if "optimizer" in content:
        optimizer.load_state_dict(content["optimizer"])
    if "scheduler" in content:
        scheduler.load_state_dict(content["scheduler"])
    return content["epoch"] + 1, model, optimizer, scheduler


def test_a_finished_training_goes_on_in_3d_resnets(recipe_of, train_videos, tmp_path):
    result, model = trained(tmp_path / "run", recipe_of(schedule=MULTISTEP), train_videos)
    found = export_weights(result.last, to="3d-resnets", out=tmp_path / "save_3.pth")
    content = torch.load(found.path, weights_only=True)
    assert {"epoch", "arch", "state_dict", "optimizer", "scheduler"} <= content.keys()
    assert (content["epoch"], content["arch"]) == (3, "resnet-10")
    begin, there, optimizer, scheduler = resumed_there(content, arch="resnet-10", lr=0.05, milestones=[2])
    assert begin == 4
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.005)  # past the milestone
    assert scheduler.last_epoch == 3
    for ours, theirs in zip(model.parameters(), there.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    assert "no momentum" in " ".join(found.notes)
    assert "--model resnet --model_depth 10 --n_classes 2" in found.notes[0]


def test_an_unfinished_training_takes_its_momentum_along(recipe_of, train_videos, tmp_path, monkeypatch):
    """The next step there equals the next step of the same training here."""
    # Progress is reported once a second; a fast machine would finish before the report that stops the training.
    monkeypatch.setattr("bench.train.progress.ProgressClock.count", lambda clock, clips: True)
    recipe, folder = recipe_of(schedule=MULTISTEP), tmp_path / "run"

    def stop(progress):
        if progress.what.startswith("epoch 2"):
            raise TrainingInterrupted

    with pytest.raises(TrainingInterrupted):
        trained(folder, recipe, train_videos, report=stop, interval=CheckpointInterval(steps=1))
    [state, *_] = sorted(folder.glob("state_*.pt"), reverse=True)
    found = export_weights(state, to="3d-resnets", out=tmp_path / "there.pth")
    saved = torch.load(state, weights_only=True)["training"]
    content = torch.load(found.path, weights_only=True)
    _, there, optimizer, _ = resumed_there(content, arch="resnet-10", lr=0.05, milestones=[2])
    here = create_model("resnet3d_10", num_classes=2, **NARROW)
    here.load_state_dict(saved["model"])
    names = [name for name, _ in here.named_parameters()]
    in_order = [n for n in names if not n.startswith("fc.")] + [n for n in names if n.startswith("fc.")]
    momentum = {name: saved["optimizer"]["state"][index]["momentum_buffer"] for index, name in enumerate(in_order)}
    assert found.epoch == 1
    for name, parameter in there.named_parameters():
        assert torch.equal(parameter, saved["model"][name])
        assert torch.equal(optimizer.state[parameter]["momentum_buffer"], momentum[name])
        assert momentum[name].abs().sum() > 0


def test_the_exported_file_is_evaluated_here_as_it_was_trained(recipe_of, train_videos, tmp_path):
    result, _ = trained(tmp_path / "run", recipe_of(), train_videos)
    for target in ("3d-resnets", "safetensors"):
        found = export_weights(result.last, to=target, out=tmp_path / f"out.{target.replace('3d-resnets', 'pth')}")
        protocol = protocol_of_checkpoint(read_checkpoint(found.path))
        assert (protocol.clip, protocol.crop, protocol.mark("mean")) == ("4x1", "32", "stored"), target
        assert protocol.classes == train_videos.classes


def test_an_exported_file_has_the_rights_that_the_umask_gives(recipe_of, train_videos, tmp_path):
    result, _ = trained(tmp_path / "run", recipe_of(), train_videos)
    exported = export_weights(result.last, to="safetensors", out=tmp_path / "out.safetensors").path
    (tmp_path / "plain").touch()
    assert exported.stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.parametrize(
    ("family", "name", "arguments", "arch"),
    [
        ("r2plus1d", "r2plus1d_10", NARROW, "resnet2p1d-10"),
        ("preact_resnet3d", "preact_resnet3d_18", NARROW, "preresnet-18"),
        ("resnet3d", "resnet3d", {**NARROW, "depth": 18}, "resnet-18"),
        ("densenet3d", "densenet3d_121", {}, "densenet-121"),
    ],
)
def test_the_name_of_an_architecture_is_that_of_its_authors(tmp_path, family, name, arguments, arch):
    model = create_model(name, num_classes=3, **arguments)
    file = write_weights(
        tmp_path / "w.pt", model.state_dict(), about={"model": name, "arguments": arguments, "epoch": 7}
    )
    found = export_weights(file, to="3d-resnets")
    content = torch.load(found.path, weights_only=True)
    assert (content["arch"], content["epoch"]) == (arch, 7)
    assert found.path == tmp_path / "w_3d-resnets.pth"
    assert {k: tuple(v.shape) for k, v in content["state_dict"].items()} == {
        k: tuple(v.shape) for k, v in model.state_dict().items()
    }


@pytest.mark.parametrize(
    ("name", "peer"),
    [
        ("hara_resnet-18", "resnet3d_18"),
        ("hara_resnet2p1d-18", "r2plus1d_18"),
        pytest.param("hara_wideresnet-50", "wide_resnet3d_50", marks=pytest.mark.slow),
    ],
)
def test_keys_and_shapes_are_those_that_the_authors_code_has(tmp_path, assets, name, peer):
    published = json.loads((assets / "reference" / "peers" / f"{name}.json").read_text())
    model = create_model(peer, num_classes=published["classes"])
    file = write_weights(tmp_path / "w.pt", model.state_dict(), about={"model": peer, "arguments": {}})
    content = torch.load(export_weights(file, to="3d-resnets").path, weights_only=True)
    ours = {key: list(value.shape) for key, value in content["state_dict"].items()}
    assert ours == dict(published["state_dict"])


def test_mmaction2_s_names_are_those_of_its_own_tsm(tmp_path, assets):
    published = json.loads((assets / "reference" / "peers" / "mmaction2_tsm_r50_1x1x8.json").read_text())
    model = create_model("tsm_r50", num_classes=published["classes"])
    file = write_weights(tmp_path / "w.pt", model.state_dict(), about={"model": "tsm_r50", "arguments": {}})
    content = torch.load(export_weights(file, to="mmaction2").path, weights_only=True)
    prefix = published.get("key_prefix") or ""
    ours = {key: list(value.shape) for key, value in content["state_dict"].items()}
    assert ours == {
        f"{prefix}{key}" if not key.startswith(("backbone", "cls_head")) else key: shape
        for key, shape in published["state_dict"]
    }


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("c3d", marks=pytest.mark.slow),
        pytest.param("tsm_nln_dot_product_r50", marks=pytest.mark.slow),
        "slow_r50",
        "cnn_pool",
        "tin_r50",
        "tanet_r50",
        "tsm_mobilenetv2",
    ],
)
def test_what_is_exported_to_mmaction2_comes_back_the_same(tmp_path, name):
    torch.manual_seed(0)
    model = create_model(name, num_classes=3)
    file = write_weights(tmp_path / "w.pt", model.state_dict(), about={"model": name, "arguments": {}, "epoch": 2})
    found = export_weights(file, to="mmaction2")
    content = torch.load(found.path, weights_only=True)
    assert content["meta"]["epoch"] == 2
    assert all(key.startswith(("backbone.", "cls_head.")) for key in content["state_dict"])
    back = create_model(name, num_classes=3, weights=found.path)
    for key, value in back.state_dict().items():
        assert torch.equal(value, model.state_dict()[key]), key


def test_torchvision_loads_what_is_exported_to_it(tmp_path):
    from torchvision.models.video import r3d_18

    torch.manual_seed(0)
    model = create_model("torchvision:r3d_18", num_classes=3)
    file = write_weights(tmp_path / "w.pt", model.state_dict(), about={"model": "torchvision:r3d_18", "arguments": {}})
    theirs: nn.Module = r3d_18(num_classes=3)
    theirs.load_state_dict(torch.load(export_weights(file, to="torchvision").path, weights_only=True))
    assert torch.equal(theirs.fc.weight, model.fc.weight)


@pytest.mark.parametrize(
    ("to", "error", "told"),
    [
        ("mmaction", InputError, "did you mean: mmaction2"),
        ("torchvision", WeightsError, "torchvision has no model with the weights of resnet3d_10"),
        ("mmaction2", WeightsError, "resnet3d_10 cannot be exported to MMAction2: resnet3d has no counterpart"),
    ],
)
def test_what_cannot_be_exported_is_an_error(tmp_path, to, error, told):
    model = create_model("resnet3d_10", num_classes=3, **NARROW)
    about = {"model": "resnet3d_10", "arguments": NARROW}
    with pytest.raises(error, match=told):
        export_weights(write_weights(tmp_path / "w.pt", model.state_dict(), about=about), to=to)


def test_a_model_that_its_authors_do_not_have_is_not_exported_to_them(tmp_path):
    model = create_model("c3d_search", num_classes=3, width=0.05)
    about = {"model": "c3d_search", "arguments": {"width": 0.05}}
    with pytest.raises(WeightsError, match="c3d_search is no model of 3D-ResNets-PyTorch"):
        export_weights(write_weights(tmp_path / "w.pt", model.state_dict(), about=about), to="3d-resnets")


def test_the_command_writes_next_to_the_file_and_never_over_it(tmp_path, capsys):
    model = create_model("resnet3d_10", num_classes=3, **NARROW)
    about = {"model": "resnet3d_10", "arguments": NARROW, "epoch": 5}
    file = write_weights(tmp_path / "w.pth", model.state_dict(), about=about)
    assert run_command(["weights", "export", str(file), "--to", "3d-resnets"]) == 0
    assert "resnet3d_10 of epoch 5, for 3d-resnets" in capsys.readouterr().out
    assert run_command(["weights", "export", str(file), "--to", "3d-resnets", "--out", str(file)]) == 2
    assert "give another one with --out" in capsys.readouterr().err
    assert "arch" not in torch.load(Path(file), weights_only=True)
