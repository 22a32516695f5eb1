"""The suite as each side measures it: replaced, renamed, new and removed models, limits as text, exact measures."""

import subprocess
from pathlib import Path
from typing import Any

import pytest

from bench.ab.side_suites import (
    ListedModels,
    listed_models,
    only_counts,
    own_models,
    suite_for_side,
    suite_of_side,
    with_former_names,
    with_limits_as_text,
    with_models,
)
from bench.ab.sides import SideSpec, read_side, side_setup
from bench.core.errors import InputError
from bench.core.yaml_tree import Tree
from bench.suite import read_suite

SUITE: dict[str, Any] = {"suite": "s", "models": ["c3d"], "measure": {"params": {}}}


def git(folder: Path, *arguments: str) -> None:
    command = ["git", "-c", "user.name=t", "-c", "user.email=t@t", *arguments]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)


def test_a_model_side_replaces_the_one_model_of_the_suite() -> None:
    suite = {**SUITE, "models": [{"name": "c3d", "num_classes": 7}], "matrix": {"clip": ["8x1x32"]}}
    assert suite_for_side(read_side("nets:small"), suite)["models"] == [{"name": "nets:small", "num_classes": 7}]
    ruled = {**suite, "matrix": {**suite.get("matrix", {}), "exclude": [{"model": "c3d", "batch": 2}, {"batch": 4}]}}
    assert suite_for_side(read_side("nets:small"), ruled)["matrix"]["exclude"] == [
        {"model": "nets:small", "batch": 2},
        {"batch": 4},
    ]
    assert suite_for_side(read_side("main"), suite) == suite
    with pytest.raises(InputError, match="clip of both"):
        suite_for_side(read_side("nets:small"), SUITE)
    with pytest.raises(InputError, match="one model"):
        suite_for_side(read_side("model:c3d"), {**SUITE, "models": ["c3d", "i3d"]})


def test_base_measures_renamed_models_under_their_former_names() -> None:
    suite = {
        "models": ["a", {"name": "new", "num_classes": 7}],
        "matrix": {"exclude": [{"model": "new", "batch": 2}], "batch": [1, 2]},
        "renamed": {"new": "old"},
    }
    base = with_former_names(suite)
    assert base["models"] == ["a", {"name": "old", "num_classes": 7}]
    assert base["matrix"] == {"exclude": [{"model": "old", "batch": 2}], "batch": [1, 2]}
    spec = SideSpec(text=".", kind="here")
    assert "renamed" not in suite_for_side(spec, base), "commits from before this key refuse it"
    assert with_former_names({"models": ["a"]}) == {"models": ["a"]}


def test_limits_reach_a_side_as_text() -> None:
    """A commit from before bare numbers were limits plans the suite too."""
    suite = {"suite": "s", "gate": {"a.b": {"max_rise": 3, "max_drop": "1%"}, "c.d": None}}
    assert with_limits_as_text(suite)["gate"] == {"a.b": {"max_rise": "3", "max_drop": "1%"}, "c.d": None}
    assert with_limits_as_text({"suite": "s"}) == {"suite": "s"}


def test_only_counts_keeps_exact_measures_and_the_limits_on_them() -> None:
    suite: dict[str, Any] = {
        "suite": "s",
        "measure": {"params": {}, "macs": {"backward": False}, "latency": {}, "accuracy": {"dataset": "ucf101"}},
        "gate": {"params.total": {"max_rise": "0%"}, "latency.p50_ms": {"max_rise": "3%"}, "m*": {"max_rise": "1%"}},
    }
    found = only_counts(Tree.of(suite, name="s.yaml")).data
    assert found["measure"] == {"params": {}, "macs": {"backward": False}}
    assert list(found["gate"]) == ["params.total", "m*"]
    del suite["gate"]["params.total"], suite["gate"]["m*"]
    assert "gate" not in only_counts(Tree.of(suite, name="s.yaml")).data


