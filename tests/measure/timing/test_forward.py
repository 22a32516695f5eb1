"""A forward pass must return a tensor; values that are not finite are recorded and rank nowhere."""

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor

from bench.core.errors import InputError
from bench.core.schema import Metric
from bench.measure.cold import cold
from bench.measure.concurrent import concurrent
from bench.measure.context import CaseContext
from bench.measure.latency import latency
from bench.measure.memory import memory
from bench.measure.throughput import throughput
from bench.measure.timing.forward import check_outputs, prepare_model, set_tf32, tensors_in
from bench.measure.train_step import train_step
from bench.runner.environment import describe_environment

Load = Callable[..., CaseContext]
MODULE = """
from torch import nn

class Net(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.fc = nn.Linear(3, classes)
    def forward(self, x):
        logits = self.fc(x.mean((2, 3, 4)))
        {ending}

def factory(num_classes=5):
    return Net(num_classes)
"""


@dataclass
class Output:
    logits: Tensor | None


@pytest.fixture
def returning(load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], CaseContext]:
    """A case whose model ends its forward pass with this statement."""

    def make(ending: str) -> CaseContext:
        (tmp_path / "odd_net.py").write_text(MODULE.format(ending=ending))
        monkeypatch.syspath_prepend(str(tmp_path))
        sys.modules.pop("odd_net", None)
        return load(model="odd_net:factory", args={})

    return make


@pytest.fixture
def switches() -> Iterator[None]:
    """torch's switches of float32 precision, as they were before once the test is over."""
    backends = torch.backends
    places = (backends, backends.cudnn, backends.cudnn.conv, backends.cudnn.rnn, backends.cuda.matmul)
    before = [place.fp32_precision for place in places]
    yield
    for place, value in zip(places, before, strict=True):
        place.fp32_precision = value


def switch(text: str) -> None:
    exec(text, {"torch": torch})


EVERY_SWITCH = (
    "pass",
    "torch.set_float32_matmul_precision('high')",
    "torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = True",
    "torch.backends.fp32_precision = 'tf32'",
    "torch.backends.cudnn.fp32_precision = 'tf32'",
    "torch.backends.cudnn.conv.fp32_precision = 'tf32'",
    "torch.backends.cuda.matmul.fp32_precision = 'tf32'",
)


@pytest.mark.usefixtures("switches")
@pytest.mark.parametrize("text", EVERY_SWITCH)
@pytest.mark.parametrize("is_on", [False, True])
def test_tf32_is_on_or_off_whatever_a_plug_in_has_switched(text: str, is_on: bool) -> None:
    switch(text)
    set_tf32(is_on=is_on)
    backends = torch.backends
    found = {place.fp32_precision for place in (backends.cuda.matmul, backends.cudnn.conv, backends.cudnn.rnn)}
    assert found == {"tf32" if is_on else "ieee"}
    assert (backends.cudnn.allow_tf32, backends.cuda.matmul.allow_tf32) == (is_on, is_on), "others may read these"
    assert torch.get_float32_matmul_precision() == ("high" if is_on else "highest")


@pytest.mark.usefixtures("switches")
@pytest.mark.parametrize("text", EVERY_SWITCH)
def test_the_switches_are_recorded_whatever_a_plug_in_has_switched(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.backends.cudnn.is_available", lambda: True)
    monkeypatch.setattr("torch.backends.cudnn.version", lambda: 91000)
    switch(text)
    torch.backends.cuda.matmul.fp32_precision = "ieee"  # with what was switched before, a mix of old and new switches
    software = describe_environment().software
    assert software["matmul_allow_tf32"] is False
    assert software["cudnn_allow_tf32"] is (torch.backends.cudnn.conv.fp32_precision == "tf32")


@pytest.mark.usefixtures("switches")
def test_a_model_that_switches_tf32_on_is_fp32_all_the_same(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    build = CaseContext.build_model

    def switching(self: CaseContext, device: str | None = None) -> torch.nn.Module:
        torch.backends.fp32_precision = "tf32"
        return build(self, device)

    monkeypatch.setattr(CaseContext, "build_model", switching)
    prepare_model(load(precision="fp32"))
    assert torch.backends.cudnn.conv.fp32_precision == "ieee"


ONE_S: dict[Callable[..., list[Metric]], dict[str, object]] = {
    latency: {"max_s": 0.2},
    throughput: {"max_s": 0.2},
    memory: {},
    concurrent: {"streams": 1, "max_s": 0.2},
    train_step: {"max_s": 0.2},
}


@pytest.mark.parametrize("measure", ONE_S, ids=lambda measure: measure.__name__)
def test_a_model_that_returns_none_is_an_error_of_every_timing(
    measure: Callable[..., list[Metric]], returning: Callable[[str], CaseContext]
) -> None:
    with pytest.raises(InputError, match="forward of odd_net:factory returns None"):
        measure(returning("pass"), **ONE_S[measure])


def test_a_cold_start_of_such_a_model_is_an_error_too(returning: Callable[[str], CaseContext]) -> None:
    with pytest.raises(InputError, match="returns None"):
        cold(returning("pass"))


@pytest.mark.parametrize(
    ("ending", "found"),
    [
        ("return logits.sum().item()", "a float without tensors"),
        ("return []", "a list without tensors"),
        ("return {'loss': 0.5}", "a dict without tensors"),
        ("return logits.detach().numpy()", "a ndarray without tensors"),
        ("return logits[:0]", "empty tensors only"),
    ],
)
def test_an_output_without_tensors_is_named(ending: str, found: str, returning: Callable[[str], CaseContext]) -> None:
    with pytest.raises(InputError, match=f"returns {found}"):
        latency(returning(ending), max_s=0.2)


@pytest.mark.parametrize("bad", ["nan", "inf", "-inf"])
def test_outputs_that_are_not_finite_are_recorded_with_a_warning(
    bad: str, returning: Callable[[str], CaseContext]
) -> None:
    case = returning(f"return logits * float('{bad}')")
    assert latency(case, max_s=0.2)[0].value is not None
    assert case.details["outputs"] == {"are_finite": False}
    assert [warning.what for warning in case.warnings if "not finite" in warning.what]


def test_finite_outputs_are_recorded_without_a_warning(returning: Callable[[str], CaseContext]) -> None:
    case = returning("return logits")
    check_outputs(case, lambda: torch.ones(2, 3))
    assert case.details["outputs"] == {"are_finite": True}
    assert not case.warnings


def test_tensors_are_found_in_nested_outputs() -> None:
    one, two = torch.ones(1), torch.zeros(2)
    assert [len(tensor) for tensor in tensors_in({"a": [one, (None, two)], "b": Output(logits=one)})] == [1, 2, 1]
    assert not list(tensors_in(Output(logits=None)))
