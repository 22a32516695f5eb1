"""Models are found by name, in a file and in a folder, and the clip is one that they can take."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from bench.core.errors import InputError
from bench.core.schema import ModelCheck, ModelInfo, Point, clip_from_text
from bench.drafting.found_model import COMMON_CLIPS, factories_in, find_model

FILE = """
import torch.nn as nn

class Block(nn.Module):
    pass

class Small(nn.Module):
    def __init__(self, num_classes=5):
        self.block = Block()

class Large(Small):
    pass

class Loader:
    pass

def small(num_classes=5):
    model = Small(num_classes)
    return model

def direct():
    return Large()

def annotated(width) -> "nn.Module":
    return build(width)

def _hidden() -> nn.Module:
    return Small()

def train():
    model = Small()
    return model.accuracy

async def later() -> nn.Module:
    return Small()
"""


class KnownModel:
    """A catalog with one model, which runs at some clips only."""

    def __init__(self, *, runs_at: Sequence[str], problem: str | None = None, takes_classes: bool = True) -> None:
        self.runs_at, self.problem, self.asked = runs_at, problem, list[str]()
        self.arguments: dict[str, Any] = {"width": 8, **({"num_classes": 5} if takes_classes else {})}

    def model(self, name: str) -> ModelInfo:
        self.name = name
        return ModelInfo(name=name, family=name, clip=clip_from_text("16x1x112"), arguments=self.arguments)

    def check_models(self, points: Sequence[Point]) -> list[ModelCheck]:
        self.asked += [str(point.clip) for point in points]
        return [
            ModelCheck(params=7, macs=9)
            if str(point.clip) in self.runs_at
            else ModelCheck(problem=self.problem or f"cannot take {point.clip}")
            for point in points
        ]


def found(text: str | None, catalog: Any) -> Any:
    return find_model(text, catalog, arguments={})


def test_functions_and_classes_that_build_models_are_found_without_running_the_file(tmp_path: Path) -> None:
    """Not parts that other classes call, nor functions that return something else."""
    file = tmp_path / "net.py"
    file.write_text(FILE + "\nraise SystemExit\n")
    assert factories_in(file) == ["small", "direct", "annotated"]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_named_model_is_looked_up(here: Path) -> None:
    (here / "net.py").write_text("def small() -> Module: ...")
    assert found("parts/other.py", KnownModel(runs_at=["16x1x112"])).name == "parts/other.py"


def test_the_only_model_of_the_working_folder_is_found(here: Path) -> None:
    for name in ("net.py", "setup.py", "test_net.py", "conftest.py"):
        (here / name).write_text("def small() -> Module: ...")
    (here / "other.py").write_text("def number() -> int: ...")
    assert found(None, KnownModel(runs_at=["16x1x112"])).name == "net.py:small"


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "the Python files of this folder define no model; name one: vbench init MODEL"),
        (
            {"a.py": "def one() -> Module: ...", "b.py": "def two() -> Module: ..."},
            "2 models are defined here; name one of them: a.py:one, b.py:two",
        ),
        ({"a.py": "def ("}, "a.py: is not Python: "),
    ],
)
def test_a_folder_without_one_model_is_one_clear_line(files: dict[str, str], message: str, here: Path) -> None:
    for name, code in files.items():
        (here / name).write_text(code)
    with pytest.raises(InputError) as error:
        found(None, KnownModel(runs_at=[]))
    assert str(error.value).startswith(message)


def test_a_model_that_cannot_take_its_default_clip_gets_a_common_one() -> None:
    model = found("net:small", KnownModel(runs_at=["32x2x224", "64x1x224"]))
    assert str(model.clip) == "32x2x224"
    assert model.remark == "it cannot take 16x1x112"


def test_no_other_clip_is_tried_if_the_default_one_works() -> None:
    catalog = KnownModel(runs_at=["16x1x112"])
    assert found("net:small", catalog).remark == ""
    assert catalog.asked == ["16x1x112"]


def test_a_model_that_takes_no_clip_is_an_error_with_the_reason_at_its_default() -> None:
    with pytest.raises(
        InputError, match=r"^net:small takes none of the clips .* at 16x1x112: cannot take 16x1x112; set"
    ):
        found("net:small", KnownModel(runs_at=[]))
    catalog = KnownModel(runs_at=[], problem="net:small cannot be built")
    with pytest.raises(InputError, match=r"^net:small cannot be built$"):
        found("net:small", catalog)
    assert len(catalog.asked) == len(COMMON_CLIPS)


def test_the_outputs_of_a_model_without_num_classes_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "fixed_net.py").write_text(
        "from torch import nn\n"
        "def two():\n    return nn.Sequential(nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(3, 2))\n"
        "def fails():\n    raise OSError('no file')\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    catalog = KnownModel(runs_at=["16x1x112"], takes_classes=False)
    assert found("fixed_net:two", catalog).outputs == 2
    assert found("fixed_net:fails", catalog).outputs is None
