"""Facts and counts that come with vbench, so that a fresh machine lists models without torch."""

import json
from pathlib import Path
from typing import Any

import pytest

from bench.catalog import shipped_models, source_hashes, write_shipped_models
from bench.catalog.catalog import Catalog, count_key
from bench.catalog.shipped_models import shipped_answers
from bench.core.registry import MODELS
from bench.core.schema import ModelCheck, ModelInfo, Point


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small package of two model files, the second of which imports the first, and the file written for it."""
    (tmp_path / "models").mkdir()
    (tmp_path / "measure" / "counting").mkdir(parents=True)
    (tmp_path / "models" / "blocks.py").write_text("WIDTH = 3\n")
    (tmp_path / "models" / "net.py").write_text("from bench.models.blocks import WIDTH\n")
    (tmp_path / "models" / "other.py").write_text("X = 1\n")
    (tmp_path / "measure" / "counting" / "rule.py").write_text("FACTOR = 1\n")
    for module in (shipped_models, source_hashes):
        monkeypatch.setattr(module, "PACKAGE", tmp_path)
    for module in (shipped_models, write_shipped_models):
        monkeypatch.setattr(module, "FILE", tmp_path / "shipped.json")
    infos = [info(tmp_path, stem) for stem in ("net", "other")]
    write_shipped_models.write_shipped([(each, f"key of {each.name}", ModelCheck(params=3, macs=7)) for each in infos])
    return tmp_path


def info(package: Path, stem: str) -> ModelInfo:
    path = str(package / "models" / f"{stem}.py")
    return ModelInfo.model_validate(
        {
            "name": stem,
            "family": stem,
            "clip": "4x1x32",
            "arguments": {},
            "source": shipped_models.model_source(path),
            "former_source": shipped_models.former_model_source(path),
        }
    )


def counts(answers: dict[str, Any]) -> list[str]:
    return sorted(key for key in answers if key != "catalog")


def test_everything_is_used_while_nothing_changes(package: Path) -> None:
    answers = shipped_answers()
    assert [each["name"] for each in answers["catalog"]["models"]] == ["net", "other"]
    assert counts(answers) == ["key of net", "key of other"]
    assert ModelCheck.model_validate(answers["key of net"]) == ModelCheck(params=3, macs=7)


def test_a_changed_file_takes_away_the_counts_of_what_imports_it_and_the_list(package: Path) -> None:
    (package / "models" / "blocks.py").write_text("WIDTH = 4\n")
    answers = shipped_answers()
    assert "catalog" not in answers
    assert counts(answers) == ["key of other"]


def test_a_comment_changes_nothing_but_the_hash_of_bytes(package: Path) -> None:
    (package / "models" / "net.py").write_text("# why\nfrom bench.models.blocks import WIDTH\n")
    answers = shipped_answers()
    assert counts(answers) == ["key of net", "key of other"]
    assert answers["catalog"]["models"][0] == info(package, "net").model_dump(mode="json")


def test_a_new_file_may_register_more_models(package: Path) -> None:
    (package / "models" / "new.py").write_text("")
    assert "catalog" not in shipped_answers()


def test_another_rule_of_counting_takes_away_all_counts(package: Path) -> None:
    (package / "measure" / "counting" / "rule.py").write_text("FACTOR = 2\n")
    assert list(shipped_answers()) == ["catalog"]


@pytest.mark.parametrize("content", ["", "{}", "[1]", '{"files": 3}'])
def test_a_damaged_file_is_ignored(package: Path, content: str) -> None:
    (package / "shipped.json").write_text(content)
    assert shipped_answers() == {}


def test_what_is_shipped_and_current_equals_what_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    shipped = json.loads(shipped_models.FILE.read_text())
    assert len(shipped["models"]) == len(shipped["counts"]) > 150
    answers = shipped_answers()
    points = [Point(model=name, clip=MODELS.get(name).clip) for name in ("x3d_xs", "two_stream", "resnet3d_10")]
    monkeypatch.setattr("bench.catalog.catalog.shipped_answers", dict)
    for point, check in zip(points, Catalog().check_models(points), strict=True):
        if count_key(point) in answers:  # after a change of its code, `make catalog` counts it again
            assert ModelCheck.model_validate(answers[count_key(point)]) == check
