"""Changes of recipes by the command line, applied to a whole suite."""

import pytest

from bench.core.errors import InputError
from bench.core.yaml_tree import Tree
from bench.suite import change_recipes


def test_changes_reach_every_recipe_of_a_suite_and_no_other_key():
    data = {
        "suite": "s",
        "models": [{"name": "c3d", "recipe": ["quick", "brief"]}, "resnet3d"],
        "matrix": {"recipe": ["quick", "brief"]},
        "measure": {"accuracy": {"recipe": "quick with batch=4", "dataset": "motions"}},
    }
    changed = change_recipes(Tree.of(data, name="s.yaml"), ["epochs=2"]).data
    assert changed["matrix"]["recipe"] == ["quick with epochs=2", "brief with epochs=2"]
    assert changed["measure"]["accuracy"] == {"recipe": "quick with batch=4, epochs=2", "dataset": "motions"}
    assert changed["models"] == [{"name": "c3d", "recipe": ["quick with epochs=2", "brief with epochs=2"]}, "resnet3d"]


def test_changes_of_a_suite_that_trains_nothing_are_refused():
    tree = Tree.of({"suite": "s", "measure": {"params": {}}}, name="s.yaml")
    with pytest.raises(InputError, match=r"s.yaml has no recipe that 'epochs=2' could change"):
        change_recipes(tree, ["epochs=2"])
