"""Reading checkpoint files: every container of the field, and files that are torn, foreign or hostile."""

import argparse
import hashlib
import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor

from bench.core.errors import WeightsError
from bench.models.weights.checkpoint import container_of, read_checkpoint

STATE = {"conv.weight": torch.arange(6.0).reshape(2, 3), "bn.running_mean": torch.ones(2)}


def saved(path: Path, content: Any) -> Path:
    torch.save(content, path)
    return path


@pytest.mark.parametrize("prefix", ["", "module.", "model.", "_orig_mod.module.", "module.model."])
@pytest.mark.parametrize("key", ["", "state_dict", "model_state", "model_state_dict", "model"])
def test_weights_are_found_under_every_wrapper_and_prefix(tmp_path: Path, key: str, prefix: str) -> None:
    state = {prefix + name: value for name, value in STATE.items()}
    checkpoint = read_checkpoint(saved(tmp_path / "w.pth", {key: state, "epoch": 7} if key else state))
    assert checkpoint.state.keys() == STATE.keys()
    assert torch.equal(checkpoint.state["conv.weight"], STATE["conv.weight"])
    assert checkpoint.prefix == prefix.replace("_orig_mod.", "")
    assert checkpoint.facts == ({"epoch": 7} if key else {})


def test_a_prefix_that_only_some_names_have_stays(tmp_path: Path) -> None:
    state = {"module.a": torch.ones(1), "b": torch.ones(1)}
    assert read_checkpoint(saved(tmp_path / "w.pt", state)).state.keys() == state.keys()


def test_safetensors_are_read_by_content_not_by_name(tmp_path: Path) -> None:
    save_file({f"module.{k}": v for k, v in STATE.items()}, tmp_path / "w.bin", metadata={"epoch": "3", "format": "pt"})
    checkpoint = read_checkpoint(tmp_path / "w.bin")
    assert checkpoint.facts == {"epoch": "3"}
    assert torch.equal(checkpoint.state["conv.weight"], STATE["conv.weight"])


def test_files_of_torch_before_zip_archives_are_read(tmp_path: Path) -> None:
    torch.save({"state_dict": STATE}, tmp_path / "old.pth.tar", _use_new_zipfile_serialization=False)
    assert read_checkpoint(tmp_path / "old.pth.tar").state.keys() == STATE.keys()


def test_entries_of_a_training_next_to_weights_do_no_harm(tmp_path: Path) -> None:
    beside = {
        "epoch": 200,
        "arch": "resnet-50",
        "best_acc": np.float64(0.5),
        "curve": np.arange(3.0),
        "loss": torch.tensor(0.25),
        "args": argparse.Namespace(lr=0.1),
        "optimizer": {"state": {0: {"momentum_buffer": torch.ones(2)}}, "param_groups": [{"lr": 0.1}]},
        "scheduler": None,
    }
    checkpoint = read_checkpoint(saved(tmp_path / "w.pth", {**beside, "state_dict": STATE}))
    assert checkpoint.facts == {"epoch": 200, "arch": "resnet-50", "best_acc": 0.5, "loss": 0.25}
    assert checkpoint.state.keys() == STATE.keys()


def test_what_counters_leave_in_a_model_is_no_weight(tmp_path: Path) -> None:
    left = {"total_ops": torch.zeros(1), "conv.total_params": torch.zeros(1)}
    checkpoint = read_checkpoint(saved(tmp_path / "w.pth", {**STATE, **left}))
    assert checkpoint.state.keys() == STATE.keys()
    assert set(checkpoint.ignored) == set(left)


def test_the_hash_is_that_of_the_file(tmp_path: Path) -> None:
    path = saved(tmp_path / "w.pth", STATE)
    checkpoint = read_checkpoint(path)
    assert checkpoint.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert checkpoint.n_bytes == path.stat().st_size


class Hostile:
    """Runs a command when it is unpickled, as a malicious checkpoint does."""

    def __init__(self, witness: Path) -> None:
        self.witness = witness

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.witness}",)


class SmallModel(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 1), torch.nn.BatchNorm2d(2))


@pytest.mark.parametrize("writer", ["torch", "torch_old", "pickle"])
@pytest.mark.parametrize("place", ["whole", "beside", "within"])
def test_code_in_a_file_is_never_run(tmp_path: Path, writer: str, place: str) -> None:
    witness, path = tmp_path / "it_ran", tmp_path / "w.pth"
    contents = {
        "whole": Hostile(witness),
        "beside": {"state_dict": STATE, "extra": Hostile(witness)},
        "within": {"state_dict": {**STATE, "x": Hostile(witness)}},
    }
    if writer == "pickle":
        path.write_bytes(pickle.dumps(contents[place]))
    else:
        torch.save(contents[place], path, _use_new_zipfile_serialization=writer == "torch")
    if place == "whole":
        with pytest.raises(WeightsError, match="holds a system, not a dictionary of weights"):
            read_checkpoint(path)
    else:
        assert torch.equal(read_checkpoint(path).state["conv.weight"], STATE["conv.weight"])
    assert not witness.exists()


