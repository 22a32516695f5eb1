"""Loading strictly: what fits gives the same logits, what does not is named with its cause."""

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from bench.core.errors import InputError, WeightsError
from bench.models.factory import create_model
from bench.models.weights.loading import LoadReport, load_weights
from bench.models.weights.mmaction_names import C3D_LAYERS
from bench.models.weights.translations import SPORTS_1M_LAYERS

NARROW = {"widen_factor": 0.125}
CLIP = (8, 32)


def narrow(name: str, *, num_classes: int | None = 7, **arguments: object) -> nn.Module:
    torch.manual_seed(0)
    return create_model(name, num_classes=num_classes, **{**NARROW, **arguments}).eval()


def state_of(model: nn.Module) -> dict[str, Tensor]:
    return {key: value.clone() for key, value in model.state_dict().items()}


def saved(path: Path, state: Mapping[str, Tensor], **beside: object) -> Path:
    torch.save({**beside, "state_dict": dict(state)}, path)
    return path


def report_of(model: nn.Module) -> LoadReport:
    report = model.__dict__["weights_report"]
    assert isinstance(report, LoadReport)
    return report


@pytest.mark.parametrize("prefix", ["", "module."])
def test_what_was_saved_comes_back(tmp_path: Path, prefix: str) -> None:
    first = narrow("resnet3d_10")
    path = saved(tmp_path / "w.pth", {prefix + k: v for k, v in first.state_dict().items()}, epoch=3)
    torch.manual_seed(1)
    second = create_model("resnet3d_10", num_classes=7, weights=path, **NARROW).eval()
    clip = torch.randn(1, 3, *CLIP, CLIP[1])
    assert torch.equal(second(clip), first(clip))
    report = report_of(second)
    assert (report.loaded, report.fresh, report.warnings) == (len(first.state_dict()), (), ())
    assert len(report.sha256) == 64


def test_a_file_of_old_torch_lacks_counts_of_batches(tmp_path: Path) -> None:
    state = {k: v for k, v in narrow("resnet3d_10").state_dict().items() if not k.endswith("num_batches_tracked")}
    assert load_weights(narrow("resnet3d_10"), saved(tmp_path / "w.pth", state)).loaded == len(state)


def test_half_precision_is_widened(tmp_path: Path) -> None:
    first = narrow("resnet3d_10")
    state = {k: v.half() if v.is_floating_point() else v for k, v in first.state_dict().items()}
    model = narrow("resnet3d_10")
    load_weights(model, saved(tmp_path / "w.pth", state))
    assert {v.dtype for v in model.state_dict().values()} == {torch.float32, torch.int64}


def test_only_a_head_of_other_classes_is_left_out_and_said(tmp_path: Path) -> None:
    first = narrow("resnet3d_10", num_classes=400)
    path = saved(tmp_path / "k400.pth", first.state_dict())
    second = narrow("resnet3d_10", num_classes=101)
    drawn = second.get_submodule("fc").weight.clone()
    report = load_weights(second, path)
    assert report.fresh == ("fc.weight", "fc.bias")
    assert (report.file_classes, report.model_classes) == (400, 101)
    assert report.warnings == (
        "k400.pth has 400 classes and the model 101: fc.weight, fc.bias keep random values; train before evaluating",
    )
    assert torch.equal(second.get_submodule("fc").weight, drawn)
    clip = torch.randn(1, 3, *CLIP, CLIP[1])
    assert torch.equal(second.forward_features(clip), first.forward_features(clip))  # type: ignore[operator]


def test_classes_that_nobody_named_are_the_file_s(tmp_path: Path) -> None:
    path = saved(tmp_path / "w.pth", narrow("resnet3d_10", num_classes=39).state_dict())
    model = create_model("resnet3d_10", weights=path, **NARROW)
    assert model.get_submodule("fc").weight.shape[0] == 39
    assert report_of(model).fresh == ()


def test_a_head_of_another_width_is_not_taken_for_other_classes(tmp_path: Path) -> None:
    state = state_of(narrow("resnet3d_10"))
    state["fc.weight"] = torch.zeros(9, 65)
    with pytest.raises(WeightsError, match=r"1 key is of another shape \(fc\.weight: file 9x65, model 7x64\)"):
        load_weights(narrow("resnet3d_10"), saved(tmp_path / "w.pth", state))


def test_nothing_is_loaded_where_something_does_not_fit(tmp_path: Path) -> None:
    model = narrow("resnet3d_10")
    before = state_of(model)
    wrong = {key: value + 1 for key, value in state_of(model).items()} | {"extra.weight": torch.zeros(1)}
    with pytest.raises(WeightsError, match=r"1 key is not known to the model \(extra\.weight\)"):
        load_weights(model, saved(tmp_path / "w.pth", wrong))
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