def test_models_that_one_version_of_the_suite_lacks_have_no_partner() -> None:
    """Head renamed `old`, added `fresh` and removed `gone`; the entries of the same name may have other arguments."""
    suite: dict[str, Any] = {"models": ["kept", {"name": "new", "depth": 2}, "fresh"], "renamed": {"new": "old"}}
    base: list[Any] = ["kept", "old", {"name": "gone", "depth": 1}]
    found = listed_models(suite, [base, suite["models"]])
    assert found == ListedModels(
        base_lacks=frozenset({"fresh"}),
        removed=({"name": "gone", "depth": 1},),
        only_base=frozenset({"gone"}),
        only_head=frozenset({"fresh"}),
    )
    spec, tree = SideSpec(text="main", kind="commit"), Tree.of({"suite": "s", **suite}, name="s.yaml")
    of_base = suite_of_side("base", spec, tree, found).data["models"]
    assert of_base == ["kept", {"name": "old", "depth": 2}, {"name": "gone", "depth": 1}]
    assert suite_of_side("head", spec, tree, found).data["models"] == suite["models"]


@pytest.mark.parametrize(
    ("own", "found"),
    [
        ((None, None), ListedModels()),
        ((["a"], ["a"]), ListedModels(base_lacks=frozenset("b"), head_lacks=frozenset("b"))),
        ((["a", "b", "c"], None), ListedModels()),
        ((["a", "b", "c"], ["a", "b", "c"]), ListedModels()),
        ((["a", "b"], ["a"]), ListedModels(head_lacks=frozenset("b"), only_base=frozenset("b"))),
        (
            (["x"], ["a", "b"]),
            ListedModels(
                base_lacks=frozenset("ab"), removed=("x",), only_base=frozenset("x"), only_head=frozenset("ab")
            ),
        ),
        ((["x"], None), ListedModels()),
        ((["a"], ["x"]), ListedModels()),
        ((None, ["a"]), ListedModels(head_lacks=frozenset("b"), only_base=frozenset("b"))),
    ],
    ids=[
        "unknown",
        "in neither",
        "perhaps shortened",
        "shortened",
        "removed",
        "all renamed",
        "all new, uncommitted",
        "other models",
        "not in head",
    ],
)
def test_a_model_is_missing_only_if_heads_version_is_known_to_lack_it(
    own: tuple[list[str] | None, list[str] | None], found: ListedModels
) -> None:
    assert listed_models({"models": ["a", "b"]}, own) == found


@pytest.mark.parametrize("models", [None, 3, {"a": {}}])
def test_a_suite_without_a_list_of_models_is_left_to_its_plan(models: object) -> None:
    assert listed_models({"models": models}, [["a"], None]) == ListedModels()


def test_rules_on_a_model_that_a_side_lacks_leave_with_it() -> None:
    suite: dict[str, Any] = {
        "models": ["a", "b"],
        "matrix": {"batch": [1, 2], "exclude": [{"model": "b", "batch": 2}, {"batch": 4}], "include": [{"model": "a"}]},
    }
    assert with_models(suite, without={"b"}) == {
        "models": ["a"],
        "matrix": {"batch": [1, 2], "exclude": [{"batch": 4}], "include": [{"model": "a"}]},
    }
    assert with_models(suite, without=()) == suite


def test_the_version_of_a_commit_is_read_and_that_of_changed_files_is_unknown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "repository"
    (folder / "suites").mkdir(parents=True)
    monkeypatch.chdir(folder)
    git(folder, "init", "-q", "-b", "main")
    file = folder / "suites" / "nets.yaml"
    for models in ("[a]", "[a, b]"):
        file.write_text(f"suite: nets\nmodels: {models}\nmeasure: {{params: {{}}}}\nsmall: {{models: [s]}}\n")
        git(folder, "add", ".")
        git(folder, "commit", "-q", "-m", models)

    def own(side: str, *, small: bool = False) -> Any:
        spec = read_side(side)
        with side_setup(spec) as setup:
            return own_models(read_suite(file, small=small), spec, setup, small=small)

    assert own("HEAD~1") == ["a"]
    assert own("HEAD~1", small=True) == ["s"]
    assert own(".") == ["a", "b"]
    file.write_text(file.read_text().replace("suite: nets", "suite: other"))
    assert own("HEAD") is None, "the file held another suite"
    file.write_text(file.read_text().replace("suite: other", "suite: nets"))
    git(folder, "rm", "-q", "--cached", "suites/nets.yaml")
    git(folder, "commit", "-q", "-m", "no suite")
    assert own("HEAD") is None
    assert own(".") is None, "it is not committed"
    assert own("python:python3") is None
