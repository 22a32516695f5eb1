"""Execution modes: as text, of a point, and refused by devices that do not support them."""

import pytest

from bench.core.schema import Clip, Point
from bench.measure.execution_mode import ExecutionMode, absence, execution_mode_of, refusal


def test_axes_without_a_value_give_the_plainest_mode() -> None:
    point = Point(model="c3d", clip=Clip(frames=4, height=16, width=16), compile="aotinductor")
    assert execution_mode_of(point) == ExecutionMode(compile="aotinductor")
    assert execution_mode_of(point.model_copy(update={"compile": None})) == ExecutionMode()


def test_the_text_of_a_mode_names_what_differs_from_the_plainest() -> None:
    assert str(ExecutionMode()) == "fp32"
    mode = ExecutionMode(precision="bf16_weights", memory_format="channels_last_3d", compile="cudagraphs")
    assert str(mode) == "bf16_weights, channels_last_3d, cudagraphs"


@pytest.mark.parametrize(
    ("mode", "said"),
    [
        (ExecutionMode(precision="tf32"), "precision tf32 needs a CUDA device; this case runs on cpu"),
        (ExecutionMode(precision="fp8"), "precision fp8 needs a CUDA device"),
        (ExecutionMode(compile="cudagraphs"), "compile cudagraphs needs a CUDA device"),
        (ExecutionMode(compile="tensorrt"), "compile tensorrt needs a CUDA device"),
        (
            ExecutionMode(compile="onnxruntime", precision="bf16"),
            "compile onnxruntime takes precision fp32, tf32, fp16_weights; found bf16",
        ),
        (
            ExecutionMode(compile="onnxruntime", memory_format="channels_last_3d"),
            "takes memory_format contiguous alone",
        ),
    ],
)
def test_modes_that_a_cpu_does_not_support_are_refused_in_one_line(mode: ExecutionMode, said: str) -> None:
    refused = refusal(mode, "cpu")
    assert refused is not None
    assert said in refused
    assert "\n" not in refused


@pytest.mark.parametrize("compile_mode", ["off", "default", "aotinductor", "onnxruntime"])
def test_modes_that_a_cpu_supports_are_accepted(compile_mode: str) -> None:
    assert refusal(ExecutionMode.model_validate({"compile": compile_mode}), "cpu") is None


def test_a_gpu_refuses_only_what_an_engine_does_not_accept() -> None:
    assert (
        refusal(ExecutionMode(precision="fp8", compile="cudagraphs", memory_format="channels_last_3d"), "cuda:1")
        is None
    )
    assert refusal(ExecutionMode(precision="bf16_weights", compile="tensorrt"), "cuda") is None
    assert refusal(ExecutionMode(precision="fp8", compile="tensorrt"), "cuda") is not None


def test_an_absent_device_is_refused_in_one_line_with_those_present() -> None:
    assert [absence(device, gpus=1) for device in ("cpu", "cuda", "cuda:0", "mps")] == [None] * 4
    assert absence("cuda:1", gpus=1) == "device cuda:1 is not available; torch sees cuda:0"
    assert "sees no GPU" in (absence("cuda", gpus=0) or "")
