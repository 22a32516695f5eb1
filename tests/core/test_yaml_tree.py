"""YAML files become plain values, each with its place."""

import time
from pathlib import Path

import pytest

from bench.core.errors import SuiteError
from bench.core.yaml_tree import Tree, read_yaml


def read(folder: Path, text: str) -> Tree:
    (folder / "file.yaml").write_text(text, encoding="utf-8")
    return read_yaml(folder / "file.yaml")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a: &a {x: 1}\nb: {<<: *a, y: 2}\n", {"x": 1, "y": 2}),
        ("a: &a {x: 1}\nb: {<<: *a}\n", {"x": 1}),
        ("a: &a {x: 1}\nb: {<<: [*a, {z: 3}], x: 2}\n", {"x": 2, "z": 3}),
        ("a: &a [1, 2]\nb: *a\n", [1, 2]),
        ("a: &a true\nb: *a\n", True),
        ("b: &a false\n", False),
        ("b: &a 1.5\n", 1.5),
    ],
)
def test_anchors_and_merged_mappings_are_resolved(tmp_path: Path, text: str, value: object) -> None:
    found = read(tmp_path, text).data["b"]
    assert found == value
    assert type(found) is type(value)


def test_merged_keys_have_the_position_of_their_mapping(tmp_path: Path) -> None:
    tree = read(tmp_path, "a: &a {x: 1}\nc: {b: {<<: *a, y: 2}}\n")
    merged, own = tree.position(("c", "b", "x")), tree.position(("c", "b", "y"))
    assert (merged.line, merged.column) == (2, 5)
    assert (own.line, own.column) == (2, 17)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("1: a\n'1': b\n", "file.yaml:2:1: the key '1' is given twice"),
        ("a: 1\n? [b, c]\n: d\n", "file.yaml:2:3: a key should be a word or a number"),
        ("day: 2020-13-45\n", "month must be in 1..12"),
        ("a: !!int x\n", "does not fit its type or tag"),
        ("a: " + "[" * 500, "too deeply"),
    ],
)
def test_an_unreadable_value_is_one_problem(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(SuiteError) as caught:
        read(tmp_path, text)
    assert said in str(caught.value)
    assert len(caught.value.problems) == 1


def test_aliases_that_stand_for_billions_of_values_are_refused_at_once(tmp_path: Path) -> None:
    rows = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    rows += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    (tmp_path / "bomb.yaml").write_text("\n".join(rows) + "\n")
    with pytest.raises(SuiteError, match="more than 1,000,000 values"):
        read_yaml(tmp_path / "bomb.yaml")


@pytest.mark.slow
@pytest.mark.parametrize("item", ["  - 12345\n", "  - {model: c3d}\n"])
def test_a_file_of_a_million_values_is_refused_at_the_first_too_many(tmp_path: Path, item: str) -> None:
    (tmp_path / "long.yaml").write_text("models:\n" + item * 1_000_000)
    with pytest.raises(SuiteError, match="more than 100,000 values in one file; divide it") as caught:
        read_yaml(tmp_path / "long.yaml")
    assert 33_000 < caught.value.problems[0].line <= 100_000


@pytest.mark.slow
@pytest.mark.parametrize("text", ["title: {}\n", "description: |\n  {}\n"])
def test_seven_megabytes_of_words_are_read_in_seconds(tmp_path: Path, text: str) -> None:
    (tmp_path / "large.yaml").write_text(text.format("words " * 1_200_000))
    began = time.process_time()
    tree = read_yaml(tmp_path / "large.yaml")
    assert time.process_time() - began < 30
    assert len(str(tree.data)) > 7_000_000


def test_values_of_options_are_reported_by_the_option_that_gave_them() -> None:
    options = {("models", 0, "clip"): "--clip", ("models", 0, "name"): "MODEL"}
    tree = Tree.of({"models": [{"name": "c3d", "clip": "x"}]}, name="vbench train", options=options)
    assert tree.problem(("models", 0, "clip"), "clip: no clip, found 'x'").text("") == "--clip: no clip, found 'x'"
    assert tree.problem(("models", 0, "name"), "unknown model").text("") == "MODEL: unknown model"
    assert tree.problem(("models", 0), "c3d: too small").text("") == "vbench train: c3d: too small"
