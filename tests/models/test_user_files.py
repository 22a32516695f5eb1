"""`file.py:factory` and `file.py` as the name of a model."""

import re
from pathlib import Path

import pytest
import torch

from bench.catalog.catalog import Catalog
from bench.core.errors import InputError
from bench.core.file_modules import file_module_name, import_file
from bench.core.model_name import is_registered_name, runs_user_code, source_of
from bench.core.schema import Clip, Point
from bench.models.factory import create_model, find_model, is_model
from bench.profiling import profile
from bench.suite import plan_suite, read_suite

NET = """
from __future__ import annotations
from dataclasses import dataclass
from torch import nn

@dataclass
class Settings:
    width: int = 4

class Net(nn.Module):
    def __init__(self, num_classes, width):
        super().__init__()
        self.fc = nn.Linear(width, num_classes)

    def forward(self, clips):
        return self.fc(clips.mean((1, 2, 3, 4))[:, None].expand(-1, self.fc.in_features))
"""
SMALL = "def small(num_classes: int = 5, *, width: int = 4) -> Net:\n    return Net(num_classes, width)\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path


def write(folder: Path, name: str, *parts: str) -> str:
    file = folder / name
    file.parent.mkdir(exist_ok=True)
    file.write_text("\n".join(parts))
    return str(file)


def test_a_factory_of_a_file_is_built_with_its_arguments(folder: Path) -> None:
    file = write(folder, "nets_a.py", NET, SMALL)
    model = create_model(f"{file}:small", num_classes=7, width=9)
    assert model(torch.zeros(2, 3, 4, 8, 8)).shape == (2, 7)
    assert (model.fc.in_features, is_model(f"{file}:small")) == (9, True)


def test_a_file_with_one_factory_needs_no_name_of_it(folder: Path) -> None:
    write(folder, "nets_b.py", NET, SMALL, "def _hidden():\n    pass\ndef needs(width, depth):\n    pass\n")
    assert create_model("nets_b.py")(torch.zeros(1, 3, 4, 8, 8)).shape == (1, 5)


def test_a_usual_name_and_then_a_registered_model_are_preferred(folder: Path) -> None:
    usual = write(folder, "nets_c.py", NET, SMALL, "def get_model(num_classes=3):\n    return small(num_classes)\n")
    assert create_model(usual).fc.out_features == 3
    registered = write(
        folder,
        "nets_d.py",
        NET,
        SMALL,
        "from bench import register_model\n"
        "@register_model('mine_d', clip='2x1x8', variants={'mine_d_wide': {'width': 8}})\n"
        "def mine_d(num_classes: int = 2, *, width: int = 3):\n    return Net(num_classes, width)\n",
    )
    assert create_model(registered).fc.out_features == 2
    assert (find_model(registered).clip, create_model(f"{registered}:mine_d_wide").fc.in_features) == ("2x1x8", 8)


def test_a_class_is_taken_if_it_is_all_there_is(folder: Path) -> None:
    write(
        folder,
        "nets_e.py",
        "from torch import nn\nclass Only(nn.Module):\n    def forward(self, x):\n        return x\n",
    )
    assert type(create_model("nets_e.py")).__name__ == "Only"


@pytest.mark.parametrize(
    ("content", "name", "words"),
    [
        (None, "none.py", r"unknown model 'none.py': there is no file none.py, from the working folder /"),
        (
            "x = 1",
            "empty.py",
            r"empty.py needs one function or class .* none that needs no arguments; name",
        ),
        ("def a(): ...\ndef b(): ...", "two.py", r"it has a, b; name one: two.py:NAME"),
        (SMALL.replace("Net:", "int:"), "near.py:smal", r"unknown factory 'smal' in near.py; did you mean: small\?"),
        ("import nothing_there", "needs.py", "file needs.py cannot be imported: it needs nothing_there, which is not"),
        ("1 +", "syntax.py:a", "file syntax.py cannot be imported: SyntaxError"),
        ("1 / 0", "raises.py:a", "file raises.py cannot be imported: ZeroDivisionError"),
        ("a = 3", "number.py:a", "number.py:a is a int; a function that returns an nn.Module is needed"),
    ],
)
def test_what_is_wrong_with_a_file_is_one_clear_line(folder: Path, content: str | None, name: str, words: str) -> None:
    if content is not None:
        write(folder, name.partition(":")[0], content)
    with pytest.raises(InputError, match=words) as caught:
        create_model(name)
    assert "\n" not in str(caught.value)


