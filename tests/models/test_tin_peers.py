"""TIN and ACTION-Net against their published code: its keys and shapes, costs and logits, in its own files.

The numbers are those of deepcs233/TIN @801494aeadf4, V-Sense/ACTION-Net @3122b117ea5b and MMAction2 @4d6c93474730 with
weights and input of `fill.py`; TIN's CUDA kernel was replaced by its loops.
"""

import hashlib
import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from bench.measure.counting.model_count import count
from bench.models.factory import create_model
from bench.models.weights.identification import identify
from bench.models.weights.mmaction_export import to_mmaction2

MM = {"meta": {"mmaction_version": "1.2.0"}}
PEERS: dict[str, dict[str, Any]] = {
    "mmaction2 tin_r50": {
        "arguments": {"num_classes": 400},
        "wrapper": MM,
        "params": 24_358_640,
        "macs": 2_675_941_248,
        "digest": "86ffdb2222e43407",
        "head": [46.3152, -542.7441, 263.1716, 1020.7178, 636.9073, -368.7767],
        "l2": 10032.718635938445,
        "argmax": 330,
    },
    "authors tin_r50": {
        "arguments": {"num_classes": 174},
        "wrapper": {"epoch": 1, "arch": "resnet50"},
        "params": 23_895_566,
        "macs": 2_672_238_464,
        "digest": "105c70dec12f5fac",
        "head": [666.7007, -432.2908, 227.079, 755.7076, -844.1322, 415.7817],
        "l2": 7387.274294736767,
        "argmax": 104,
    },
    "authors tin_r101": {
        "arguments": {"num_classes": 5, "frames": 16, "shift_div": 8},
        "wrapper": {"epoch": 1, "arch": "resnet101"},
        "params": 42_554_946,
        "macs": 10_187_638_688,
        "digest": "5fde08413e8d0936",
        "head": [189265.9844, -22686.9043, -69569.3359, 221957.5625, -278660.0312],
        "l2": 409991.1871467366,
        "argmax": 3,
    },
    "authors action_net_r50": {
        "arguments": {"num_classes": 83},
        "wrapper": {},
        "params": 27_895_919,
        "macs": 2_835_624_256,
        "digest": "65bad4d4419ab9b0",
        "head": [1373374251008.0, -1175145152512.0, -700043034624.0, 1345728806912.0, -1631433129984.0],
        "l2": 11182047092734.453,
        "argmax": 53,
    },
}


@pytest.fixture(scope="module")
def fill(assets: Path) -> ModuleType:
    """The published rule by which weights and inputs of the references are made."""
    spec = importlib.util.spec_from_file_location("fill", assets / "reference" / "fill.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
@pytest.mark.parametrize("peer", PEERS)
def test_the_published_code_gives_these_keys_costs_and_logits(peer: str, fill: ModuleType, tmp_path: Path) -> None:
    known = PEERS[peer]
    name, arguments = peer.partition(" ")[2], known["arguments"]
    with torch.device("meta"):
        shapes = {key: list(v.shape) for key, v in create_model(name, **arguments).state_dict().items()}
    if known["wrapper"] is MM:
        shapes = {to_mmaction2("tin", shapes, arguments)[key]: shape for key, shape in shapes.items()}
    listed = "\n".join(sorted(f"{key} {shape}" for key, shape in shapes.items()))
    assert hashlib.sha256(listed.encode()).hexdigest()[:16] == known["digest"]
    state = {key: torch.from_numpy(np.asarray(fill.tensor_for(key, shape))) for key, shape in shapes.items()}
    file = tmp_path / "checkpoint.pth"
    torch.save({**known["wrapper"], "state_dict": state}, file)
    fits = {fit.model: fit.arguments for fit in identify(file).fits}
    model = create_model(name, weights=file, **fits[name]).eval()
    clip = torch.from_numpy(fill.input_for([1, 3, arguments.get("frames", 8), 64, 64]))
    with torch.no_grad():
        logits = model(clip).double().flatten()
    tolerance = 1e-3 * known["l2"] / arguments["num_classes"] ** 0.5
    assert sum(p.numel() for p in model.parameters()) == known["params"]
    assert np.abs(logits[: len(known["head"])].numpy() - known["head"]).max() < tolerance
    assert logits.norm().item() == pytest.approx(known["l2"], rel=1e-3)
    assert logits.argmax().item() == known["argmax"]
    assert count(model, clip).macs == known["macs"]
