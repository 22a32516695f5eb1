"""Reads a checkpoint file, whoever wrote it, without running code that it may carry."""

import argparse
import hashlib
import pickle
import re
import struct
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench.core.errors import MissingPackageError, WeightsError

Shapes = Mapping[str, tuple[int, ...]]

STATE_KEYS = ("state_dict", "model_state", "model_state_dict", "model", "module", "network", "net", "weights")
"""Where the dictionaries of the field keep their weights, the most telling name first."""

PREFIXES = ("module.", "_orig_mod.", "model.", "network.", "net.")
"""What DataParallel, torch.compile, Lightning and others put before every name."""

LEFT_BY_COUNTERS = ("total_ops", "total_params")
"""Buffers that thop leaves in a network, and so in what is saved from it."""

CONTAINERS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("PySlowFast", ("s1.pathway0_stem.",)),
    ("PyTorchVideo", ("blocks.0.", "blocks.1.")),
    ("MMAction2", ("backbone.", "cls_head.")),
    ("pytorch-i3d", ("Conv3d_1a_7x7.conv3d.",)),
    ("C3D Sports-1M", ("features.0.", "features.18.", "classifier.0.", "classifier.3.")),
    ("TSM", ("base_model.", "new_fc.")),
    ("C3D", ("conv3a.", "fc6.")),
    ("3D-ResNets-PyTorch", ("features.denseblock1.denselayer1.", "features.norm5.")),
    ("3D-ResNets-PyTorch", ("conv1_s.", "layer1.0.")),
    ("Hugging Face", ("videomae.",)),
    ("Hugging Face", ("timesformer.",)),
    ("Hugging Face", ("vivit.",)),
    ("torchvision", ("stem.0.", "layer1.0.conv1.0.")),
    ("torchvision", ("conv_proj.", "blocks.0.")),
    ("torchvision", ("patch_embed.", "features.0.0.")),
    ("torchvision", ("features.0.0.", "classifier.1.")),
)
"""Who writes checkpoints whose weights have names that begin so; all the beginnings must occur."""

_NUMPY_SCALAR, _NUMPY_ARRAY = np.float64(0).__reduce__()[0], np.zeros(0).__reduce__()[0]