def test_missing_keys_are_named_and_counted(tmp_path: Path) -> None:
    state = {k: v for k, v in narrow("resnet3d_10").state_dict().items() if not k.startswith("layer4.")}
    with pytest.raises(WeightsError) as caught:
        load_weights(narrow("resnet3d_10"), saved(tmp_path / "w.pth", state))
    message = str(caught.value)
    weights = [k for k in narrow("resnet3d_10").state_dict() if k.startswith("layer4.") and "num_batches" not in k]
    assert f"{len(weights)} keys are missing from the file ({', '.join(weights[:3])}, …)" in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("file", "network", "words"),
    [
        (("resnet3d_18", {"shortcut": "A"}), ("resnet3d_18", {}), "shortcut A.*fits resnet3d_18 .*shortcut='A'"),
        (("resnet3d_18", {}), ("resnet3d_18", {"shortcut": "A"}), "with shortcut B; .*The file fits resnet3d_18"),
        (("r2plus1d_18", {}), ("resnet3d_18", {}), "The file fits r2plus1d_18"),
        (("resnet3d_18", {}), ("r2plus1d_18", {}), "The file fits resnet3d_18"),
        (("resnet3d_18", {}), ("resnet3d_34", {}), "The file fits resnet3d_18"),
        (("preact_resnet3d_18", {}), ("resnet3d_18", {}), "The file fits preact_resnet3d_18"),
    ],
)
def test_the_cause_of_a_misfit_is_named(
    tmp_path: Path, file: tuple[str, dict[str, object]], network: tuple[str, dict[str, object]], words: str
) -> None:
    path = saved(tmp_path / "w.pth", narrow(file[0], **file[1]).state_dict())
    with pytest.raises(WeightsError, match=rf"does not fit this .*{words}"):
        create_model(network[0], num_classes=7, weights=path, **NARROW, **network[1])


def test_the_owner_of_names_that_nothing_here_has_is_named(tmp_path: Path) -> None:
    state = {"s1.pathway0_stem.conv.weight": torch.zeros(1), "s1.pathway0_stem.extra": torch.zeros(1)}
    with pytest.raises(WeightsError, match="No model here has these weights; their names are those of: PySlowFast"):
        load_weights(narrow("resnet3d_10"), saved(tmp_path / "w.pth", state))


def test_the_meta_device_holds_no_weights(tmp_path: Path) -> None:
    path = saved(tmp_path / "w.pth", narrow("resnet3d_10").state_dict())
    with pytest.raises(WeightsError, match="meta"):
        create_model("resnet3d_10", num_classes=7, weights=path, device="meta", **NARROW)


def small_c3d(names: Mapping[str, str]) -> dict[str, Tensor]:
    """C3D's state on the layers of `names` (theirs → ours), under their names."""
    ours = create_model("c3d", kernel_depth=1, num_classes=5).state_dict()
    return {f"{theirs}.{k}": ours[f"{layer}.{k}"] for theirs, layer in names.items() for k in ("weight", "bias")}


@pytest.mark.slow
def test_sports_1m_weights_have_no_head(tmp_path: Path) -> None:
    names = {theirs: ours for theirs, ours in SPORTS_1M_LAYERS.items() if ours != "fc8"}
    state = small_c3d(names)
    torch.save(state, tmp_path / "c3d-pretrained.pth")
    model = create_model("c3d", kernel_depth=1, num_classes=5, weights=tmp_path / "c3d-pretrained.pth")
    report = report_of(model)
    assert (report.container, report.fresh) == ("C3D Sports-1M", ("fc8.weight", "fc8.bias"))
    assert "has no classifier" in report.warnings[0]
    for theirs, ours in names.items():
        assert torch.equal(model.get_submodule(ours).weight, state[f"{theirs}.weight"])
    del state["features.11.bias"]
    torch.save(state, tmp_path / "torn.pth")
    with pytest.raises(WeightsError, match=r"conv4a\.bias"):
        load_weights(model, tmp_path / "torn.pth")


@pytest.mark.slow
def test_mmaction_s_c3d_is_ours(tmp_path: Path) -> None:
    state = small_c3d(C3D_LAYERS)
    model = create_model("c3d", kernel_depth=1, weights=saved(tmp_path / "w.pth", state))
    assert report_of(model).container == "MMAction2"
    assert torch.equal(model.get_submodule("fc8").weight, state["cls_head.fc_cls.weight"])


def two_entries(path: Path) -> Path:
    """A file with raw weights of ones and averaged weights of twos."""
    model = narrow("resnet3d_10")
    raw = {key: torch.ones_like(value) for key, value in state_of(model).items()}
    torch.save({"state_dict": raw, "ema": {key: 2 * value for key, value in raw.items()}}, path)
    return path


@pytest.mark.parametrize(("entry", "value"), [(None, 2.0), ("ema", 2.0), ("state_dict", 1.0)])
def test_an_entry_of_several_can_be_chosen(tmp_path: Path, entry: str | None, value: float) -> None:
    file = two_entries(tmp_path / "both.pth")
    model = narrow("resnet3d_10", weights=file, entry=entry)
    assert {float(parameter.detach().mean()) for parameter in model.parameters()} == {value}


def test_an_unknown_entry_is_an_error_that_lists_those_there_are(tmp_path: Path) -> None:
    file = two_entries(tmp_path / "both.pth")
    with pytest.raises(WeightsError, match=r"'emma'; did you mean: ema.*\(found: state_dict, ema\)"):
        narrow("resnet3d_10", weights=file, entry="emma")


def test_an_entry_without_a_file_is_an_error() -> None:
    with pytest.raises(InputError, match="no file of weights is given"):
        narrow("resnet3d_10", entry="ema")
