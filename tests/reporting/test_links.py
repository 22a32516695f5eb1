"""Addresses and file names of pages."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.reporting.links import Links, file_names, paper_page


@given(st.lists(st.text(max_size=90), max_size=12, unique=True))
def test_names_of_files_are_plain_and_unique_whatever_the_text(texts: list[str]) -> None:
    names = file_names(texts)
    assert all(re.fullmatch(r"[A-Za-z0-9._-]{1,80}", name) and name.strip(".") for name in names)
    assert len({name.lower() for name in names}) == len(texts)


def test_a_plain_name_stays_readable() -> None:
    assert file_names(["c3d", "C3D", "c3d depth-3"]) == ["c3d", "C3D-1", "c3d-depth-3"]


@pytest.mark.parametrize(
    ("links", "name", "section", "expected"),
    [
        (Links(), "board", "", "board.html"),
        (Links(), "board", "legend", "board.html#legend"),
        (Links().from_subfolder, "models/c3d", "", "../models/c3d.html"),
        (Links(is_single_file=True), "models/c3d", "", "#page-models-c3d"),
        (Links(is_single_file=True).from_subfolder, "board", "legend", "#legend"),
        (Links(is_single_file=True, has_details=False), "models/c3d", "", ""),
    ],
)
def test_an_address_leads_to_the_page_in_both_forms_of_a_site(
    links: Links, name: str, section: str, expected: str
) -> None:
    assert links.page(name, section) == expected


def test_a_paper_of_arxiv_has_a_page_and_nothing_else_has() -> None:
    assert paper_page("Tran et al., 2015, arXiv:1412.0767, section 3.2") == "https://arxiv.org/abs/1412.0767"
    assert paper_page("arXiv:2403.06977") == "https://arxiv.org/abs/2403.06977"
    for text in (
        "",
        "javascript:alert(1)",
        "arXiv:../../x",
        "arXiv:14120767",
        "arXiv:١٤١٢.٠٧٦٧",
        "https://example.org/1412.0767",
    ):
        assert paper_page(text) == ""
