"""Which tensors of a file are the weights: entries, averages, wrappers, losses, values that cannot be right."""

import gzip
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from bench.core.errors import WeightsError
from bench.models.factory import create_model
from bench.models.weights.checkpoint import read_checkpoint
from bench.models.weights.load_report import LoadReport

SMALL = {"depth": 10, "widen_factor": 0.125, "num_classes": 3}


def small_state() -> dict[str, Tensor]:
    torch.manual_seed(0)
    return create_model("resnet3d", **SMALL).state_dict()


def doubled(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key: 2 * value if value.is_floating_point() else value for key, value in state.items()}


def written(path: Path, content: Any) -> Path:
    torch.save(content, path)
    return path


def loaded(path: Path, **options: Any) -> tuple[dict[str, Tensor], LoadReport]:
    model = create_model("resnet3d", weights=path, **SMALL, **options)
    report = model.__dict__["weights_report"]
    assert isinstance(report, LoadReport)
    return model.state_dict(), report


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in other)


@pytest.mark.parametrize(
    ("raw", "evaluated"),
    [
        ("state_dict", "state_dict_ema"),
        ("model", "model_ema"),
        ("model_state", "model_state_ema"),
        ("student", "teacher"),
        ("encoder", "target_encoder"),
        ("encoder_k", "encoder_q"),
        ("ema_state_dict", "state_dict"),
    ],
)
def test_the_entry_that_the_authors_evaluate_is_taken_and_named(tmp_path: Path, raw: str, evaluated: str) -> None:
    state = small_state()
    found, report = loaded(written(tmp_path / "w.pth", {raw: state, evaluated: doubled(state), "epoch": 1}))
    assert same(found, doubled(state))
    assert (report.entry, report.other_entries) == (evaluated, (raw,))
    assert evaluated in report.warnings[0]
    assert raw in report.warnings[0]


def test_another_entry_is_taken_by_name(tmp_path: Path) -> None:
    state = small_state()
    path = written(tmp_path / "w.pth", {"state_dict": state, "state_dict_ema": doubled(state)})
    assert same(dict(read_checkpoint(path, entry="state_dict").state), state)
    with pytest.raises(WeightsError, match=r"no weights under 'state_dic'; did you mean: state_dict"):
        read_checkpoint(path, entry="state_dic")


def test_copies_within_one_dictionary_are_entries(tmp_path: Path) -> None:
    state = small_state()
    mixed = {f"encoder_q.{k}": v for k, v in state.items()} | {f"encoder_k.{k}": 0 * v for k, v in state.items()}
    found, report = loaded(written(tmp_path / "w.pth", {"state_dict": {**mixed, "queue": torch.ones(4)}}))
    assert same(found, state)
    assert report.entry == "state_dict.encoder_q"


def test_the_state_of_an_optimiser_is_no_entry(tmp_path: Path) -> None:
    state = small_state()
    momentum = {"state": {0: {"momentum_buffer": torch.ones(3)}}, "param_groups": [{"lr": 1.0}]}
    content = {"state_dict": state, "optimizer": momentum, "scaler": {"x": torch.ones(3)}, "lr_sched": {"a": state}}
    assert read_checkpoint(written(tmp_path / "w.pth", content)).other_entries == ()


@pytest.mark.parametrize(
    "name", ["criterion.weight", "model.loss_fn.centers", "train_accuracy.total", "losses.0.weight"]
)
def test_parameters_of_losses_are_left_out_and_named(tmp_path: Path, name: str) -> None:
    state = small_state()
    given = {**{f"model.{key}": value for key, value in state.items()}, name: torch.ones(3)}
    found, report = loaded(written(tmp_path / "w.ckpt", {"state_dict": given, "pytorch-lightning_version": "2.0"}))
    assert same(found, state)
    assert report.ignored == (name,)
    assert name in report.warnings[0]


