"""The zoo of a file: small files in the containers of the zoos, each recognised or only assumed."""

from pathlib import Path
from typing import Any

import pytest
import torch

from bench.core.errors import WeightsError
from bench.models.factory import create_model
from bench.models.weights.checkpoint import read_checkpoint
from bench.models.weights.checkpoint_protocol import protocol_of_checkpoint
from bench.models.weights.identification import identify
from bench.models.weights.loading import load_weights
from bench.models.weights.recognition import notes_on_head, recognise, why_detector


def named(*names: str, **shapes: tuple[int, ...]) -> dict[str, torch.Tensor]:
    state = {f"{name}.weight": torch.ones(2, 2) for name in names}
    return {**state, **{f"{key.replace('__', '.')}.weight": torch.ones(shape) for key, shape in shapes.items()}}


HARA = named("bn1", "layer1.0.conv1", "fc", conv1=(2, 3, 7, 7, 7))
C3D = named("conv1", "conv3a", "fc6")
MM = {"meta": {"mmengine_version": "0.10"}}
MVIT = {
    **named("patch_embed.proj", "head.projection"),
    **{f"blocks.{n}.attn.rel_pos_h": torch.ones(2, 2) for n in range(16)},
}

CASES: list[tuple[str, Any, str, str]] = [
    (
        "w.pth.tar",
        {"epoch": 1, "state_dict": {**C3D, **named(fc8=(101, 2))}, "opt_dict": {}},
        "jfzhang95 C3D UCF101",
        "recognised",
    ),
    (
        "w.pth.tar",
        {"epoch": 1, "state_dict": {**C3D, **named(fc8=(51, 2))}, "opt_dict": {}},
        "jfzhang95 C3D HMDB51",
        "recognised",
    ),
    ("c3d.pickle", {**C3D, **named(fc8=(487, 2))}, "DavideA c3d.pickle", "assumed"),
    (
        "w.pth",
        {"epoch": 1, "arch": "resnet-50", "state_dict": HARA, "optimizer": {}, "scheduler": {}},
        "3D-ResNets-PyTorch master",
        "recognised",
    ),
    (
        "w.pth",
        {"epoch": 1, "arch": "resnet-50", "state_dict": {f"module.{k}": v for k, v in HARA.items()}, "optimizer": {}},
        "3D-ResNets-PyTorch CVPR2018",
        "recognised",
    ),
    ("w.pth", HARA, "3D-ResNets-PyTorch master", "assumed"),
    (
        "w.pth",
        {**MM, "state_dict": named("backbone.conv1a.conv", "cls_head.fc_cls")},
        "mmaction2 C3D UCF101",
        "recognised",
    ),
    (
        "w.pth",
        {**MM, "state_dict": named("backbone.layer1.0.conv1.conv.net", "cls_head.fc_cls")},
        "mmaction2 TSM R50 K400",
        "recognised",
    ),
    (
        "w.pth",
        {**MM, "state_dict": named("backbone.layer1.0.conv1.conv.net", cls_head__fc_cls=(174, 2))},
        "mmaction2 TSM R50 SSv2",
        "recognised",
    ),
    (
        "w.pth",
        {**MM, "state_dict": named("backbone.layer1.0.conv1.conv.net1.offset_net.fc1", "cls_head.fc_cls")},
        "mmaction2 TIN R50 K400",
        "recognised",
    ),
    (
        "w.pth",
        {**MM, "state_dict": named("backbone.layer1.0.conv1.conv.net1.offset_net.fc1", cls_head__fc_cls=(174, 2))},
        "mmaction2 TIN R50 SSv2",
        "recognised",
    ),
    (
        "ckpt.best.pth.tar",
        {
            "epoch": 1,
            "arch": "resnet50",
            "state_dict": named("module.base_model.layer1.0.conv1.net1.biasnet.net.fc", "module.new_fc"),
        },
        "TIN (deepcs233)",
        "recognised",
    ),
    (
        "clip_len_8frame_sample_rate_1_checkpoint.pth.tar",
        {"state_dict": named("base_model.layer1.0.conv1.action_shift", new_fc=(83, 2)), "optimizer": {}},
        "ACTION-Net EgoGesture",
        "assumed",
    ),
    (
        "clip_len_8frame_sample_rate_1_checkpoint.pth.tar",
        {"state_dict": named("base_model.layer1.0.conv1.action_shift", new_fc=(27, 2)), "optimizer": {}},
        "ACTION-Net Jester",
        "assumed",
    ),
    (
        "w.pth",
        {**MM, "state_dict": named("cls_head.fc_cls", backbone__conv1__conv=(2, 3, 7, 7))},
        "mmaction2 TSN R50 K400",
        "recognised",
    ),
    (
        "w.pth",
        {**MM, "state_dict": named("cls_head.fc_cls", backbone__conv1__conv=(2, 3, 5, 7, 7))},
        "mmaction2 I3D R50",
        "recognised",
    ),
    (
        "w.pth",
        {**MM, "state_dict": named("cls_head.fc_cls", "backbone.slow_path.conv1.conv")},
        "mmaction2 SlowFast",
        "recognised",
    ),
    (
        "w.pth",
        {
            "meta": {"mmcv_version": "1.3"},
            "state_dict": {
                **named("cls_head.fc_cls", "backbone.patch_embed.proj"),
                "backbone.layers.0.blocks.0.attn.relative_position_bias_table": torch.ones(2, 2),
            },
        },
        "Video Swin (authors)",
        "recognised",
    ),
    ("rgb_imagenet.pt", named("logits.conv3d", Conv3d_1a_7x7__conv3d=(2, 3, 7, 7, 7)), "piergiaj I3D RGB", "assumed"),
    ("flow_imagenet.pt", named("logits.conv3d", Conv3d_1a_7x7__conv3d=(2, 2, 7, 7, 7)), "piergiaj I3D flow", "assumed"),
    ("model_rgb.pth", named("conv3d_1a_7x7.conv3d"), "hassony2 I3D", "assumed"),
    ("x3d_s.pyth", {"model_state": named("s1.pathway0_stem.conv_xy"), "cfg": ""}, "PySlowFast X3D_S", "recognised"),
    ("x.pyth", {"model_state": MVIT, "cfg": ""}, "PySlowFast MVITv2_S_16x4", "recognised"),
    ("x.pyth", {"model_state": {**MVIT, **named(head__projection=(174, 2))}}, "PySlowFast SSv2 MViTv2", "recognised"),
    ("x.pyth", {"model_state": named("blocks.0.multipathway_blocks.0.conv")}, "PyTorchVideo hub", "recognised"),
    ("r3d_18.pth", named("stem.0", "layer1.0.conv1.0"), "torchvision r3d_18", "assumed"),
    (
        "r2.pth",
        named("stem.0", "layer1.0.conv1.0", layer2__0__conv2__0__0=(288, 2, 1, 3, 3)),
        "ig65m-pytorch",
        "assumed",
    ),
    (
        "w.pth.tar",
        {"epoch": 1, "arch": "resnet50", "state_dict": named("module.base_model.conv1.net", "module.new_fc")},
        "TSM (mit-han-lab) uniform",
        "recognised",
    ),
    (
        "x_dense.pth.tar",
        {"epoch": 1, "arch": "resnet50", "state_dict": named("module.base_model.conv1.net", "module.new_fc")},
        "TSM dense",
        "recognised",
    ),
    (
        "w.pyth",
        {
            "model_state": {
                **named("model.patch_embed.proj", "model.blocks.0.temporal_attn.qkv"),
                "model.time_embed": torch.ones(1, 2),
            }
        },
        "TimeSformer Kinetics",
        "recognised",
    ),
    (
        "w.pth",
        {"module": {**named("patch_embed.proj", "head"), "blocks.0.attn.q_bias": torch.ones(2)}},
        "VideoMAE K400",
        "recognised",
    ),
    (
        "w.pth",
        {"module": {**named("patch_embed.proj", head=(710, 2)), "blocks.0.attn.q_bias": torch.ones(2)}},
        "VideoMAE V2",
        "recognised",
    ),
    (
        "w.pth",
        {"model_state": named("patch_embed1.proj", "blocks1.0.pos_embed", "head")},
        "UniFormer (v1)",
        "recognised",
    ),
    (
        "w.pth",
        {"model_state": {**named("patch_embed.proj", "head.projection"), "pos_embed_spatial": torch.ones(1, 2)}},
        "Hiera video",
        "recognised",
    ),
]


