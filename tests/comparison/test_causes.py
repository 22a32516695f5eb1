"""Which layers changed, from counts by module: by hand, on models that are written down as tables."""

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from bench.comparison import formats
from bench.comparison.causes import Layer, changed_layers, collapsed
from bench.comparison.comparing import compare
from bench.comparison.verdicts import Comparison, ModuleChange
from bench.core.schema import Metric, Record
from bench.store import RecordStore

MACS = {"": 1300, "stem": 100, "blocks": 1100, "blocks.0": 400, "blocks.1": 700, "head": 100}
PARAMS = {"": 33, "stem": 3, "blocks": 20, "blocks.0": 8, "blocks.1": 12, "head": 10}
Make = Callable[..., Record]


def counts(record: Make, macs: Mapping[str, int], params: Mapping[str, int], **fields: object) -> Record:
    details = {"macs_by_module": dict(macs), "params_by_module": dict(params), "model_source": "nets.py:19"}
    metrics = [
        Metric(name="macs.forward", value=macs[""], unit="MACs", better="lower", is_exact=True),
        Metric(name="params.total", value=params[""], unit="elements", better="lower", is_exact=True),
    ]
    return record(*metrics, details=details, measures={"params": {}, "macs": {}}, **fields)


def compared(record: Make, macs: Mapping[str, int], params: Mapping[str, int]) -> Comparison:
    return compare([counts(record, MACS, PARAMS)], [counts(record, macs, params)])


def test_a_changed_layer_is_one_finding_with_all_it_moves(record: Make) -> None:
    found = compared(record, {**MACS, "": 1350, "head": 150}, {**PARAMS, "": 38, "head": 15})
    [cause] = found.causes
    assert cause.changes == (ModuleChange(path="head", what="changed", macs=50, params=5),)
    assert str(cause) == "c3d: head changed: +50 MACs, +5 parameters"
    assert [row.metric for row in found.moved_by(cause)] == ["macs.forward", "params.total"]
    assert formats.cause_lines(found) == [
        (
            "worse",
            "c3d: head changed: +50 MACs, +5 parameters (nets.py:19)",
            ["c3d 16x1x112: macs.forward +3.8 %, params.total +15.2 %"],
        )
    ]
    assert formats.shown_rows(found) == []


def test_an_inserted_layer_does_not_make_the_later_ones_changed(record: Make) -> None:
    """`blocks.1` becomes `blocks.2`; only the new one is named."""
    macs = {"": 1350, "stem": 100, "blocks": 1150, "blocks.0": 400, "blocks.1": 50, "blocks.2": 700, "head": 100}
    params = {"": 38, "stem": 3, "blocks": 25, "blocks.0": 8, "blocks.1": 5, "blocks.2": 12, "head": 10}
    [cause] = compared(record, macs, params).causes
    assert cause.changes == (ModuleChange(path="blocks.1", what="added", macs=50, params=5),)


def test_a_removed_layer_is_named_by_its_path_in_base(record: Make) -> None:
    macs = {"": 900, "stem": 100, "blocks": 700, "blocks.0": 700, "head": 100}
    params = {"": 25, "stem": 3, "blocks": 12, "blocks.0": 12, "head": 10}
    [cause] = compared(record, macs, params).causes
    assert [str(change) for change in cause.changes] == ["blocks.0 removed: -400 MACs, -8 parameters"]


def test_what_a_module_does_itself_is_its_own_change(record: Make) -> None:
    """The forward of `blocks` now multiplies too, outside of its submodules."""
    [cause] = compared(record, {**MACS, "": 1330, "blocks": 1130}, PARAMS).causes
    assert cause.changes == (ModuleChange(path="blocks", what="changed", macs=30, params=0),)


def test_more_than_three_changes_are_joined_to_the_module_above_them() -> None:
    base = [Layer(path=f"stage.{n}.conv", macs=10, params=1) for n in range(5)]
    head = [Layer(path=f"stage.{n}.conv", macs=12, params=1) for n in range(5)]
    assert [str(change) for change in collapsed(changed_layers(base, head))] == ["stage (5 layers) changed: +10 MACs"]


@pytest.mark.parametrize("known", [("macs",), ("params",)])
def test_one_kind_of_count_is_enough(record: Make, known: tuple[str, ...]) -> None:
    sides = []
    for macs, params in ((MACS, PARAMS), ({**MACS, "": 1350, "head": 150}, {**PARAMS, "": 38, "head": 15})):
        whole = counts(record, macs, params)
        details = {key: value for key, value in whole.details.items() if key.startswith(known)}
        sides.append([whole.model_copy(update={"details": details})])
    [change] = compare(*sides).causes[0].changes
    assert (change.macs, change.params) == ((50, None) if "macs" in known else (None, 5))


def test_equal_counts_and_unknown_counts_have_no_cause(record: Make) -> None:
    assert compared(record, MACS, PARAMS).causes == ()
    bare = [record(Metric(name="params.total", value=1, unit="elements", better="lower", is_exact=True))]
    assert compare(bare, [counts(record, MACS, PARAMS)]).causes == ()


def test_timings_of_the_same_model_are_among_what_a_layer_moves(
    record: Make, runs: Callable[..., list[Record]]
) -> None:
    quiet = [10.0, 10.02, 9.98, 10.01, 9.99]
    head_macs, head_params = {**MACS, "": 2300, "head": 1100}, {**PARAMS, "": 43, "head": 20}
    base = [counts(record, MACS, PARAMS), *runs(quiet)]
    head = [counts(record, head_macs, head_params), *runs([2 * value for value in quiet])]
    found = compare(base, head)
    [(verdict, title, lines)] = formats.cause_lines(found)
    assert (verdict, title) == ("worse", "c3d: head changed: +1 kMACs, +10 parameters (nets.py:19)")
    assert any("latency.p50_ms +100.0 % (" in line for line in lines)
    [line] = formats.as_annotations(found).splitlines()
    assert line.startswith("::error file=nets.py,line=19,title=worse%3A c3d%3A head changed%3A +1 kMACs%2C +10 param")


def test_many_metrics_that_are_the_same_are_folded(record: Make) -> None:
    metrics = [Metric(name=f"macs.m{n}", value=5, unit="MACs", better="lower", is_exact=True) for n in range(8)]
    text = formats.as_markdown(compare([record(*metrics)], [record(*metrics)]))
    assert "<details><summary>8 metrics are the same</summary>" in text
    assert text.count("| ⚪ |") == 8


def test_a_model_that_the_suite_calls_renamed_is_compared_with_its_former_self(record: Make, tmp_path: Path) -> None:
    base, head = (counts(record, MACS, PARAMS, model=name) for name in ("before", "after"))
    for side, each, facts in (("base", base, {}), ("head", head, {"renamed": {"after": "before"}})):
        store = RecordStore(tmp_path / side)
        store.append(each)
        store.write_suite({"name": "s", **facts})
    found = compare(tmp_path / "base", tmp_path / "head")
    assert [row.verdict for row in found.rows] == ["same", "same"]
    assert (found.missing, found.added, found.exit_code()) == ((), (), 0)


def test_a_renamed_model_is_reported_as_a_rename(record: Make) -> None:
    old, new = (counts(record, MACS, PARAMS, model=name) for name in ("before", "after"))
    found = compare([old], [new])
    [note] = [note for note in found.notes if "renamed" in note]
    assert note.startswith("before is gone and after is new, with the same layers and counts: if it was renamed, add")
    other = counts(record, {**MACS, "": 1301, "head": 101}, PARAMS, model="after")
    assert not [note for note in compare([old], [other]).notes if "renamed" in note]