@pytest.mark.parametrize(
    "rename",
    [
        lambda key: f"backbone.{key}",
        lambda key: f"module.encoder_q.{key}",
        lambda key: key.replace("layer1.", "layer1._orig_mod."),
        lambda key: key.replace("layer1.0.", "layer1.0._checkpoint_wrapped_module."),
        lambda key: f"_fsdp_wrapped_module.{key}".replace("layer2.0.", "layer2.0._fsdp_wrapped_module."),
        lambda key: key.replace("layer3.0.", "layer3.0.module."),
        lambda key: key if key.startswith("fc.") else f"encoder.{key}",
        lambda key: f"head.{key}" if key.startswith("fc.") else f"module.backbone.{key}",
    ],
)
def test_names_of_wrappers_may_stand_anywhere(tmp_path: Path, rename: Any) -> None:
    state = small_state()
    found, _ = loaded(written(tmp_path / "w.pth", {"state_dict": {rename(k): v for k, v in state.items()}}))
    assert same(found, state)


def test_integers_in_place_of_floats_are_refused_with_their_name(tmp_path: Path) -> None:
    state = small_state()
    for dtype in (torch.int8, torch.uint8, torch.int32):
        cast = {**state, "layer2.0.conv1.weight": state["layer2.0.conv1.weight"].to(dtype)}
        with pytest.raises(WeightsError, match=r"layer2\.0\.conv1\.weight is u?int.*float32.*cast to integers"):
            loaded(written(tmp_path / "w.pth", cast))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_not_finite_are_refused_with_their_name(tmp_path: Path, value: float) -> None:
    state = small_state()
    state["layer3.0.bn1.running_var"][2] = value
    with pytest.raises(WeightsError, match=r"layer3\.0\.bn1\.running_var holds 1 values that are not finite"):
        loaded(written(tmp_path / "w.pth", state))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:a\n", "git-lfs pointer"),
        (b"\n<!DOCTYPE html><html></html>", "web page"),
        (b"<html><body>Quota exceeded</body></html>", "web page"),
        (b'<?xml version="1.0"?><Error><Code>NoSuchKey</Code></Error>', "XML"),
        (gzip.compress(b"x" * 99, mtime=0), "gzip"),
        (b"\x89PNG\r\n\x1a\n", "PNG"),
        (b"\xff\xd8\xff\xe0", "JPEG"),
        (b"\x00\x00\x00\x20ftypisom", "MP4"),
        (b"%PDF-1.7", "PDF"),
        (bytes(257) + b"ustar\x0000", "tar archive"),
        (pickle.dumps({"blobs": {"conv1_w": b"x"}}), "caffe2 pickle"),
    ],
)
def test_what_is_no_checkpoint_is_named_by_its_first_bytes(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "w.pth").write_bytes(content)
    with pytest.raises(WeightsError, match=words):
        read_checkpoint(tmp_path / "w.pth")


def test_caffe2_blobs_are_weights_without_momentum(tmp_path: Path) -> None:
    blobs = {"conv1_w": np.ones((2, 3, 1, 7, 7), np.float32), "conv1_w_momentum": np.ones(2), "lr": np.ones(1)}
    for protocol in (2, 4):
        (tmp_path / "w.pkl").write_bytes(pickle.dumps({"blobs": blobs}, protocol=protocol))
        found = read_checkpoint(tmp_path / "w.pkl")
        assert (list(found.state), found.entry) == (["conv1_w"], "blobs")
        assert found.state["conv1_w"].shape == (2, 3, 1, 7, 7)


def test_numpy_values_of_any_type_stand_next_to_the_weights(tmp_path: Path) -> None:
    state = small_state()
    for value in (np.float16(1), np.datetime64("2020"), np.str_("r"), np.array([None, "a"], object), np.void(b"ab")):
        assert same(dict(read_checkpoint(written(tmp_path / "w.pth", {"state_dict": state, "x": value})).state), state)
