"""Suggestions in error messages: the nearest spellings of a name, of a part of one, and of problems of options."""

import pytest

from bench.core.errors import Problem, SuiteError, UnknownNameError, nearest, nearest_part, suggest

TITLES = ("c3d_search 16x1x32 kernel_depth=1", "c3d_search 16x1x32 kernel_depth=3", "x3d_m 16x5x224")


@pytest.mark.parametrize(
    ("name", "found"),
    [("c3dd", "c3d"), ("C3DD", "c3d"), ("readme", "README"), ("wholly-else", "")],
)
def test_the_nearest_name_is_found_whatever_its_capitals(name: str, found: str) -> None:
    assert nearest(name, ["c3d", "README", "x3d_m"]) == (f"did you mean: {found}?" if found else "")


@pytest.mark.parametrize(
    ("part", "found"),
    [
        ("c3d_serch", "c3d_search"),
        ("kernel_deph=3", "kernel_depth=3, kernel_depth=1"),
        ("x3dm 16x5x224", "x3d_m 16x5x224"),
        ("nothing of it", ""),
        ("", ""),
    ],
)
def test_a_misspelt_part_of_a_title_finds_the_words_that_were_meant(part: str, found: str) -> None:
    assert nearest_part(part, TITLES) == (f"did you mean: {found}?" if found else "")


def test_an_unknown_case_names_words_or_else_the_titles() -> None:
    assert str(UnknownNameError("case", "x3d_n", TITLES, of_parts=True)) == (
        "unknown case 'x3d_n'; did you mean: x3d_m?"
    )
    assert "allowed: c3d_search 16x1x32" in str(UnknownNameError("case", "resnet", TITLES, of_parts=True))
    assert suggest("resnet", TITLES).startswith("allowed: ")


def test_a_problem_of_an_option_has_no_line() -> None:
    of_option = Problem(line=0, column=0, message="unknown data set 'x'", file="--dataset")
    of_file = Problem(line=2, column=3, message="unknown key 'x'")
    assert str(SuiteError("vbench train", [of_option])) == "--dataset: unknown data set 'x'"
    assert str(SuiteError("s.yaml", [of_file])) == "s.yaml:2:3: unknown key 'x'"
