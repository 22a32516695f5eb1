"""The small form of a suite does not inherit texts about the full one."""

from pathlib import Path

from bench.suite.file import read_suite

FULL = "suite: own\ntitle: ResNet-50 on Kinetics\ndescription: A large suite.\nmodels: [c3d]\nmeasure: {params: {}}\n"


def test_a_small_form_does_not_inherit_title_and_description(tmp_path: Path) -> None:
    file = tmp_path / "own.yaml"
    file.write_text(FULL + "small: {models: [c3d_search]}\n", encoding="utf-8")
    assert read_suite(file).data["description"] == "A large suite."
    small = read_suite(file, small=True).data
    assert (small["title"], small["description"]) == ("ResNet-50 on Kinetics (small form)", "")


def test_a_small_form_keeps_its_own_texts(tmp_path: Path) -> None:
    file = tmp_path / "own.yaml"
    file.write_text(FULL + "small: {title: Toy, description: A toy.}\n", encoding="utf-8")
    small = read_suite(file, small=True).data
    assert (small["title"], small["description"]) == ("Toy", "A toy.")
