"""Instructions of a forward pass: what counts them, what they are told of where nothing can, and a planted layer."""

import errno
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bench.core.registry import MEASURES
from bench.core.schema import Case, Clip, Point
from bench.measure import instruction_counter
from bench.measure.context import CaseContext
from bench.measure.instruction_counter import (
    CannotCountError,
    Counts,
    PerfCounter,
    _why_refused,
    total_of,
)
from bench.measure.instructions import instructions

needs_valgrind = pytest.mark.skipif(shutil.which("valgrind") is None, reason="needs valgrind")
TYPE_SOFTWARE, PAGE_FAULTS = 1, 2


def case_of(model: str, folder: Path, **point: object) -> CaseContext:
    given = {"model": model, "clip": Clip.model_validate("4x1x16"), **point}
    return CaseContext(Case(suite="s", point=Point.model_validate(given), measures={}), artifacts=folder)


def test_the_total_of_a_dump_is_read() -> None:
    assert total_of("version: 1\nevents: Ir\nfn=(1)\n12 345\n\ntotals: 175443349\n") == 175443349


def test_the_system_call_counts_the_events_of_the_work_alone() -> None:
    """Page faults, which every machine can count: 1,000 new pages, and none. By hand: a page has 4 KiB or more."""
    try:
        counter = PerfCounter(kind=TYPE_SOFTWARE, event=PAGE_FAULTS)
    except CannotCountError as refused:
        pytest.skip(str(refused))
    import mmap

    def touch() -> None:
        pages = mmap.mmap(-1, 1000 * mmap.PAGESIZE)
        for start in range(0, len(pages), mmap.PAGESIZE):
            pages[start] = 1

    counter.count(touch)
    assert 0 < counter.count(touch) < 1100
    assert counter.count(lambda: None) <= 1


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.EACCES, "perf_event_paranoid is 4, and 2 or less is needed"),
        (errno.ENOENT, "as in most virtual machines"),
        (errno.EMFILE, "Too many open files"),
    ],
)
def test_a_refused_counter_is_explained_in_one_line(
    number: int, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "paranoid").write_text("4\n")
    monkeypatch.setattr(instruction_counter, "PARANOID", tmp_path / "paranoid")
    assert words in _why_refused(number)
    assert "\n" not in _why_refused(number)


def test_without_any_counter_the_value_is_unknown_and_the_note_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse() -> PerfCounter:
        raise CannotCountError("no counter here")

    monkeypatch.setattr(instruction_counter, "PerfCounter", refuse)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    [metric] = instructions(case_of("c3d", tmp_path))
    assert metric.value is None
    assert metric.note == "no counter here; without it, valgrind is needed"


def test_the_metric_is_the_median_and_names_what_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Counts of two tools have two keys, so that they are never compared with each other."""
    found = Counts(passes=(10, 30, 11), tool="callgrind")
    monkeypatch.setattr(instruction_counter, "count_passes", lambda case, *, passes, timeout_s: found)
    case = case_of("c3d", tmp_path)
    [metric] = instructions(case)
    assert (metric.value, metric.unit, metric.key) == (11, "instructions", "instructions.forward{by=callgrind}")
    assert metric.note == "instructions are not time"
    assert case.details["instructions"] == {"tool": "callgrind", "passes": [10, 30, 11]}


def test_instructions_are_a_case_of_their_own_and_repeated_but_not_timed() -> None:
    """`compile` keeps a measure in the case of a timing, which a count that takes a minute would delay."""
    entry = MEASURES.get("instructions")
    assert (entry.is_timed, entry.is_repeated, entry.is_count) == (False, True, False)
    assert "compile" not in entry.depends_on


COUNTING = """
import sys
from pathlib import Path
from bench.measure.instruction_counter import CallgrindCounter

counter = CallgrindCounter(Path(sys.argv[1]))
counter.start()
works = [lambda: None, lambda: sum(range(10_000)), lambda: sum(range(20_000))]
for work in works:
    counter.count(work)
print(*[counter.count(work) for work in works])
"""


@pytest.mark.slow
@needs_valgrind
def test_callgrind_counts_twice_the_work_as_twice_the_instructions(tmp_path: Path) -> None:
    tool = ["valgrind", "-q", "--tool=callgrind", "--instr-atstart=no", f"--callgrind-out-file={tmp_path}/dump"]
    command = [*tool, sys.executable, "-c", COUNTING, f"{tmp_path}/dump"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    nothing, once, twice = map(int, done.stdout.split())
    assert nothing < 0.1 * once
    assert twice - once == pytest.approx(once - nothing, rel=0.02)
