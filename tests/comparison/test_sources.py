"""What may be compared: folders that mix ways of measuring, reports, and suites of other names."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from bench.cli.app import run_command
from bench.comparison.comparing import compare
from bench.core.errors import InputError
from bench.core.schema import Record
from bench.reporting.site import report as write_report
from bench.store import RecordStore

Runs = Callable[..., list[Record]]
QUIET = [10.0, 10.01, 9.99, 10.02, 9.98]


@pytest.fixture
def keep(tmp_path: Path, runs: Runs) -> Callable[..., Path]:
    """Writes runs into a folder; `in_turns` ones as `vbench ab` marks them, in a file of another worker."""

    def write(name: str, values: Sequence[float], *, in_turns: bool = False, **given: object) -> Path:
        folder = tmp_path / name
        store = RecordStore(folder / "ab" if in_turns else folder)
        for each in runs(values, **given):
            details = {**each.details, **({"in_turns": "processes"} if in_turns else {})}
            store.append(each.model_copy(update={"details": details}))
        return folder

    return write


SLOWER = [1.2 * value for value in QUIET]


def test_a_folder_with_both_kinds_is_compared_with_runs_measured_alone(keep: Callable[..., Path]) -> None:
    """The A/B runs of base are of slower code: they are not mixed in."""
    keep("base", QUIET)
    base, head = keep("base", SLOWER, in_turns=True), keep("head", QUIET)
    found = compare(base, head)
    [row] = found.rows
    assert (row.verdict, row.runs, row.base) == ("same", (5, 5), 10.0)
    assert (
        "5 runs of base and 0 runs of head are left out: both sides are compared by the runs that were measured alone"
    ) in found.notes
    assert found.exit_code() == 0


def test_two_mixed_folders_are_compared_by_the_way_with_more_runs(keep: Callable[..., Path]) -> None:
    keep("base", QUIET[:2])
    base = keep("base", QUIET, in_turns=True)
    keep("head", SLOWER[:2])
    head = keep("head", SLOWER, in_turns=True)
    found = compare(base, head)
    assert (found.rows[0].verdict, found.rows[0].runs) == ("worse", (5, 5))
    assert any("by the runs that took turns (vbench ab)" in note for note in found.notes)
    keep("base", QUIET)
    keep("head", QUIET)
    assert compare(base, head).rows[0].verdict == "same", "of as many runs those that were measured alone"


def test_runs_alone_and_in_turns_are_refused_with_the_reason(keep: Callable[..., Path]) -> None:
    base, head = keep("base", QUIET), keep("head", QUIET, in_turns=True)
    with pytest.raises(InputError, match="measured in turns: no in base, processes in head"):
        compare(base, head)
    assert compare(base, head, across=True).rows[0].is_across


def test_both_sides_of_an_ab_measurement_are_no_side(keep: Callable[..., Path], tmp_path: Path, runs: Runs) -> None:
    for name in ("base", "head"):
        store = RecordStore(tmp_path / "measured" / name)
        for each in runs(QUIET):
            store.append(each.model_copy(update={"details": {"in_turns": "steps"}}))
    folder = tmp_path / "measured"
    with pytest.raises(InputError, match=r"holds both sides of an A/B measurement; compare .*/base with .*/head"):
        compare(folder, keep("other", QUIET))
    assert compare(folder / "base", folder / "head").rows[0].verdict == "same"


def test_folders_named_base_and_head_of_plain_runs_are_one_side(keep: Callable[..., Path], tmp_path: Path) -> None:
    keep("all/base", QUIET)
    keep("all/head", QUIET)
    assert compare(tmp_path / "all", keep("new", QUIET)).rows[0].runs[1] == 5


@pytest.fixture
def report(keep: Callable[..., Path], tmp_path: Path) -> Callable[..., Path]:
    def write(name: str, values: Sequence[float]) -> Path:
        return write_report(keep(f"records-{name}", values), out=tmp_path / name).parent

    return write


def test_a_report_is_compared_by_the_records_in_it(report: Callable[..., Path], keep: Callable[..., Path]) -> None:
    base = report("base", QUIET)
    for named in (base, base / "data", base / "data" / "cases", next((base / "data" / "cases").glob("*.js"))):
        found = compare(named, keep("head", SLOWER))
        assert [(row.verdict, row.runs, row.base) for row in found.rows] == [("worse", (5, 5), 10.0)], named
    assert compare(base, report("other", QUIET)).rows[0].verdict == "same"


def test_other_parts_of_a_report_say_what_to_give(
    report: Callable[..., Path], keep: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    base, head = report("base", QUIET), keep("head", QUIET)
    for named, reason in (
        (base / "data" / "board.js", "holds what a page shows, not the runs; give the report's folder"),
        (base / "index.html", "is one page; give the folder of the report"),
    ):
        assert run_command(["compare", str(named), str(head)]) == 2
        assert reason in capsys.readouterr().err
    damaged = next((base / "data" / "cases").glob("*.js"))
    damaged.write_text('vbench_data["x"] = {"records": 3};')
    assert run_command(["compare", str(base), str(head)]) == 2
    assert "is no data file of a report" in capsys.readouterr().err
    damaged.unlink()
    assert run_command(["compare", str(base), str(head)]) == 2
    assert "holds no data of cases" in capsys.readouterr().err


def test_equal_cases_of_suites_with_other_names_are_compared(keep: Callable[..., Path]) -> None:
    found = compare(keep("base", QUIET, suite="before"), keep("head", SLOWER, suite="after"))
    assert ([row.verdict for row in found.rows], found.missing, found.added) == (["worse"], (), ())


def test_two_suites_with_the_cases_of_a_third_say_why_none_is_compared(keep: Callable[..., Path]) -> None:
    keep("base/one", QUIET, suite="one")
    keep("base/two", QUIET, suite="two")
    head = keep("head", QUIET, suite="after")
    for base, other in ((head.parent / "base", head), (head, head.parent / "base")):
        found = compare(base, other)
        assert (found.rows, found.exit_code()) == ((), 3)
        [note] = [note for note in found.notes if note.startswith("the suites one, two of ")]
        assert note.endswith(": give the records of one of them")
    assert not any(note.startswith("the suites") for note in compare(head.parent / "base" / "one", head).notes)


def test_suites_without_an_equal_case_say_so(keep: Callable[..., Path]) -> None:
    found = compare(keep("base", QUIET, suite="before"), keep("head", QUIET, suite="after", model="i3d"))
    assert found.exit_code() == 3
    assert [each.why for each in found.missing] == ["base has results and head has none for this case"]
    assert [each.why for each in found.added] == ["is not in base"]