def test_two_files_of_one_name_are_two_modules_and_hide_no_package(folder: Path) -> None:
    one, other = write(folder, "one/json.py", "X = 1"), write(folder, "two/json.py", "X = 2")
    assert (import_file(one).X, import_file(other).X) == (1, 2)
    assert import_file(one) is import_file(one)
    import json

    assert json.dumps([]) == "[]"
    assert file_module_name("a/../b/net.py") == "b_net_py"


def test_a_file_imports_its_neighbours(folder: Path) -> None:
    write(folder, "deep/neighbour_of_net.py", "WIDTH = 6")
    file = write(folder, "deep/nets_f.py", NET, "from neighbour_of_net import WIDTH", SMALL.replace("= 4", "= WIDTH"))
    assert create_model(file).fc.in_features == 6


def test_the_fingerprint_of_a_file_covers_the_file_and_what_it_imports(folder: Path) -> None:
    write(folder, "neighbour_of_g.py", "WIDTH = 6")
    write(folder, "nets_g.py", NET, "from neighbour_of_g import WIDTH", SMALL.replace("= 4", "= WIDTH"))
    point = Point(model="nets_g.py:small", clip=Clip.model_validate("2x1x8"))

    def modules() -> dict[str, str]:
        [check] = Catalog().check_models([point])
        assert check.is_local
        assert check.params == 35
        return check.modules

    before = modules()
    assert set(before) == {"nets_g_py", "neighbour_of_g"}
    write(folder, "neighbour_of_g.py", "WIDTH = 3 + 3")
    after = modules()
    assert (after["nets_g_py"], after["neighbour_of_g"] != before["neighbour_of_g"]) == (before["nets_g_py"], True)


def test_the_documented_model_of_several_inputs_is_planned_and_counted_in_a_suite(folder: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "own-model.md").read_text(encoding="utf-8")
    section = page.partition("## A model with several inputs")[2].partition("\n## ")[0]
    source, suite = (re.search(rf"```{kind}\n(.*?)```", section, re.DOTALL) for kind in ("python", "yaml"))
    assert source is not None
    assert suite is not None
    write(folder, "two_rates.py", source[1])
    write(folder, "rates.yaml", suite[1])
    catalog = Catalog()
    plan = plan_suite(read_suite(folder / "rates.yaml"), catalog)
    assert [case.point.model for case in plan.cases] == ["two_rates.py", "slowfast_r50"]
    [check] = catalog.check_models([plan.cases[0].point])
    # 4 of 16 frames of 64 x 64 through 3 -> 8 channels, all 16 through 3 -> 2, kernels of 27; then 10 -> 8 classes.
    assert check.macs == 4 * 64**2 * 27 * 3 * 8 + 16 * 64**2 * 27 * 3 * 2 + 10 * 8
    found = profile("two_rates.py", "1x3x4x64x64,1x3x16x64x64", num_classes=8)
    assert (found.macs, found.inputs) == (check.macs, ((1, 3, 4, 64, 64), (1, 3, 16, 64, 64)))


@pytest.mark.parametrize(
    ("name", "registered", "source", "is_users"),
    [
        ("c3d", True, "", False),
        ("timm:resnet18", False, "timm", False),
        ("hf:org/name", False, "hf", False),
        ("package.module:net", False, "", True),
        ("nets.py", False, "", True),
        ("a/nets.py:net", False, "", True),
    ],
)
def test_what_the_text_of_a_name_says(name: str, registered: bool, source: str, is_users: bool) -> None:
    assert (is_registered_name(name), source_of(name), runs_user_code(name)) == (registered, source, is_users)