@pytest.mark.parametrize(
    "source",
    [
        b"cos\nsystem\n(S'touch ran'\ntR.",
        b"(S'touch ran'\nios\nsystem\n.",
        b'cbuiltins\neval\n(S\'open("ran","w")\'\ntR.',
        b"\x80\x04\x8c\x08builtins\x8c\x04exec\x93\x8c\x0fopen('ran', 'w')\x85R.",
        b"\x80\x04\x8c\x07os.path\x8c\x09os.system\x93\x8c\x09touch ran\x85R.",
        b"ctorch.storage\n_load_from_bytes\n(C\x1ccos\nsystem\n(S'touch ran'\ntR.tR.",
        b"cbuiltins\ngetattr\n(cos\npath\nS'os'\ntR.",
    ],
    ids=["reduce", "inst", "eval", "exec", "dotted", "nested", "getattr"],
)
def test_no_opcode_runs_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: bytes) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "w.pkl").write_bytes(source)
    with pytest.raises(WeightsError):
        read_checkpoint(tmp_path / "w.pkl")
    assert not (tmp_path / "ran").exists()


def test_a_zip_that_unpacks_to_far_more_than_itself_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    whole = saved(tmp_path / "whole.pth", STATE)
    with zipfile.ZipFile(whole) as read, zipfile.ZipFile(tmp_path / "bomb.pth", "w", zipfile.ZIP_DEFLATED) as written:
        for entry in read.infolist():
            written.writestr(entry.filename, bytes(1 << 26) if entry.filename.endswith("/data/1") else read.read(entry))
    with pytest.raises(WeightsError, match=r"bomb\.pth is torn .*: [\d,]+ bytes that unpack to 67,1\d\d,\d\d\d"):
        read_checkpoint(tmp_path / "bomb.pth")


def test_the_mark_of_the_byte_order_is_no_bomb_either(tmp_path: Path) -> None:
    whole = saved(tmp_path / "whole.pth", STATE)
    with zipfile.ZipFile(whole) as read, zipfile.ZipFile(tmp_path / "bomb.pth", "w", zipfile.ZIP_DEFLATED) as written:
        for entry in read.infolist():
            is_mark = entry.filename.endswith("/byteorder")
            written.writestr(entry.filename, bytes(1 << 26) if is_mark else read.read(entry))
    with pytest.raises(WeightsError, match="written on a big-endian machine"):
        read_checkpoint(tmp_path / "bomb.pth")


def test_a_tensor_cannot_repeat_a_few_bytes_a_billion_times(tmp_path: Path) -> None:
    path = saved(tmp_path / "w.pth", {**STATE, "fc.weight": torch.ones(1).expand(10**10, 4)})
    assert path.stat().st_size < 10_000
    with pytest.raises(WeightsError, match="a tensor of 40,000,000,000 values that repeats 4 bytes"):
        read_checkpoint(path)
    small = saved(tmp_path / "small.pth", {"conv.bias": torch.ones(1).expand(64)})
    assert read_checkpoint(small).state["conv.bias"].tolist() == [1.0] * 64


@pytest.mark.parametrize("extra", [{"epoch": 10**5000}, {10**5000: "x"}, {(10**5000,): "x"}])
def test_numbers_that_python_refuses_to_print_do_no_harm(tmp_path: Path, extra: dict[Any, Any]) -> None:
    found = read_checkpoint(saved(tmp_path / "w.pth", {"state_dict": STATE, **extra}))
    assert found.state.keys() == STATE.keys()
    assert "epoch" not in found.facts


def test_weights_that_somebody_zipped_again_are_read(tmp_path: Path) -> None:
    state = {"conv.weight": torch.rand(64, 64), "mask": torch.zeros(64, 64)}
    whole = saved(tmp_path / "whole.pth", state)
    with zipfile.ZipFile(whole) as read, zipfile.ZipFile(tmp_path / "w.pth", "w", zipfile.ZIP_DEFLATED) as written:
        for entry in read.infolist():
            written.writestr(entry.filename, read.read(entry))
    assert torch.equal(read_checkpoint(tmp_path / "w.pth").state["conv.weight"], state["conv.weight"])


