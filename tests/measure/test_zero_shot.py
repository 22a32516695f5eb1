"""Zero-shot evaluation: classes are described by texts, whose files are part of the protocol."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from bench.core.errors import InputError
from bench.core.schema import Case, Point
from bench.data.collection import open_dataset
from bench.measure.context import CaseContext
from bench.measure.frozen import frozen
from bench.models.factory import create_model
from bench.train.evaluating import evaluate

pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("data") / "motions"
    open_dataset(
        "motions", root=folder, split="val", clips_per_class=1, val_clips_per_class=4, frames=8, size=32, classes=2
    )
    return str(folder)


@pytest.fixture
def case(tmp_path: Path, write_text_model: Callable[[Path, str], Any]) -> CaseContext:
    folder = tmp_path / "xclip"
    folder.mkdir()
    write_text_model(folder, "xclip")
    point = Point.model_validate({"model": f"hf:{folder}", "clip": "4x1x32", "dataset": "motions"})
    made = Case(suite="s", point=point, measures={"frozen": {}})
    return CaseContext(made, artifacts=tmp_path / "s" / "artifacts" / made.id)


def write(folder: Path, name: str, *lines: str) -> str:
    (folder / name).write_text("\n".join(lines))
    return str(folder / name)


def test_videos_are_scored_by_the_texts_of_their_classes(case: CaseContext, root: str, tmp_path: Path) -> None:
    classes = write(tmp_path, "classes.txt", "Moving-LEFT", "jump", "moving right")
    prompts = write(tmp_path, "prompts.txt", "{}", "", "{}!")
    (top1, mean_class) = frozen(case, root=root, head="zero_shot", classes=classes, prompts=prompts)
    model = create_model(case.point.model).eval()
    model.set_classes(["moving right", "moving left", "jump"], ["{}", "{}!"])  # type: ignore[operator]
    test = open_dataset("motions", root=root, split="val")
    with torch.no_grad():
        expected = evaluate(model, test, clip=case.point.clip)
    assert top1.key == "frozen.top1{head=zero_shot,shots=0}"
    assert top1.value == pytest.approx(100 * expected.top(1).value)
    assert mean_class.value == pytest.approx(100 * expected.mean_class)
    (head,) = case.details["frozen"]["heads"]  # type: ignore[index,call-overload]
    assert (head["adaptation"], head["classes"], head["prompts"]) == ("zero-shot", 3, ["{}", "{}!"])
    assert head["without_text"] == []


def test_the_hashes_change_with_the_content_of_the_files(case: CaseContext, root: str, tmp_path: Path) -> None:
    hashes = set()
    for names in (
        ("moving left", "moving right"),
        ("moving right", "moving left"),
        ("moving left", "moving right", "x"),
    ):
        frozen(case, root=root, head="zero_shot", classes=write(tmp_path, "classes.txt", *names))
        (head,) = case.details["frozen"]["heads"]  # type: ignore[index,call-overload]
        hashes.add((head["classes_hash"], head["classes_file_hash"]))
    assert len(hashes) == 3


def test_classes_without_a_text_count_as_wrong_and_are_named(case: CaseContext, root: str, tmp_path: Path) -> None:
    found = frozen(case, root=root, head="zero_shot", classes=write(tmp_path, "classes.txt", "moving left"))
    assert found[0].value is not None
    assert found[0].value <= 50
    assert any(
        "1 of 2 classes have no text; their videos count as wrong: moving right" in w.what for w in case.warnings
    )


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["a video"], r"prompts.txt:1: a prompt has \{\} once"),
        (["{}", "{} {}"], r"prompts.txt:2: a prompt has \{\} once"),
        ([], "has no prompt"),
    ],
)
def test_prompts_without_a_place_for_the_name_are_refused(
    case: CaseContext, root: str, tmp_path: Path, lines: list[str], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        frozen(case, root=root, head="zero_shot", prompts=write(tmp_path, "prompts.txt", *lines))


def test_a_model_without_text_is_refused(case: CaseContext, root: str, tmp_path: Path) -> None:
    point = Point.model_validate({"model": "resnet3d", "args": {"depth": 10}, "clip": "4x1x32", "dataset": "motions"})
    made = Case(suite="s", point=point, measures={"frozen": {}})
    context = CaseContext(made, artifacts=tmp_path / "s" / "artifacts" / made.id)
    with pytest.raises(InputError, match="resnet3d has no text encoder"):
        frozen(context, root=root, head="zero_shot")
    with pytest.raises(InputError, match="classes and prompts are for `head: zero_shot`"):
        frozen(context, root=root, head="knn", classes="classes.txt")
