"""Reads the weights of a checkpoint file of any source without running the code that it may contain."""

import hashlib
import pickle
import re
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench.core.errors import MissingPackageError, WeightsError, suggest
from bench.core.files import path_hint
from bench.models.weights.safe_pickle import read_torch

Shapes = Mapping[str, tuple[int, ...]]

AVERAGED = ("state_dict_ema", "model_ema", "ema_model", "model_state_ema", "params_ema", "ema_state", "ema", "averaged")
EVALUATED = ("target_encoder", "teacher", "encoder_q")
USUAL = ("state_dict", "model_state", "model_state_dict", "model", "module", "network", "net", "weights", "params")
SPARE = ("encoder", "student", "ema_state_dict", "encoder_k", "predictor", "decoder")
ENTRY_ORDER = (*AVERAGED, *EVALUATED, *USUAL, "blobs", "classifiers", *SPARE)
"""Entries that hold weights, in the order in which they are taken if a file has several.

Published accuracies are of averaged weights, and V-JEPA 2 evaluates `target_encoder`, DINO `teacher`. MMEngine swaps
the two before it saves: there `state_dict` is the average and `ema_state_dict` the raw weights, so that comes last.
"""

NOT_WEIGHTS = re.compile(
    r"optim|sched|scaler|callback|hyper_?param|param_groups|message_hub|^(opt_.*|amp|rng.*|loops|.*(cfg|config)|.*args|"
    r"meta|history|state)$",
    re.IGNORECASE,
)
"""Entries whose tensors are no weights, such as the momentum of an optimiser."""

WRAPPERS = ("_orig_mod", "_checkpoint_wrapped_module", "_fsdp_wrapped_module", "_fpw_module", "_forward_module")
"""Names that torch.compile, checkpointing and FSDP put into the names of weights; no model has such a name itself."""

PREFIXES = ("module.", "model.", "network.", "net.", "backbone.", "encoder.", "encoder_q.", "_model.", "video_model.")
"""What DataParallel, Lightning, AveragedModel and others put before every name."""

LEFT_BY_COUNTERS = ("total_ops", "total_params", "n_averaged")
"""Buffers that thop and torch's AveragedModel add to a model, and so to what is saved from it."""

VJEPA2_TABLES = ((32 * 16 * 16,), (32 * 24 * 24,))
"""Lengths of position tables in files of V-JEPA 2, for 64 frames of 256 and 384 pixels: its positions are rotary, and
its authors leave the tables out too. No other model here has a table so long."""

OF_LOSSES = re.compile(
    r"(criterion|criteria|loss|losses|loss_?f(n|un|unc)|metrics?|.*_(loss|criterion|metrics?|accuracy|acc))\d*",
    re.IGNORECASE,
)
"""First part of the name of weights that belong to a loss or a metric, not to the model."""

COPIES: tuple[tuple[str, str], ...] = (
    ("encoder_q", "encoder_k"),
    ("teacher", "student"),
    ("target_encoder", "encoder"),
    ("model_ema", "model"),
    ("ema_model", "model"),
    ("ema_model", "online_model"),
)
"""First parts of names that hold two copies of one model within one dictionary."""

CAFFE2_LEFT_OUT = re.compile(r"(_momentum|^lr$|^model_iter$|^pred$|^optimizer_iteration.*)$")

CONTAINERS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("PySlowFast", ("s1.pathway0_stem.",)),
    ("PyTorchVideo", ("blocks.0.", "blocks.1.", "blocks.4.res_blocks.")),
    ("PyTorchVideo", ("blocks.0.multipathway_blocks.",)),
    ("V-JEPA 2 probe", ("pooler.query_tokens", "linear.")),
    ("TimeSformer", ("patch_embed.proj.", "time_embed", "blocks.0.temporal_attn.")),
    (
        "VideoMAE",
        (
            "patch_embed.proj.",
            "blocks.0.attn.q_bias",
        ),
    ),
    ("PySlowFast", ("patch_embed.proj.", "pos_embed_class", "head.projection.")),
    ("Hiera", ("patch_embed.proj.", "pos_embed_spatial", "head.projection.")),
    ("PySlowFast", ("patch_embed.proj.", "blocks.0.attn.", "head.projection.")),
    ("V-JEPA 2", ("patch_embed.proj.", "blocks.0.attn.qkv.bias", "norm.")),
    ("UniFormer", ("patch_embed1.", "blocks1.0.pos_embed.")),
    ("UniFormerV2", ("transformer.resblocks.0.", "transformer.dec.0.")),
    ("UniFormerV2", ("backbone.transformer.resblocks.0.",)),
    ("VideoMamba", ("layers.0.mixer.A_log",)),
    ("MoViNet", ("conv1.conv_1.", "blocks.b0_l0.")),
    ("MMAction2", ("backbone.", "cls_head.")),
    ("MMAction2", ("conv1a.conv.",)),
    ("MMAction2", ("conv1.conv.", "layer1.0.conv1.conv.")),
    ("pytorch-i3d", ("Conv3d_1a_7x7.conv3d.",)),
    ("hassony2 I3D", ("conv3d_1a_7x7.conv3d.",)),
    ("C3D Sports-1M", ("features.0.", "features.18.", "classifier.0.", "classifier.3.")),
    ("TIN", ("base_model.layer1.0.conv1.net1.", "new_fc.")),
    ("ACTION-Net", ("base_model.layer1.0.conv1.action_shift.", "new_fc.")),
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
    ("VMZ caffe2", ("comp_0_conv_1",)),
    ("PySlowFast caffe2", ("res2_0_branch2a_w",)),
)
"""Who writes checkpoints whose weights have names that begin so; all the beginnings must occur."""