@pytest.mark.parametrize("kind", [list, tuple])
def test_lists_that_refer_to_one_another_billions_of_times_are_read_at_once(tmp_path: Path, kind: type) -> None:
    nested: Any = kind([1])
    for _ in range(30):
        nested = kind([nested] * 10)
    (tmp_path / "w.pkl").write_bytes(pickle.dumps({"w": np.ones(3), "nested": nested}))
    assert read_checkpoint(tmp_path / "w.pkl").state.keys() == {"w"}


def test_mappings_of_billions_of_names_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.models.weights.checkpoint.MOST_NAMES", 10_000)
    nested: dict[str, Any] = dict(STATE)
    for _ in range(3):
        nested = {str(number): nested for number in range(1000)}
    with pytest.raises(WeightsError, match=r"w\.pth holds more than 10,000 names"):
        read_checkpoint(saved(tmp_path / "w.pth", nested))


def test_a_saved_model_whose_modules_are_shared_billions_of_times_is_refused(tmp_path: Path) -> None:
    nested: torch.nn.Module = torch.nn.Conv2d(1, 2, 1)
    for _ in range(40):
        parent = torch.nn.Module()
        parent.first = parent.second = nested
        nested = parent
    with pytest.raises(WeightsError, match="a model of more than 100,000 modules"):
        read_checkpoint(saved(tmp_path / "w.pth", nested))


@pytest.mark.parametrize("operation", [b"r\xff\xff\xff\xff", b"p4294967295\n"])
def test_a_pickle_cannot_reserve_memory_by_a_large_number(tmp_path: Path, operation: bytes) -> None:
    (tmp_path / "w.pkl").write_bytes(b"\x80\x02}" + operation + b".")
    with pytest.raises(WeightsError, match="numbers 4,294,967,295 objects in"):
        read_checkpoint(tmp_path / "w.pkl")


@pytest.mark.parametrize("protocol", range(6))
def test_a_plain_pickle_of_every_protocol_is_read(tmp_path: Path, protocol: int) -> None:
    array = np.arange(300, dtype=np.float32)
    (tmp_path / "w.pkl").write_bytes(pickle.dumps({"w": array}, protocol=protocol))
    assert np.array_equal(read_checkpoint(tmp_path / "w.pkl").state["w"].numpy(), array)


def test_a_text_pickle_of_python_2_is_read(tmp_path: Path) -> None:
    """Its strings are bytes in quotes, such as those of arrays in pickles of caffe2."""
    raw = repr(np.float32([1.5, -2]).tobytes()).removeprefix("b").encode()
    (tmp_path / "w.pkl").write_bytes(
        b"(dp0\nS'w'\np1\ncnumpy.core.multiarray\n_reconstruct\np2\n(cnumpy\nndarray\np3\n(I0\ntS'b'\ntRp4\n"
        b"(I1\n(I2\ntcnumpy\ndtype\np5\n(S'f4'\nI0\nI1\ntR(I3\nS'<'\nNNNI-1\nI-1\nI0\ntbI00\nS" + raw + b"\ntbs."
    )
    assert read_checkpoint(tmp_path / "w.pkl").state["w"].tolist() == [1.5, -2]


def header(text: str, *, length: int | None = None) -> bytes:
    return (len(text) if length is None else length).to_bytes(8, "little") + text.encode()


@pytest.mark.parametrize(
    "content",
    [
        header("{}", length=1 << 62),
        header("{}", length=1 << 30),
        header('{"w":{"dtype":"F32","shape":[1099511627776],"data_offsets":[0,4398046511104]}}'),
        header('{"w":{"dtype":"F32","shape":[4],"data_offsets":[0,4]}}') + bytes(4),
        header('{"w":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,4]}}') + bytes(4),
        header(
            '{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"b":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}}'
        )
        + bytes(4),
    ],
    ids=["header of exabytes", "header of a gigabyte", "terabytes", "too short", "overflow", "overlap"],
)
def test_safetensors_that_promise_more_than_they_hold_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "w.safetensors").write_bytes(content)
    with pytest.raises(WeightsError, match=r"w\.safetensors is torn or not a checkpoint: "):
        read_checkpoint(tmp_path / "w.safetensors")


def test_one_file_cannot_change_how_the_next_is_read(tmp_path: Path) -> None:
    """BUILD with slots sets attributes of whatever a file names."""
    hostile = b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\nN}X\x09\x00\x00\x00_functionctorch\nSize\ns\x86b."
    (tmp_path / "hostile.pkl").write_bytes(hostile)
    with pytest.raises(WeightsError):
        read_checkpoint(tmp_path / "hostile.pkl")
    assert read_checkpoint(saved(tmp_path / "w.pth", STATE)).state.keys() == STATE.keys()


