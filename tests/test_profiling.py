"""One model's counts: the figures of C3D, several inputs, views, the cache, and the second answer without torch."""

import subprocess
import sys
from pathlib import Path

import pytest

from bench.core.errors import InputError
from bench.profiling import CONVENTION, Profile, profile


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture
def c3d() -> Profile:
    return profile("c3d", "1x3x16x112x112")


def test_c3d_costs_what_its_layers_cost_by_hand(c3d: Profile) -> None:
    """MACs of a convolution: outputs x inputs x 27 x positions; of a linear layer: its weights."""
    convolutions = [(3, 64, 16 * 112**2), (64, 128, 16 * 56**2), (128, 256, 8 * 28**2), (256, 256, 8 * 28**2)]
    convolutions += [(256, 512, 4 * 14**2), (512, 512, 4 * 14**2), (512, 512, 2 * 7**2), (512, 512, 2 * 7**2)]
    macs = sum(27 * i * o * positions for i, o, positions in convolutions) + 8192 * 4096 + 4096 * 4096 + 4096 * 101
    assert c3d.macs == macs == 38_547_378_176
    assert c3d.params == 78_409_573
    assert c3d.flops == 2 * macs
    assert "1 MAC = 2 FLOPs" in c3d.convention == CONVENTION


def test_a_train_step_is_forward_and_backward_without_the_gradient_of_the_clip(c3d: Profile) -> None:
    """Backward costs a forward for the weights and one for the inputs, but the first layer's input needs none."""
    conv1 = 27 * 3 * 64 * 16 * 112**2
    assert c3d.macs_train_step == 3 * c3d.macs - conv1


def test_memory_is_at_least_the_weights_and_training_takes_more(c3d: Profile) -> None:
    weights = 4 * c3d.params
    assert c3d.memory_inference_bytes is not None
    assert c3d.memory_training_bytes is not None
    assert weights < c3d.memory_inference_bytes < c3d.memory_training_bytes
    assert c3d.memory_training_bytes > 2 * weights


def test_layers_add_up(c3d: Profile) -> None:
    whole, *parts = c3d.layers
    assert (whole.macs, whole.params, whole.share) == (c3d.macs, c3d.params, 1.0)
    assert sum(part.macs for part in parts) == c3d.macs
    assert sum(part.params for part in parts) == c3d.params


def test_batch_multiplies_macs_and_not_params(c3d: Profile) -> None:
    four = profile("c3d", (4, 3, 16, 112, 112), num_classes=101)
    assert (four.macs, four.params) == (4 * c3d.macs, c3d.params)


def test_views_multiply_the_cost_of_a_video() -> None:
    found = profile("c3d_search", "1x3x16x112x112", views="10x3")
    assert found.macs_per_video == 30 * found.macs


def test_several_inputs_are_written_with_commas() -> None:
    found = profile("slowfast_r50", "1x3x8x224x224,1x3x32x224x224", num_classes=400)
    assert found.inputs == ((1, 3, 8, 224, 224), (1, 3, 32, 224, 224))
    assert found.params == 34_566_488
    assert profile("slowfast_r50").inputs[1][2] == 32


def test_arguments_of_the_model_are_counted() -> None:
    shallow = profile("resnet3d", "1x3x16x112x112", arguments={"depth": 18})
    assert (shallow.params, round(shallow.macs / 1e9, 2)) == (33_563_004, 8.31)


@pytest.mark.parametrize(
    ("given", "part"),
    [("1x3x16", "five numbers"), ((1, 3, 16, 112), "five numbers"), ("1x3x16x5x5", "96"), ("1x4x16x112x112", "3")],
)
def test_a_shape_that_cannot_be_is_refused(given: object, part: str) -> None:
    with pytest.raises(InputError, match=part):
        profile("c3d", given)  # type: ignore[arg-type]


@pytest.mark.parametrize("command", [["profile", "c3d", "--input", "1x3x16x112x112"], ["--help"], ["doctor"]])
def test_cached_profiles_do_not_import_torch(c3d: Profile, command: list[str], tmp_path: Path) -> None:
    code = (
        "import sys\nfrom bench.cli.app import run_command\n"
        "assert run_command(sys.argv[1:]) == 0\nassert 'torch' not in sys.modules, 'torch was imported'"
    )
    done = subprocess.run([sys.executable, "-c", code, *command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_first_profile_does_not_import_torchs_compiler() -> None:
    """Budget of a first profile: importing torch._dynamo and sympy would cost more than the count."""
    code = (
        "import sys\nfrom bench.profiling import profile\n"
        "profile('c3d', '1x3x16x112x112', num_classes=7)\n"
        "heavy = {'torch._dynamo', 'sympy', 'torchvision', 'pandas', 'scipy'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
