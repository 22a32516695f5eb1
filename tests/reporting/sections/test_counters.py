"""Published costs and other counters compared with ours, from records made by hand."""

from types import SimpleNamespace

from bench.reporting.results import collect

PRINTED = {
    "source": "a zoo",
    "title": "C3D 16 frames",
    "dataset": "Sports-1M",
    "status": "published",
    "confidence": "mirror",
    "clip": "16x112x112",
    "printed": 38.5,
    "counted": 40.0,
    "agrees": False,
    "explanation": "",
}
WITNESS = {
    "tool": "thop",
    "version": "0.1",
    "convention": "multiply-accumulates and normalisation",
    "printed": 1200,
    "comparable": 1000,
    "ours": 1024,
    "difference": -24,
    "verdict": "unexplained",
    "why": "<b>no idea</b>",
}


def test_a_published_cost_is_listed_once(make: SimpleNamespace) -> None:
    explained = {**PRINTED, "printed": 42.0, "explanation": "batch norm included", "status": "claimed"}
    counted = make.counts("c3d", details={"published_costs": [PRINTED, PRINTED, explained]})
    page = make.page(make.report(collect([counted])))
    assert page.tables["published-costs-table"][1:] == [
        ["c3d", "a zoo", "16x112x112", "38.5", "40.000", "−3.7", "not explained", "–"],
        ["c3d", "a zoo|claimed", "16x112x112", "42", "40.000", "+5.0", "explained", "batch norm included"],
    ]
    assert "2 published costs: 1 explained, 1 not explained." in page.text


def test_an_unexplained_counter_report_is_emphasised(make: SimpleNamespace) -> None:
    failed = {"tool": "fvcore", "version": "0.1.5", "verdict": "failed", "why": "it crashed", "printed": None}
    page = make.page(make.report(collect([make.counts("c3d", details={"witnesses": [WITNESS, failed]})])))
    assert page.tables["counters-table"][1:] == [
        ["c3d", "16x1x112", "thop 0.1", "1,200", "1,000", "-24", "unexplained", "<b>no idea</b>"],
        ["c3d", "16x1x112", "fvcore 0.1.5", "–", "–", "–", "failed", "it crashed"],
    ]
    assert "1 unexplained." in page.text


def test_records_without_either_show_neither(make: SimpleNamespace) -> None:
    page = make.page(make.report(collect([make.counts("c3d"), make.counts("i3d", details={"witnesses": "?"})])))
    assert "counters-table" not in page.tables
    assert "published-costs-table" not in page.tables