@pytest.mark.parametrize(("file", "content", "zoo", "mark"), CASES)
def test_the_zoo_of_a_file_is_found(tmp_path: Path, file: str, content: Any, zoo: str, mark: str) -> None:
    torch.save(content, tmp_path / file)
    found = recognise(read_checkpoint(tmp_path / file))
    assert found is not None
    assert found.row.zoo.startswith(zoo)
    assert found.mark == mark


def test_names_that_many_ports_share_identify_no_zoo(tmp_path: Path) -> None:
    torch.save({**C3D, **named(fc8=(101, 2))}, tmp_path / "w.pth")
    assert recognise(read_checkpoint(tmp_path / "w.pth")) is None


def test_a_loaded_model_knows_the_protocol_and_class_order_of_its_zoo(tmp_path: Path) -> None:
    arguments = {"depth": 10, "widen_factor": 0.125, "num_classes": 3}
    state = create_model("resnet3d", **arguments).state_dict()
    content = {"epoch": 1, "arch": "resnet-10", "state_dict": state, "optimizer": {}, "scheduler": {}}
    torch.save(content, tmp_path / "w.pth")
    report = create_model("resnet3d", weights=tmp_path / "w.pth", **arguments).__dict__["weights_report"]
    assert report.input_protocol.mean == (0.4345, 0.4051, 0.3775)
    assert report.input_protocol.mark("mean") == "recognised"
    assert "not in alphabetical order" in report.warnings[0]


