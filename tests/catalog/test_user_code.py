"""Hashes of code without comments, and the modules of the user's code that building a model imports."""

import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.catalog.catalog import Catalog
from bench.catalog.user_code import code_hash, code_without_comments, is_user_file
from bench.core.schema import Point

CODE = '''"""What this module is for."""

# a comment
def f(x):
    """What f returns."""
    text = "# no comment"  # a comment, after ä
    return """no docstring""" + text


class A:
    """What A is,
    in two lines."""

    b = 1
'''
SAME = '''def f(x):
    text = "# no comment"
    return """no docstring""" + text
class A:
    b = 1'''


def test_comments_docstrings_and_blank_lines_are_cut() -> None:
    assert code_without_comments(CODE) == SAME


@pytest.mark.parametrize(
    ("old", "new"),
    [("b = 1", "b = 2"), ("# no comment", "# another text"), ("no docstring", "other"), ("f(x)", "f(y)")],
)
def test_a_change_of_code_changes_the_hash(old: str, new: str, tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text(CODE, encoding="utf-8")
    (tmp_path / "b.py").write_text(CODE.replace(old, new), encoding="utf-8")
    (tmp_path / "c.py").write_text(CODE.replace("What f returns.", "Another text.\n\n    Longer."), encoding="utf-8")
    assert code_hash(tmp_path / "a.py") != code_hash(tmp_path / "b.py")
    assert code_hash(tmp_path / "a.py") == code_hash(tmp_path / "c.py")


@given(st.text(alphabet="ab #'\"ä\\\n", max_size=40))
def test_text_in_strings_stays(text: str) -> None:
    source = f"x = {text!r}\n"
    assert code_without_comments(source) == source.rstrip()


def test_code_of_installed_packages_is_not_the_users(tmp_path: Path) -> None:
    own = tmp_path / "own.py"
    own.write_text("")
    assert is_user_file(str(own))
    assert not any(is_user_file(file) for file in (pytest.__file__, Path.__module__, "<string>", None))
    assert not is_user_file(sys.modules["bench"].__file__)


FILES = {
    "own/__init__.py": "",
    "own/net.py": (
        "from importlib import import_module\n"
        "from own.blocks import Block\n"
        "def plain(num_classes=2):\n    return Block(num_classes)\n"
        "def dynamic(num_classes=2, side='left'):\n"
        "    import importlib\n"
        "    return importlib.import_module(f'own.{side}').Block(num_classes)\n"
        "def late(num_classes=2):\n    from own import late\n    return late.Block(num_classes)\n"
    ),
    "own/blocks.py": (
        "from torch import nn\n"
        "class Block(nn.Sequential):\n"
        "    def __init__(self, n):\n"
        "        super().__init__(nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(3, n))\n"
    ),
    "own/left.py": "from .blocks import Block\n",
    "own/right.py": "from own.blocks import Block\nfrom own.deep import VALUE\n",
    "own/deep.py": "VALUE = 1\n",
    "own/late.py": "from own.blocks import Block\n",
    "own/unused.py": "",
}


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, text in FILES.items():
        file = tmp_path / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_every_build_reports_exactly_its_imports(own: Path) -> None:
    """All four are built in one child process: what one has loaded is not taken for a part of another."""

    def point(factory: str, **args: str) -> Point:
        return Point(model=f"own.net:{factory}", args=args, clip="2x1x8")  # type: ignore[arg-type]

    points = [point("dynamic", side="right"), point("plain"), point("dynamic", side="left"), point("late")]
    points += [point("dynamic", side="right")]
    found = Catalog().check_models(points)
    assert [check.problem for check in found] == [None] * 5
    common = {"own", "own.net", "own.blocks"}
    expected = [common | {"own.right", "own.deep"}, common, common | {"own.left"}, common | {"own.late"}]
    assert [set(check.modules) for check in found] == [*expected, expected[0]]
    (own / "own/deep.py").write_text("VALUE = 2\n")
    [again] = Catalog().check_models(points[:1])
    assert {name for name in again.modules if again.modules[name] != found[0].modules[name]} == {"own.deep"}


def test_files_that_are_executed_by_their_path_count(own: Path) -> None:
    (own / "own/net.py").write_text(
        "import runpy\nfrom own.blocks import Block\n"
        "def by_path(num_classes=2):\n"
        "    runpy.run_path('settings_of_mine.py')\n    return Block(num_classes)\n"
    )
    (own / "settings_of_mine.py").write_text("WIDTH = 1\n")
    points = [Point(model="own.net:by_path", clip="2x1x8")]  # type: ignore[arg-type]
    [check] = Catalog().check_models(points)
    assert "settings_of_mine.py" in check.modules
