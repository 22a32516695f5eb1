"""Published costs compared with ours: equal to the last digit, or a convention that gives the published digits."""

import pytest

from bench.measure.counting.published_costs import published_costs


def test_c3d_is_printed_as_counted() -> None:
    first = published_costs("c3d")[0]
    assert (first.printed, first.agrees, first.status) == (38.5, True, "published")
    assert first.counted == pytest.approx(38.547378176)


def test_a_crop_that_is_not_the_printed_one_is_found_out() -> None:
    csn = [row for row in published_costs("ir_csn_r152") if row.source.startswith("VMZ")]
    assert {row.agrees for row in csn} == {False}
    assert {row.explanation for row in csn} == {"printed for a crop of 256, not 224"}


def test_batch_norm_that_is_included_is_found_out() -> None:
    by_source = {row.source.split()[0]: row for row in published_costs("slow_r50_4x16")}
    assert "2 per element" in by_source["mmaction2"].explanation
    assert "5 per element" in by_source["pytorchvideo"].explanation
    assert by_source["pytorchvideo"].relative_difference == pytest.approx(0.0106, abs=1e-4)


def test_nothing_published_gives_no_row() -> None:
    assert published_costs("c3d_search") == ()


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["r3d_18", "mc3_18", "r2plus1d_18", "s3d", "mvit_v1_b", "mvit_v2_s", "swin3d_t", "swin3d_s", "swin3d_b"]
)
def test_torchvision_prints_what_we_count(name: str) -> None:
    rows = [row for row in published_costs(f"torchvision:{name}") if row.source.startswith("torchvision")]
    assert rows
    assert all(row.agrees for row in rows)