@pytest.mark.parametrize("is_zip", [True, False])
def test_a_model_that_was_saved_whole_gives_its_weights(tmp_path: Path, is_zip: bool) -> None:
    model = SmallModel()
    torch.save({"model": model}, tmp_path / "w.pth", _use_new_zipfile_serialization=is_zip)
    state = read_checkpoint(tmp_path / "w.pth").state
    assert state.keys() == model.state_dict().keys()
    assert all(torch.equal(state[key], value) for key, value in model.state_dict().items())


@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_the_weights_of_a_torchscript_program_are_read(tmp_path: Path) -> None:
    model = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 1), torch.nn.BatchNorm2d(2))
    torch.jit.save(torch.jit.script(model), tmp_path / "s.pt")
    state = read_checkpoint(tmp_path / "s.pt").state
    assert all(torch.equal(state[key], value) for key, value in model.state_dict().items())


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ([STATE], "holds a list, not a dictionary"),
        ({"epoch": 3}, "holds no weights; found: epoch"),
        ({"state_dict": {}}, "holds no weights"),
        ({}, "found: nothing"),
        (torch.ones(3), "holds a Tensor"),
    ],
)
def test_a_file_without_weights_is_named(tmp_path: Path, content: Any, words: str) -> None:
    with pytest.raises(WeightsError, match=words):
        read_checkpoint(saved(tmp_path / "w.pth", content))


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="no checkpoint file at"):
        read_checkpoint(tmp_path / "no.pth")
    with pytest.raises(WeightsError, match="a folder"):
        read_checkpoint(tmp_path)
    (tmp_path / "empty.pth").touch()
    with pytest.raises(WeightsError, match="is empty"):
        read_checkpoint(tmp_path / "empty.pth")


@pytest.mark.parametrize("kind", ["zip", "old", "safetensors"])
def test_a_torn_file_is_named_wherever_it_was_torn(tmp_path: Path, kind: str) -> None:
    whole, torn = tmp_path / "w", tmp_path / "torn.pth"
    state = {f"layer{n}.weight": torch.randn(50, 50) for n in range(4)}
    if kind == "safetensors":
        save_file(state, whole)
    else:
        torch.save(state, whole, _use_new_zipfile_serialization=kind == "zip")
    content = whole.read_bytes()
    for length in (1, 5, 9, 20, 100, len(content) // 2, len(content) - 2000, len(content) - 1):
        torn.write_bytes(content[:length])
        with pytest.raises(WeightsError, match=r"torn\.pth is torn or not a checkpoint: "):
            read_checkpoint(torn)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    content=st.one_of(st.binary(min_size=1, max_size=60), st.text(min_size=1).map(str.encode)),
    place=st.integers(0, 600),
)
@example(content=b"\\", place=1)  # a name with a backslash
def test_no_bytes_raise_anything_else(tmp_path: Path, content: bytes, place: int) -> None:
    """Noise alone, and noise written over a good file of either kind."""
    for name, is_zip in (("zip", True), ("old", False)):
        path = tmp_path / name
        torch.save(STATE, path, _use_new_zipfile_serialization=is_zip)
        good = path.read_bytes()
        for damaged in (content, good[:place] + content + good[place + len(content) :]):
            path.write_bytes(damaged)
            try:
                state = read_checkpoint(path).state
            except WeightsError:
                continue
            assert all(isinstance(value, Tensor) for value in state.values())


@pytest.mark.parametrize(
    ("names", "container"),
    [
        (["s1.pathway0_stem.conv.weight", "head.projection.weight"], "PySlowFast"),
        (["blocks.0.conv.weight", "blocks.1.res_blocks.0.a", "blocks.4.res_blocks.0.a"], "PyTorchVideo"),
        (["backbone.conv1.conv.weight", "cls_head.fc_cls.weight"], "MMAction2"),
        (["Conv3d_1a_7x7.conv3d.weight"], "pytorch-i3d"),
        (["base_model.conv1.weight", "new_fc.weight"], "TSM"),
        (["conv3a.weight", "fc6.weight"], "C3D"),
        (["stem.0.weight", "layer1.0.conv1.0.weight"], "torchvision"),
        (["videomae.embeddings.x"], "Hugging Face"),
        (["encoder.x"], "unknown"),
    ],
)
def test_containers_are_recognised_by_their_names(names: list[str], container: str) -> None:
    assert container_of(dict.fromkeys(names, torch.zeros(1))) == container