# What checkpoints of the field hold beside tensors; building any of these runs no code of the file's author.
HARMLESS: tuple[Any, ...] = (
    argparse.Namespace,
    np.dtype,
    np.ndarray,
    *(type(np.dtype(kind)) for kind in ("bool", "int32", "int64", "float32", "float64")),
    *((_NUMPY_SCALAR, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),
    *((_NUMPY_ARRAY, f"numpy.{core}.multiarray._reconstruct") for core in ("core", "_core")),
)

# What torch, pickle and safetensors raise on files that are torn or were never a checkpoint.
UNREADABLE = (
    pickle.UnpicklingError,
    struct.error,
    RuntimeError,
    ValueError,
    TypeError,
    AttributeError,
    LookupError,
    AssertionError,
    ArithmeticError,
    EOFError,
    ImportError,
    MemoryError,
    OSError,
)


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """What a checkpoint file holds. `state` has the names without the `prefix` that its writer put before them all.

    `facts` are the plain values beside the weights (epoch, arch); `ignored` are entries that are no weights.
    """

    path: Path
    sha256: str
    n_bytes: int
    container: str
    state: Mapping[str, Tensor]
    prefix: str = ""
    facts: Mapping[str, str | int | float] = field(default_factory=dict)
    ignored: tuple[str, ...] = ()

    @property
    def shapes(self) -> Shapes:
        return {key: tuple(value.shape) for key, value in self.state.items()}


def read_checkpoint(path: str | PathLike[str]) -> Checkpoint:
    """The weights of a `.pth`, `.pt`, `.pyth` or `.safetensors` file, on the CPU; WeightsError if it holds none."""
    path = Path(path)
    if not path.is_file():
        raise WeightsError(f"no checkpoint file at {path}{' (a folder)' if path.is_dir() else ''}")
    content = _read(path)
    state = _state(content, path=path)
    ignored = tuple(key for key in state if key.rpartition(".")[2] in LEFT_BY_COUNTERS)
    state, prefix = _without_prefix({key: value for key, value in state.items() if key not in ignored})
    return Checkpoint(
        path=path,
        sha256=_sha256(path),
        n_bytes=path.stat().st_size,
        container=container_of(state),
        state=state,
        prefix=prefix,
        facts=_facts(content),
        ignored=ignored,
    )


def container_of(state: Mapping[str, Any]) -> str:
    """Whose names these are, of those in CONTAINERS; `unknown` if nobody's."""
    for name, beginnings in CONTAINERS:
        if all(any(key.startswith(beginning) for key in state) for beginning in beginnings):
            return name
    stem = state.get("conv1.weight")
    if stem is not None and len(stem.shape) == 5 and any(key.startswith("layer1.0.") for key in state):
        return "3D-ResNets-PyTorch"
    return "unknown"


def _read(path: Path) -> Mapping[str, Any]:
    if path.stat().st_size == 0:
        raise WeightsError(f"{path} is empty")
    try:
        content = _read_safetensors(path) if _is_safetensors(path) else _read_torch(path)
    except MissingPackageError:
        raise
    except UNREADABLE as error:
        raise WeightsError(f"{path} {_why_unreadable(error)}") from error
    if not isinstance(content, Mapping):
        raise WeightsError(f"{path} holds a {type(content).__name__}, not a dictionary of weights")
    return content


def _read_torch(path: Path) -> Any:
    with torch.serialization.safe_globals(list(HARMLESS)), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that another version of pickle wrote the file
        return torch.load(path, map_location="cpu", weights_only=True)


def _is_safetensors(path: Path) -> bool:
    """Such a file begins with the length of its JSON header in eight bytes, then the header."""
    with path.open("rb") as file:
        start = file.read(9)
    return len(start) == 9 and start[8:] == b"{" and int.from_bytes(start[:8], "little") < path.stat().st_size


def _read_safetensors(path: Path) -> dict[str, Any]:
    try:
        from safetensors import SafetensorError, safe_open
    except ImportError as error:
        raise MissingPackageError("safetensors", needed_for=str(path), install="pip install safetensors") from error
    try:
        with safe_open(path, framework="pt") as file:
            facts = {key: value for key, value in (file.metadata() or {}).items() if key != "format"}
            return {**facts, "state_dict": {key: file.get_tensor(key) for key in file.keys()}}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(str(error)) from error


def _why_unreadable(error: BaseException) -> str:
    text = str(error)
    if "TorchScript" in text:
        return "is a TorchScript program, not a checkpoint; save `model.state_dict()` instead"
    foreign = re.search(r"[Uu]nsupported (?:global: )?GLOBAL (\S+)", text)
    if foreign:
        return (
            f"holds a {foreign[1]}, and reading that could run code of whoever wrote the file; "
            "if you trust it, load it where it was made and save `model.state_dict()` alone"
        )
    if "Trying to call reduce" in text or "Can only create new object" in text:
        return "holds more than weights, and reading that could run code of whoever wrote the file"
    reason = text.rpartition("WeightsUnpickler error:")[2].strip() or type(error).__name__
    return f"is torn or not a checkpoint: {reason.splitlines()[0][:160]}"


def _state(content: Mapping[str, Any], *, path: Path) -> dict[str, Tensor]:
    candidates = [content.get(key) for key in STATE_KEYS] + [content]
    for candidate in candidates:
        if isinstance(candidate, Mapping):
            tensors = {key: v for key, v in candidate.items() if isinstance(key, str) and isinstance(v, Tensor)}
            if tensors:
                return tensors
    found = ", ".join(str(key) for key in list(content)[:6]) or "nothing"
    raise WeightsError(f"{path} holds no weights; found: {found}; expected tensors by name, or one of {STATE_KEYS}")


def _facts(content: Mapping[str, Any]) -> dict[str, str | int | float]:
    """The plain values beside the weights; a file of weights alone, whose names have dots, has none."""
    plain = {key: _plain(value) for key, value in content.items() if isinstance(key, str) and "." not in key}
    return {key: value for key, value in plain.items() if value is not None}


def _plain(value: Any) -> str | int | float | None:
    if isinstance(value, np.generic | Tensor) and value.ndim == 0:
        value = value.item()
    return value if isinstance(value, str | int | float) and len(str(value)) <= 200 else None


def _without_prefix(state: dict[str, Tensor]) -> tuple[dict[str, Tensor], str]:
    removed = ""
    while prefix := next((p for p in PREFIXES if all(key.startswith(p) for key in state)), ""):
        state = {key.removeprefix(prefix): value for key, value in state.items()}
        removed += prefix
    return state, removed


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