def test_a_protocol_that_a_training_stored_comes_before_that_of_the_zoo(tmp_path: Path) -> None:
    content = {"epoch": 1, "arch": "x", "state_dict": HARA, "input_protocol": {"mean": [0.1, 0.2, 0.3], "clip": "4x2"}}
    torch.save(content, tmp_path / "w.pth")
    found = protocol_of_checkpoint(read_checkpoint(tmp_path / "w.pth"))
    assert (found.mean, found.clip, found.std, found.mark("mean")) == ((0.1, 0.2, 0.3), "4x2", None, "stored")


UNIFORMER = {"patch_embed1.proj.weight": torch.ones(2, 2), "blocks1.0.pos_embed.weight": torch.ones(2, 2)}
VIDEOMAE = {"patch_embed.proj.weight": torch.ones(2, 3, 2, 16, 16), "blocks.0.attn.q_bias": torch.ones(2)}
XCLIP = {"mit.resblocks.0.weight": torch.ones(2, 2), "prompts_generator.weight": torch.ones(2, 2)}


@pytest.mark.parametrize(
    ("file", "content", "at", "names"),
    [
        # Places and names as the lists of the zoos have them; an alphabetical list has others there.
        ("w.pth", {"model_state": {**UNIFORMER, **named(head=(400, 2))}}, (0, 1), ("riding a bike", "marching")),
        ("k710.pth", {"module": {**VIDEOMAE, **named(head=(710, 2))}}, (0, 709), ("riding a bike", "bull fighting")),
        (
            "k710_ft600.pth",
            {"module": {**VIDEOMAE, **named(head=(600, 2))}},
            (0, 599),
            ("feeding fish", "playing organ"),
        ),
        (
            "k710_ft700.pth",
            {"module": {**VIDEOMAE, **named(head=(700, 2))}},
            (0, 699),
            ("counting money", "gospel singing in church"),
        ),
        (
            "w.pth.tar",
            {"epoch": 1, "state_dict": {**C3D, **named(fc8=(101, 2))}, "opt_dict": {}},
            (34, 35),
            ("HammerThrow", "Hammering"),
        ),
        (
            "w.pth",
            {**MM, "state_dict": {**named("backbone.conv1a.conv"), **named(cls_head__fc_cls=(101, 2))}},
            (34, 35),
            ("Hammering", "HammerThrow"),
        ),
        ("c3d.pickle", {**C3D, **named(fc8=(487, 2))}, (0, 486), ("boomerang", "model aircraft")),
    ],
)
def test_the_classes_of_a_zoo_come_in_its_own_order(
    tmp_path: Path, file: str, content: Any, at: tuple[int, int], names: tuple[str, str]
) -> None:
    torch.save(content, tmp_path / file)
    classes = protocol_of_checkpoint(read_checkpoint(tmp_path / file)).classes
    assert classes is not None
    assert tuple(classes[index] for index in at) == names


