"""The text that a report shows for repeating a run is complete: nothing that it extends, and no option, is missing."""

from pathlib import Path

import pytest

from bench.core.yaml_tree import Tree, plain_values, read_yaml
from bench.suite import read_suite
from bench.suite.file import change_recipes
from bench.suite.plan import Suite

SUITES = sorted((Path(__file__).parents[2] / "suites").glob("*.yaml"))


def whole_of(tree: Tree) -> str:
    suite = Suite(
        name="s", title="", description="", path=Path("s.yaml"), text=tree.text, cases=(), ablate=None, gate={},
        data=tree.data,
    )  # fmt: skip
    return str(suite.facts().get("whole", ""))


@pytest.mark.parametrize("path", SUITES, ids=lambda path: path.stem)
def test_a_small_form_is_whole_and_reads_as_what_was_measured(path: Path, tmp_path: Path) -> None:
    small = "small" in read_yaml(path).data
    tree = read_suite(path, small=small)
    text = whole_of(tree)
    assert bool(text) == (small or "extends" in read_yaml(path).data)
    if text:
        (tmp_path / "again.yaml").write_text(text, encoding="utf-8")
        read = read_suite(tmp_path / "again.yaml")
        assert read.data == {key: value for key, value in tree.data.items() if key not in ("extends", "small")}


def test_a_suite_that_extends_others_and_has_changed_recipes_is_whole(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text(
        "models: [c3d]\nmatrix: {compile: [off]}\nmeasure: {accuracy: {recipe: quick}}\n"
    )
    (tmp_path / "own.yaml").write_text("suite: own\nextends: [base.yaml]\nmodels: ['nets.py:small', 'on']\n")
    tree = read_suite(tmp_path / "own.yaml")
    expected = {
        "suite": "own",
        "models": ["nets.py:small", "on"],
        "matrix": {"compile": ["off"]},
        "measure": {"accuracy": {"recipe": "quick"}},
    }
    assert plain_values(whole_of(tree)) == expected
    changed = plain_values(whole_of(change_recipes(tree, ["epochs=3"])))
    assert changed["measure"] == {"accuracy": {"recipe": "quick with epochs=3"}}


def test_a_suite_of_one_file_is_its_own_text(tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text("suite: own  # why\nmodels: [c3d]\nmeasure: {params: {}}\n")
    assert whole_of(read_suite(tmp_path / "own.yaml")) == ""
