"""Published implementations: their checkpoint file, written as they ship it, gives their logits."""

import importlib.util
import json
import math
import os
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from bench.measure.counting.model_count import count
from bench.models.factory import create_model, is_model
from bench.models.weights.identification import identify

LIGHT_PARAMETERS = 13e6

FAMILIES = {
    "resnet": "resnet3d",
    "resnet2p1d": "r2plus1d",
    "preresnet": "preact_resnet3d",
    "wideresnet": "wide_resnet3d",
    "resnext": "resnext3d",
    "densenet": "densenet3d",
}
"""3D-ResNets-PyTorch's names of architectures, and ours."""

OTHERS = {
    "C3D": "c3d",
    "uniformer_s8x8_k400": "uniformer_s_8x8",
    "k400/k400_b16_f8x224 T=8": "uniformerv2_b16_8",
    "MVITv2_S_16x4": "mvitv2_s_16x4",
    "divST_8x32_224": "timesformer_b_8x32",
    "vivit-b-16x2, 8 frames": "vivit_b_16x2",
    "vit_small_patch16_224": "videomae_s",
    "vit_small_patch16_224 (vit_s_k710_dl_from_giant)": "videomaev2_s",
    "hiera_base_16x224": "hiera_base_16x224",
    "i3d-rgb": "i3d_rgb",
    "i3d-flow": "i3d_flow",
    "I3D_8x8_R50": "i3d_r50",
    "C2D_NLN_8x8_R50": "c2d_nln_r50",
    "X3D_S": "x3d_s",
    "MoViNetA0 causal=False conv_type=3d tf_like=True": "movinet_a0_base",
    "MoViNetA0 causal=True conv_type=2plus1d tf_like=True": "movinet_a0_stream",
    "tanet_imagenet-pretrained-r50_8xb8-dense-1x1x8-100e_kinetics400-rgb": "tanet_r50",
    "tpn-slowonly_r50_8xb8-8x8x1-150e_kinetics400-rgb": "tpn_slow_r50",
    "vit_large rope encoder fed 8 frames of 128x128": "vjepa2_l_encoder",
    "AttentiveClassifier embed 1024 heads 16 depth 4": "vjepa2_l_probe",
    "videomamba_tiny f8 fed 112": "videomamba_ti_f8",
    "SLOW_4x16_R50": "slow_r50_4x16",
    "SLOWFAST_4x16_R50": "slowfast_r50_4x16",
    "tsm_imagenet-pretrained-r50_8xb16-1x1x8-50e_kinetics400-rgb": "tsm_r50",
}


def our_name(reference: dict[str, Any]) -> str:
    """What we call the model of a reference; PyTorchVideo's names are ours."""
    name: str = reference["model"]
    family, _, depth = name.partition("-")
    if reference["peer"] == "torchvision":
        return f"torchvision:{name}"
    if reference["peer"] == "hara":
        return f"{FAMILIES[family]}_{depth}"
    return OTHERS.get(name, name)


def references() -> list[Any]:
    """One test a file; those of large models are slow."""
    folder = Path(os.environ.get("VBENCH_TEST_ASSETS", "/nowhere"))
    paths = sorted(folder.glob("reference/peers/*.json"))
    is_light = {path: json.loads(path.read_text())["params"] < LIGHT_PARAMETERS for path in paths}
    return [pytest.param(path, id=path.stem, marks=() if is_light[path] else pytest.mark.slow) for path in paths]


@pytest.fixture(scope="module")
def fill(assets: Path) -> ModuleType:
    """The published rule by which weights and inputs of the references are made."""
    spec = importlib.util.spec_from_file_location("fill", assets / "reference" / "fill.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def written(path: Path, reference: dict[str, Any], fill: ModuleType) -> Path:
    """The checkpoint file of a reference as its authors ship it."""
    state = {
        reference["key_prefix"] + key: torch.from_numpy(np.asarray(fill.tensor_for(key, shape)))
        for key, shape in reference["state_dict"]
    }
    key = reference["state_key"]
    torch.save({**reference["wrapper"], key: state} if key else state, path)
    return path


def inputs_for(reference: dict[str, Any], fill: ModuleType) -> list[torch.Tensor]:
    shapes = reference["input"]
    return [torch.from_numpy(fill.input_for(shape)) for shape in (shapes if isinstance(shapes[0], list) else [shapes])]


@pytest.mark.parametrize("path", references())
def test_a_published_checkpoint_gives_its_logits(path: Path, fill: ModuleType, tmp_path: Path) -> None:
    reference = json.loads(path.read_text())
    name = our_name(reference)
    if not is_model(name):
        pytest.skip(f"no model {name}")
    file = written(tmp_path / "checkpoint.pth", reference, fill)
    arguments = {fit.model: fit.arguments for fit in identify(file).fits}[name]
    model = create_model(name, weights=file, **arguments).eval()
    with torch.no_grad():
        logits = model(*inputs_for(reference, fill)).double().flatten()
    report = model.__dict__["weights_report"]
    tolerance = 1e-3 * reference["logits_l2"] / reference["classes"] ** 0.5
    assert (report.loaded, report.fresh) == (len(reference["state_dict"]), ())
    assert sum(p.numel() for p in model.parameters()) == reference["params"]
    assert len(logits) == math.prod(reference.get("output_shape", [1, reference["classes"]]))
    assert np.abs(logits[:16].numpy() - reference["logits_head"]).max() < tolerance
    assert abs(logits.sum().item() - reference["logits_sum"]) < tolerance * reference["classes"] ** 0.5
    assert logits.norm().item() == pytest.approx(reference["logits_l2"], rel=1e-3)
    assert logits.argmax().item() == reference["argmax"]
    if total := reference.get("flops_counter_total"):
        counted = count(model, tuple(clip.to("meta") for clip in inputs_for(reference, fill)))
        assert (2 * counted.macs, counted.is_complete) == (total, True)