FIRST_BYTES: tuple[tuple[bytes, str], ...] = (
    (b"version https://git-lfs", "is a git-lfs pointer, not the file itself; run `git lfs pull` where it came from"),
    (b"\x1f\x8b", "is a gzip archive; unpack it (gunzip, or tar -xzf) and name the file within"),
    (b"BZh", "is a bzip2 archive; unpack it and name the file within"),
    (b"\xfd7zXZ", "is an xz archive; unpack it and name the file within"),
    (b"\x28\xb5\x2f\xfd", "is a zstd archive; unpack it and name the file within"),
    (b"7z\xbc\xaf", "is a 7z archive; unpack it and name the file within"),
    (b"Rar!", "is a rar archive; unpack it and name the file within"),
    (b"\x89PNG", "is a PNG image, not a checkpoint"),
    (b"\xff\xd8\xff", "is a JPEG image, not a checkpoint"),
    (b"GIF8", "is a GIF image, not a checkpoint"),
    (b"RIFF", "is a RIFF file (AVI, WAV or WebP), not a checkpoint"),
    (b"%PDF", "is a PDF document, not a checkpoint"),
    (b"\x89HDF", "is an HDF5 file (Keras); convert it to a torch file first"),
    (b"\x93NUMPY", "is a numpy array, not a checkpoint"),
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


MOST_OF_A_NUMBER = 10**200

# A small file can refer to one mapping under so many names that it stands for billions of them.
MOST_NAMES = 1_000_000


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """The weights of a checkpoint file. `state` has the names without the `prefix` that its writer put before them all.

    `entry` is the path of the weights within the file, empty if they are the file; `other_entries` are further ones
    that hold weights. `facts` are the plain values next to the weights (epoch, arch) and `keys` the names of all of
    them. `ignored` are tensors that are no weights of a model, such as parameters of a loss.
    """

    path: Path
    sha256: str
    n_bytes: int
    container: str
    state: Mapping[str, Tensor]
    prefix: str = ""
    entry: str = ""
    other_entries: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()
    facts: Mapping[str, str | int | float] = field(default_factory=dict)
    metadata: Mapping[str, Any] = field(default_factory=dict)
    ignored: tuple[str, ...] = ()

    @property
    def shapes(self) -> Shapes:
        return {key: tuple(value.shape) for key, value in self.state.items()}

    @property
    def is_averaged(self) -> bool:
        """Whether the weights taken are a moving average of those in training."""
        return any(part in AVERAGED for part in self.entry.split("."))


def is_same_weight(first: tuple[int, ...], second: tuple[int, ...]) -> bool:
    """Return whether weights of these shapes hold the same: a linear layer may be a convolution of 1x1x1."""
    return first == second or (
        len(first) != len(second)
        and min(len(first), len(second)) == 2
        and first[:2] == second[:2]
        and set(first[2:] + second[2:]) == {1}
    )


def read_checkpoint(path: str | PathLike[str], *, entry: str | None = None) -> Checkpoint:
    """Return the weights of a checkpoint file, on the CPU.

    Reads `.pth`, `.pt`, `.pyth`, `.pkl` (also caffe2's blobs), TorchScript and `.safetensors`. If several entries of
    the file hold weights, the one that its authors evaluate is taken, or `entry`. Raises WeightsError if the file is
    no checkpoint or has no such entry.
    """
    path = Path(path)
    if not path.is_file():
        raise WeightsError(f"no checkpoint file at {path}{' (a folder)' if path.is_dir() else path_hint(path)}")
    content = _read(path)
    try:
        entries = _entries(content)
    except ValueError as error:
        raise WeightsError(f"{path} {error}") from error
    if not entries:
        raise WeightsError(_why_no_weights(path, content))
    name = _chosen_entry(entries, entry, path=path)
    state = {_without_wrappers(key): value for key, value in entries[name].items()}
    ignored = tuple(key for key in state if _is_ignored(key, state))
    state, prefix = _without_prefix({key: value for key, value in state.items() if key not in ignored})
    return Checkpoint(
        path=path,
        sha256=_sha256(path),
        n_bytes=path.stat().st_size,
        container=container_of(state, entry=name),
        state=state,
        prefix=prefix,
        entry=name,
        other_entries=tuple(other for other in entries if other != name),
        keys=tuple(_key_text(key) for key in content),
        facts=_facts(content),
        metadata={key: value for key, value in content.items() if isinstance(key, str) and not _has_tensors(value)},
        ignored=ignored,
    )


def container_of(state: Mapping[str, Any], *, entry: str = "") -> str:
    """Return whose names these are, of those in CONTAINERS; `unknown` if nobody's."""
    for name, beginnings in CONTAINERS:
        if all(any(key.startswith(beginning) for key in state) for beginning in beginnings):
            return name
    stem = state.get("conv1.weight")
    if stem is not None and len(stem.shape) == 5 and any(key.startswith("layer1.0.") for key in state):
        return "3D-ResNets-PyTorch"
    return "caffe2" if entry == "blobs" else "unknown"


def stated_setting(checkpoint: Checkpoint, section: str, key: str) -> str:
    """Return in lower case what PySlowFast's config, YAML in a file, says of `key` in `section`; empty if nothing."""
    config = checkpoint.metadata.get("cfg")
    place = rf"^{section}:\n(?:[ \t].*\n)*?[ \t]+{key}:[ \t]*(\w+)"
    found = re.search(place, config, re.MULTILINE) if isinstance(config, str) else None
    return found[1].lower() if found else ""


def _read(path: Path) -> Mapping[Any, Any]:
    with path.open("rb") as file:
        first = file.read(512)
    if not first:
        raise WeightsError(f"{path} is empty")
    if reason := _not_a_checkpoint(first):
        raise WeightsError(f"{path} {reason}")
    try:
        content = _read_safetensors(path) if _is_safetensors(path, first) else read_torch(path)
    except MissingPackageError:
        raise
    except UNREADABLE as error:
        raise WeightsError(f"{path} is torn or not a checkpoint: {_reason(error)}") from error
    if isinstance(content, Tensor) or not isinstance(content, Mapping):
        raise WeightsError(f"{path} holds a {type(content).__name__}, not a dictionary of weights")
    return content


def _not_a_checkpoint(first: bytes) -> str:
    """What a file is by its first bytes, if that is no checkpoint; else empty."""
    text = first.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<!doctype html", b"<html", b"<head", b"<!--")):
        return "is a web page, not a checkpoint: the address answered with a page; open it in a browser"
    if text.startswith((b"<?xml", b"<error")):
        return "is XML, perhaps the error message of a download, not a checkpoint"
    if first[4:8] == b"ftyp":
        return "is an MP4 video, not a checkpoint"
    if first[257:262] == b"ustar":
        return "is a tar archive; unpack it and name the file within"
    return next((reason for start, reason in FIRST_BYTES if first.startswith(start)), "")


def _is_safetensors(path: Path, first: bytes) -> bool:
    """Such a file begins with the length of its JSON header in eight bytes, then the header."""
    return first[8:9] == b"{" and int.from_bytes(first[:8], "little") < path.stat().st_size


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


def _reason(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:160] if lines else type(error).__name__


def _entries(content: Mapping[Any, Any]) -> dict[str, dict[str, Tensor]]:
    """Every dictionary of tensors in the file by its path, except those of optimisers."""
    found = {".".join(path): state for path, state in _walk(content, (), left=iter(range(MOST_NAMES)))}
    for name, state in list(found.items()):
        found.update(_split_by_copies(name, state))
    return found


def _walk(
    node: Any, path: tuple[str, ...], *, left: Iterator[int]
) -> Iterator[tuple[tuple[str, ...], dict[str, Tensor]]]:
    if isinstance(node, list):
        node = {str(index): value for index, value in enumerate(node)} if path and len(node) <= 16 else {}
    if not isinstance(node, Mapping) or len(path) > 3:
        return
    tensors = {key: tensor for key, value in node.items() if (tensor := _as_tensor(key, value)) is not None}
    if any(tensor.ndim for tensor in tensors.values()):
        yield path, tensors
    for key, value in node.items():
        if next(left, None) is None:
            raise ValueError(f"holds more than {MOST_NAMES:,} names; save its weights alone")
        if isinstance(key, str) and not NOT_WEIGHTS.search(key):
            yield from _walk(value, (*path, key), left=left)


def _as_tensor(key: Any, value: Any) -> Tensor | None:
    """A named tensor; arrays of numbers, as caffe2 and plain pickles hold them, count as tensors."""
    if not isinstance(key, str):
        return None
    if isinstance(value, np.ndarray) and value.dtype.kind in "fiub" and not CAFFE2_LEFT_OUT.search(key):
        return torch.from_numpy(np.array(value, dtype=value.dtype.newbyteorder("=")))
    return value if isinstance(value, Tensor) else None


def _split_by_copies(name: str, state: dict[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """The copies of a model within one dictionary, such as `encoder_q.` and `encoder_k.`, each as an entry."""
    firsts = {key.partition(".")[0] for key in state}
    found = {}
    for copies in COPIES:
        if set(copies) <= firsts:
            for copy in copies:
                own = {key.removeprefix(f"{copy}."): v for key, v in state.items() if key.startswith(f"{copy}.")}
                found[f"{name}.{copy}".strip(".")] = own
    return found


def _rank(name: str) -> tuple[int, int]:
    """Place in ENTRY_ORDER of the part of the path that comes first there; unknown names rank before the spare ones."""
    known = [ENTRY_ORDER.index(part) for part in name.split(".") if part in ENTRY_ORDER]
    unknown = ENTRY_ORDER.index(SPARE[0])
    return (min(known) if known else (unknown if name else unknown - 1)), name.count(".")


def _chosen_entry(entries: Mapping[str, Mapping[str, Tensor]], asked: str | None, *, path: Path) -> str:
    if asked is not None:
        if asked not in entries:
            named = ", ".join(name or "the file itself" for name in entries)
            raise WeightsError(f"{path} has no weights under {asked!r}; {suggest(asked, entries)} (found: {named})")
        return asked
    most = max(len(state) for state in entries.values())
    # A few stray tensors at the top, such as a random state, are no model if an entry below holds one.
    large = [name for name, state in entries.items() if len(state) * 4 >= most]
    return min(large, key=lambda name: (_rank(name), -len(entries[name])))


def _why_no_weights(path: Path, content: Mapping[Any, Any]) -> str:
    if "blobs" in content:
        return f"{path} is a caffe2 pickle whose blobs hold no arrays, so it has no weights"
    found = ", ".join(_key_text(key) for key in list(content)[:6]) or "nothing"
    return f"{path} holds no weights; found: {found}; expected tensors by name, or one of {', '.join(USUAL)}"


def _has_tensors(value: Any) -> bool:
    """Whether there are tensors in `value`, each part of which is looked at once, however often it is referred to."""
    waiting, seen = [value], set()
    while waiting:
        each = waiting.pop()
        if id(each) in seen:
            continue
        seen.add(id(each))
        if isinstance(each, Mapping):
            waiting += each.values()
        elif isinstance(each, list | tuple):
            waiting += each
        elif isinstance(each, Tensor | np.ndarray) and each.ndim > 0:
            return True
    return False


def _facts(content: Mapping[Any, Any]) -> dict[str, str | int | float]:
    """The plain values next to the weights; a file of weights alone, whose names have dots, has none."""
    plain = {key: _plain(value) for key, value in content.items() if isinstance(key, str) and "." not in key}
    return {key: value for key, value in plain.items() if value is not None}


def _key_text(key: Any) -> str:
    try:
        return str(key)
    except ValueError:  # a number of more digits than Python prints
        return type(key).__name__


def _plain(value: Any) -> str | int | float | None:
    if isinstance(value, np.generic | Tensor) and value.ndim == 0:
        value = value.item()
    if isinstance(value, int):
        return value if abs(value) < MOST_OF_A_NUMBER else None  # Python refuses to print longer ones
    return value if isinstance(value, str | float) and len(str(value)) <= 200 else None


def _without_wrappers(key: str) -> str:
    return ".".join(part for part in key.split(".") if part not in WRAPPERS)


def _is_ignored(key: str, state: Mapping[str, Tensor]) -> bool:
    first, _, rest = key.partition(".")
    name = key.rpartition(".")[2]
    if name in LEFT_BY_COUNTERS or (name == "pos_embed" and state[key].shape[1:2] in VJEPA2_TABLES):
        return True
    if f"{first}." in PREFIXES:
        first = rest.partition(".")[0]
    return OF_LOSSES.fullmatch(first) is not None and any(not OF_LOSSES.match(other) for other in state)


def _without_prefix(state: dict[str, Tensor]) -> tuple[dict[str, Tensor], str]:
    removed = ""
    while prefix := next((p for p in PREFIXES if all(key.startswith(p) for key in state)), ""):
        state = {key.removeprefix(prefix): value for key, value in state.items()}
        removed += prefix
    return state, removed


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