def test_a_number_of_classes_that_no_data_set_of_the_zoo_has_leaves_the_order_open(tmp_path: Path) -> None:
    torch.save({"model_state": {**UNIFORMER, **named(head=(17, 2))}}, tmp_path / "w.pth")
    assert protocol_of_checkpoint(read_checkpoint(tmp_path / "w.pth")).classes is None


ENABLED = "DEMO:\n  ENABLE: false\nDETECTION:\n  ALIGNED: true\n  ENABLE: true\nDIST_BACKEND: nccl\n"
DISABLED = ENABLED.replace("true", "false")
SLOW = named("s1.pathway0_stem.conv")


@pytest.mark.parametrize(
    ("stored", "why", "note"),
    [
        (named("backbone.conv1.conv", "roi_head.bbox_head.fc_cls"), "it has a roi_head", "of a detector"),
        (named("model.blocks.0.conv", "detection_head.proj"), "it has a detection_head", "of a detector"),
        ({"cfg": ENABLED, "model_state": SLOW}, "its config enables DETECTION", "of a detector"),
        ({"cfg": DISABLED, "model_state": SLOW}, "", ""),
        ({"cfg": ENABLED.replace("DETECTION", "OTHER"), "model_state": SLOW}, "", ""),
        ({"model_state": {**SLOW, **named(head__projection=(80, 2))}}, "", "80 classes are as many as AVA has"),
        ({"model_state": {**SLOW, **named(head__projection=(81, 2))}}, "", ""),
        ({"cfg": DISABLED, "model_state": {**SLOW, **named(head__projection=(80, 2))}}, "", ""),
    ],
)
def test_a_file_of_a_detector_is_told_from_one_of_a_classifier(
    stored: dict[str, Any], why: str, note: str, tmp_path: Path
) -> None:
    torch.save(stored, tmp_path / "w.pyth")
    checkpoint = read_checkpoint(tmp_path / "w.pyth")
    assert why_detector(checkpoint) == why
    assert note in notes_on_head(checkpoint)
    assert bool(notes_on_head(checkpoint)) == bool(note)


def test_a_detector_fits_no_classifier(tmp_path: Path) -> None:
    """PySlowFast's detectors have the names of its classifiers, but do not stride in their last stage."""
    model = create_model("slow_r50", num_classes=80, device="cpu")
    torch.save({"cfg": ENABLED, "model_state": model.state_dict()}, tmp_path / "slow.pyth")
    found = identify(tmp_path / "slow.pyth")
    assert not found.fits
    assert found.problem.startswith("the file is of a detector, which classifies boxes (its config enables DETECTION)")
    report = load_weights(model, tmp_path / "slow.pyth")
    assert any("of a detector" in warning for warning in report.warnings)
    torch.save({**model.state_dict(), "roi_head.bbox_head.fc_cls.weight": torch.ones(81, 4)}, tmp_path / "head.pth")
    with pytest.raises(WeightsError, match=r"The file is of a detector, which classifies boxes \(it has a roi_head\)"):
        load_weights(model, tmp_path / "head.pth")


def test_slowfast_of_charades_and_something_something_is_recognised_by_its_classes(tmp_path: Path) -> None:
    for rows, zoo in ((157, "PySlowFast Charades"), (174, "PySlowFast SSv2"), (400, "PySlowFast Kinetics")):
        state = named("s1.pathway0_stem.conv", "s1.pathway1_stem.conv", head__projection=(rows, 2))
        torch.save({"model_state": state}, tmp_path / "w.pyth")
        match = recognise(read_checkpoint(tmp_path / "w.pyth"))
        assert match is not None
        assert match.row.zoo.startswith(zoo)
