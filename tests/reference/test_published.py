"""The table of published results: what is a fact, what a claim, and which rows are about our networks."""

from pathlib import Path

import pytest

from bench.core.registry import MODELS
from bench.reference.published import published_for, published_rows, zoo_names


def test_the_table_is_the_one_that_was_read(assets: Path) -> None:
    ours = Path(__file__).parents[2] / "bench" / "reference" / "published.csv"
    assert ours.read_bytes() == (assets / "reference" / "published.csv").read_bytes()


def test_only_rows_read_at_their_source_are_published() -> None:
    by_status: dict[str, set[str]] = {}
    for row in published_rows():
        by_status.setdefault(row.status, set()).add(row.confidence)
    assert by_status["published"] == {
        "mirror",
        "mirror + re-measured",
        "mirror (accuracy)",
        "installed package meta",
    }
    assert by_status["claimed, unsupported"] == {"UNSUPPORTED"}
    assert "memory, unverified" in by_status["claimed"]


def test_the_quoted_kinetics_700_figures_are_never_more_than_a_claim() -> None:
    quoted = [row for row in published_rows() if row.top1 in (67.1, 68.3, 68.9) and row.dataset == "Kinetics-700"]
    assert [row.status for row in quoted] == ["claimed, unsupported"] * 3


def test_numbers_that_are_not_printed_are_none() -> None:
    rows = [row for row in published_rows() if row.source.startswith("Carreira")]
    assert {row.giga_macs for row in rows} == {None}
    assert {row.params_millions for row in rows} == {9.0, 79.0, 12.0, 39.0, 25.0}


def test_costs_that_were_measured_for_the_table_are_not_called_published() -> None:
    row = published_for("i3d_rgb")[0].row
    assert (row.giga_macs, row.cost_is_published, row.status) == (111.15, False, "published")


def test_every_row_of_the_zoo_is_about_a_network_of_ours_and_about_something_printed() -> None:
    for name in zoo_names():
        assert published_for(name), name
        assert name.startswith("torchvision:") or name in MODELS, name


def test_an_unpublished_network_has_no_rows() -> None:
    assert published_for("c3d_search") == ()


@pytest.mark.parametrize(
    ("name", "frames", "size", "printed"),
    [("slowfast_r50", 32, 256, "65.71"), ("x3d_m", 16, 256, "6.72"), ("torchvision:s3d", 16, 224, "17.979")],
)
def test_rows_carry_the_clip_that_was_counted(name: str, frames: int, size: int, printed: str) -> None:
    first = published_for(name)[0]
    assert (first.frames, first.size, first.row.giga_macs_printed) == (frames, size, printed)
