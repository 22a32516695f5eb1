"""The text that names a recipe with changes: parsed, extended and applied."""

import pytest

from bench.core.errors import InputError
from bench.core.recipe_choice import RecipeChoice, with_changes


@pytest.mark.parametrize(
    ("text", "name", "changes"),
    [
        ("quick", "quick", {}),
        ("recipes/mine.yaml", "recipes/mine.yaml", {}),
        ("quick with epochs=30", "quick", {"epochs": 30}),
        ("quick with epochs=30, optimizer.lr=1e-3", "quick", {"epochs": 30, "optimizer.lr": 0.001}),
        ("q with optimizer.betas=[0.9, 0.99],amp=bf16", "q", {"optimizer.betas": [0.9, 0.99], "amp": "bf16"}),
        ("q with ema=null, sync_bn=true", "q", {"ema": None, "sync_bn": True}),
    ],
)
def test_a_choice_is_read(text: str, name: str, changes: dict[str, object]) -> None:
    choice = RecipeChoice.parse(text)
    assert (choice.name, choice.changes) == (name, changes)


def test_changes_are_sorted_and_later_ones_replace_earlier_ones() -> None:
    once = with_changes("quick", ["optimizer.lr=0.1", "epochs=2"])
    assert once == "quick with epochs=2, optimizer.lr=0.1"
    assert with_changes(once, ["epochs=3"]) == "quick with epochs=3, optimizer.lr=0.1"
    assert with_changes("quick", []) == "quick"


def test_changes_reach_nested_keys_and_leave_the_file_alone() -> None:
    file = {"epochs": 5, "optimizer": {"name": "sgd", "lr": 0.1}}
    changed = RecipeChoice.parse("r with optimizer.lr=0.2, schedule.name=cosine").changed(file)
    assert changed == {"epochs": 5, "optimizer": {"name": "sgd", "lr": 0.2}, "schedule": {"name": "cosine"}}
    assert file["optimizer"] == {"name": "sgd", "lr": 0.1}


@pytest.mark.parametrize("change", ["epochs", "=3", "epochs=", "Epochs=3", "lr=[1", "optimizer..lr=3"])
def test_malformed_changes_are_refused(change: str) -> None:
    with pytest.raises(InputError, match="recipe change"):
        RecipeChoice.parse(with_changes("quick", [change]))


def test_a_key_below_a_plain_value_is_refused() -> None:
    with pytest.raises(InputError, match="epochs is the value 5 and has no keys"):
        RecipeChoice.parse("r with epochs.max=3").changed({"epochs": 5})
