"""A metric over commits: its series, the first bad commit, and what is not one series."""

import json
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from bench.cli.app import run_command
from bench.cli.history import _show_history
from bench.comparison.history import history_of
from bench.core.errors import InputError, UnknownNameError
from bench.core.schema import Environment, Metric, Record, digest
from bench.store import RecordStore

LEVEL = [10.0, 10.1, 9.9, 10.05, 9.95, 10.02, 9.98, 10.03]


@pytest.fixture
def commits(record: Callable[..., Record], latency: Callable[..., Metric]) -> Callable[..., list[Record]]:
    """Three runs a commit around each value; commits are named c00, c01, …"""

    def make(values: Sequence[float], **given: object) -> list[Record]:
        made = []
        for number, value in enumerate(values):
            for run, factor in enumerate((0.99, 1.0, 1.3)):
                plain = record(latency(value * factor), run=run, **given)
                state = {"commit": f"c{number:02d}"}
                environment = plain.environment.model_copy(update={"state": state})
                at = f"2026-01-{1 + number:02d}T00:00:{run:02d}"
                made.append(plain.model_copy(update={"environment": environment, "started_at": at}))
        return made

    return make


def test_the_first_bad_commit_is_named(commits: Callable[..., list[Record]]) -> None:
    found = history_of(commits([*LEVEL, *(1.05 * value for value in LEVEL)]), "latency.p50_ms", "c3d")
    assert [moment.value for moment in found.commits[:8]] == LEVEL, "the median over a commit's runs"
    [turn] = found.changes
    assert (turn.first.commit, turn.last_before.commit, turn.verdict) == ("c08", "c07", "worse")
    assert turn.change == pytest.approx(0.05, abs=0.01)


def test_a_drop_of_a_lower_is_better_metric_is_better_and_noise_is_no_step(
    commits: Callable[..., list[Record]],
) -> None:
    [turn] = history_of(commits([*LEVEL, *(0.9 * value for value in LEVEL)]), "latency.p50_ms", "c3d").changes
    assert turn.verdict == "better"
    assert history_of(commits(LEVEL), "latency.p50_ms", "c3d").changes == ()


def test_a_history_goes_on_under_a_new_name(commits: Callable[..., list[Record]]) -> None:
    """Eight commits of `before`, then eight of `after` at the same level, and no more."""
    both = commits([*LEVEL, *LEVEL], model="before")[:24] + commits([*LEVEL, *LEVEL], model="after")[24:]
    assert len(history_of(both, "latency.p50_ms", "after").commits) == 8
    found = history_of(both, "latency.p50_ms", "after", former=["before"])
    assert [each.commit for each in found.commits] == [f"c{n:02d}" for n in range(16)]
    assert (found.case.point.model, found.changes) == ("after", ())


def with_state(record: Record, **state: object) -> Record:
    environment = record.environment
    return record.model_copy(
        update={"environment": environment.model_copy(update={"state": {**environment.state, **state}})}
    )


def test_throttled_runs_are_no_bad_commit(
    commits: Callable[..., list[Record]], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    values = [*LEVEL, *(1.4 * value for value in LEVEL)]
    records = [r.model_copy(update={"status": "throttled"}) if n >= 24 else r for n, r in enumerate(commits(values))]
    found = history_of(records, "latency.p50_ms", "c3d")
    assert (len(found.commits), found.changes, found.throttled) == (8, (), 24)
    for each in records:
        RecordStore(tmp_path).append(each)
    assert run_command(["history", "latency.p50_ms", "c3d", "--from", str(tmp_path)]) == 0
    assert "24 runs left out: throttled" in capsys.readouterr().out


def test_counts_of_a_throttled_run_are_known(record: Callable[..., Record], params: Callable[[int], Metric]) -> None:
    hot = [with_state(record(params(7), status="throttled", started_at=name), commit=name) for name in "ab"]
    found = history_of(hot, "params.total", "c3d")
    assert (len(found.commits), found.throttled) == (2, 0)


def versions(latency: int, **others: int) -> dict[str, object]:
    return {"details": {"measure_versions": {"latency": latency, **others}}}


@pytest.mark.parametrize(
    ("before", "since", "differing"),
    [
        (versions(1), versions(2), "measure.latency (version)"),
        (
            {"measures": {"latency": {"warmup": 3}}},
            {"measures": {"latency": {"warmup": 30}}},
            "measure.latency.warmup",
        ),
        (
            {"details": {"protocol": {"views": "1x1"}}},
            {"details": {"protocol": {"views": "10x3"}}},
            "protocol.views",
        ),
    ],
)
def test_a_change_of_protocol_is_no_step_of_the_code(
    commits: Callable[..., list[Record]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    before: dict[str, object],
    since: dict[str, object],
    differing: str,
) -> None:
    """The newest way counts; what `compare` would refuse is left out and named."""
    slower = [1.2 * value for value in LEVEL]
    records = [*commits([*LEVEL, *slower], **before)[:24], *commits([*LEVEL, *slower], **since)[24:]]
    found = history_of(records, "latency.p50_ms", "c3d")
    assert [moment.commit for moment in found.commits] == [f"c{n:02d}" for n in range(8, 16)]
    assert (found.changes, found.unlike, found.differing) == ((), 24, (differing,))
    for each in records:
        RecordStore(tmp_path).append(each)
    assert run_command(["history", "latency.p50_ms", "c3d", "--from", str(tmp_path)]) == 0
    assert f"24 runs left out: not measured as the newest run was: {differing}" in capsys.readouterr().out


def test_other_measures_of_a_case_and_versions_that_are_not_known_part_no_series(
    commits: Callable[..., list[Record]],
) -> None:
    given = (versions(1, cold=1), versions(1, cold=2), {})
    records = [each for part, kind in enumerate(given) for each in commits(LEVEL, **kind)[9 * part : 9 * part + 9]]
    found = history_of([*records, *commits(LEVEL, **versions(1))[21:]], "latency.p50_ms", "c3d")
    assert (len(found.commits), found.unlike) == (8, 0)


def test_an_edited_run_does_not_set_the_protocol(commits: Callable[..., list[Record]]) -> None:
    tried = [with_state(record, is_dirty=True) for record in commits(LEVEL * 2, **versions(9))[45:]]
    found = history_of([*commits(LEVEL, **versions(1)), *tried], "latency.p50_ms", "c3d")
    assert (len(found.commits), found.unlike, found.uncommitted) == (8, 0, 3)


def test_of_cases_with_one_title_the_one_that_knows_the_metric_is_meant(
    commits: Callable[..., list[Record]], record: Callable[..., Record], params: Callable[[int], Metric]
) -> None:
    """A suite that counts and times has two cases that people call alike."""
    counted = with_state(record(params(7), measures={"params": {}}), commit="c00")
    both = [counted, *commits(LEVEL)]
    assert counted.case.title == both[1].case.title
    assert len(history_of(both, "latency.p50_ms", "c3d").commits) == 8
    assert len(history_of(both, "params.total", counted.case.title).commits) == 1
    with pytest.raises(UnknownNameError, match=r"latency\.p50_ms"):
        history_of(both, "latency.p50_ms", counted.case_id)


def test_edits_that_no_commit_holds_are_not_blamed_on_one(
    commits: Callable[..., list[Record]], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    clean = commits([*LEVEL, *LEVEL])
    tried = [with_state(record, is_dirty=True) for record in commits([0.0] * 8 + [14.0] * 8) if record.metrics[0].value]
    found = history_of([*clean, *tried], "latency.p50_ms", "c3d")
    assert found.changes == ()
    assert [moment.value for moment in found.commits] == [*LEVEL, *LEVEL]
    assert (found.unknown, found.uncommitted) == (0, 24)
    for record in [*clean, *tried]:
        RecordStore(tmp_path).append(record)
    assert run_command(["history", "latency.p50_ms", "c3d", "--from", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "24 runs left out: measured with local changes" in said
    assert "in the order of measuring" in said


def test_only_edits_is_a_series_of_nothing(commits: Callable[..., list[Record]]) -> None:
    found = history_of([with_state(r, is_dirty=True) for r in commits(LEVEL)], "latency.p50_ms", "c3d")
    assert (found.commits, found.changes, found.uncommitted) == ((), (), 24)


def test_runs_with_an_unknown_git_state_are_left_out(
    commits: Callable[..., list[Record]],
) -> None:
    unsure = [with_state(r, is_dirty=None) for r in commits([12.0] * 8)]
    found = history_of([*commits(LEVEL), *unsure], "latency.p50_ms", "c3d")
    assert [moment.value for moment in found.commits] == LEVEL
    assert found.uncommitted == 24


def measured_late(records: Sequence[Record], *, first: int, last: int) -> list[Record]:
    """As by a bisection: the commits from `first` to `last` were measured a month after all others."""
    late = [r for r in records if first <= int(str(r.environment.state["commit"])[1:]) <= last]
    rest = [r for r in records if r not in late]
    return [*rest, *(r.model_copy(update={"started_at": r.started_at.replace("2026-01", "2026-02")}) for r in late)]


STEP = [*LEVEL, *(1.2 * value for value in LEVEL)]


def test_an_old_commit_that_is_measured_late_is_still_old(commits: Callable[..., list[Record]]) -> None:
    late = measured_late(commits(STEP), first=3, last=7)
    as_measured = history_of(late, "latency.p50_ms", "c3d").changes
    assert [(t.first.commit, t.last_before.commit) for t in as_measured] == [("c08", "c02"), ("c03", "c15")]
    dated = [with_state(r, committed_at=f"2025-01-{1 + int(str(r.environment.state['commit'])[1:]):02d}") for r in late]
    found = history_of(dated, "latency.p50_ms", "c3d")
    assert found.order == "dates"
    assert [(turn.first.commit, turn.last_before.commit) for turn in found.changes] == [("c08", "c07")]
    half = [*dated[:24], *late[24:]]
    assert history_of(half, "latency.p50_ms", "c3d").order == "measured"


def test_git_knows_the_order_of_its_commits(
    commits: Callable[..., list[Record]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hashes = []
    run = ["git", "-c", "user.name=t", "-c", "user.email=t@t"]
    subprocess.run([*run, "init", "-q"], cwd=tmp_path, check=True)
    for number in range(16):
        message = ["commit", "-q", "--allow-empty", "-m", str(number), "--date", f"2026-01-{28 - number}T00:00:00"]
        subprocess.run([*run, *message], cwd=tmp_path, check=True)
        known = subprocess.run(["git", "rev-parse", "HEAD"], cwd=tmp_path, capture_output=True, text=True, check=True)
        hashes.append(known.stdout.strip())
    late = measured_late(commits(STEP), first=3, last=7)
    named = [with_state(r, commit=hashes[int(str(r.environment.state["commit"])[1:])]) for r in late]
    found = history_of(named, "latency.p50_ms", "c3d", repository=tmp_path)
    assert found.order == "git"
    assert [moment.commit for moment in found.commits] == hashes
    assert [turn.first.commit for turn in found.changes] == [hashes[8]]
    other = [with_state(named[0], commit="0" * 40), *named]
    assert history_of(other, "latency.p50_ms", "c3d", repository=tmp_path).order == "measured"


def test_commits_stand_in_the_order_in_which_they_were_measured_and_once(
    commits: Callable[..., list[Record]],
) -> None:
    records = commits(LEVEL[:3])
    found = history_of([*reversed(records), *records], "latency.p50_ms", "c3d")
    assert [(moment.commit, moment.runs) for moment in found.commits] == [("c00", 3), ("c01", 3), ("c02", 3)]


def test_every_change_of_a_count_is_reported(record: Callable[..., Record], params: Callable[[int], Metric]) -> None:
    records = [
        record(params(n)).model_copy(
            update={
                "environment": record().environment.model_copy(update={"state": {"commit": name}}),
                "started_at": name,
            }
        )
        for name, n in (("a", 7), ("b", 7), ("c", 8))
    ]
    [turn] = history_of(records, "params.total", "c3d").changes
    assert (turn.first.commit, turn.verdict) == ("c", "worse")


def test_runs_that_name_no_commit_are_left_out_and_counted(
    commits: Callable[..., list[Record]], runs: Callable[..., list[Record]]
) -> None:
    found = history_of([*commits(LEVEL), *runs([1.0, 2.0])], "latency.p50_ms", "c3d")
    assert (len(found.commits), found.unknown) == (8, 2)


def test_values_of_several_series_are_refused(commits: Callable[..., list[Record]]) -> None:
    both = [*commits(LEVEL), *commits(LEVEL, model="c3d_search")]
    with pytest.raises(InputError, match="matches 2 cases"):
        history_of(both, "latency.p50_ms", "c3d*")
    assert history_of(both, "latency.p50_ms", both[0].case_id).case.point.model == "c3d"
    with pytest.raises(UnknownNameError, match="case"):
        history_of(both, "latency.p50_ms", "i3d")
    with pytest.raises(UnknownNameError, match=r"latency\.p50_ms"):
        history_of(commits(LEVEL), "latency.p50", "c3d")


def on_machine(record: Record, gpu: str, *, matmul_ms: float | None = None) -> Record:
    """The record as measured on a GPU, with the time of the canary around it."""
    hardware = {**record.environment.hardware, "gpu": gpu}
    canary = {"matmul_ms": {"before": matmul_ms, "after": matmul_ms, "ratio": 1.0}} if matmul_ms else None
    details = {**record.details, **({"canary": canary} if canary else {})}
    environment = record.environment.model_copy(update={"hardware": hardware})
    return record.model_copy(update={"environment": environment, "details": details})


def test_machines_of_one_case_are_series_of_their_own(
    commits: Callable[..., list[Record]], capsys: pytest.CaptureFixture[str]
) -> None:
    """The second machine is twice as slow and measures every commit too; both show the step at c08."""
    values = [*LEVEL, *(1.2 * value for value in LEVEL)]
    first = [on_machine(each, "A") for each in commits(values)]
    second = [on_machine(each, "B") for each in commits([2 * value for value in values])]
    found = history_of([*first, *second], "latency.p50_ms", "c3d")
    assert len({machine.id for machine in found.machines}) == 2
    assert [machine.commits for machine in found.machines] == [16, 16]
    assert [(each.first.commit, each.machine) for each in found.changes] == [
        ("c08", machine.id) for machine in found.machines
    ]
    assert [each.change for each in found.changes] == pytest.approx([0.2, 0.2], abs=0.01)
    _show_history(found)
    shown = capsys.readouterr().out
    assert f"{found.machines[1].id} (B, torch 2.12.0): 16 commits" in shown
    assert f" on {found.machines[0].id}" in shown


def test_two_machines_that_share_the_commits_are_never_one_level(commits: Callable[..., list[Record]]) -> None:
    """One machine measures the first half and a slower one the second: no commit is to blame."""
    first = [on_machine(each, "A") for each in commits([*LEVEL, *LEVEL])[:24]]
    second = [on_machine(each, "B") for each in commits([2 * value for value in [*LEVEL, *LEVEL]])[24:]]
    found = history_of([*first, *second], "latency.p50_ms", "c3d")
    assert (len(found.commits), found.changes) == (16, ())


def test_the_canary_takes_the_speed_of_the_machine_out(
    commits: Callable[..., list[Record]], capsys: pytest.CaptureFixture[str]
) -> None:
    """Half of the commits are 1.5 times as slow, and so is the canary: the code did not change."""
    slow = [*LEVEL, *(1.5 * value for value in LEVEL)]
    plain = commits(slow)
    assert [change.first.commit for change in history_of(plain, "latency.p50_ms", "c3d").changes] == ["c08"]
    timed = [on_machine(each, "A", matmul_ms=2.0 if n < 24 else 3.0) for n, each in enumerate(plain)]
    found = history_of(timed, "latency.p50_ms", "c3d")
    assert found.changes == ()
    usual = 2.5  # the median of twenty-four times 2 ms and twenty-four times 3 ms
    assert [each.normalised for each in found.commits[:8]] == pytest.approx([v * usual / 2.0 for v in LEVEL])
    assert [each.value for each in found.commits] == pytest.approx(slow), "what was measured stays"
    assert (found.machines[0].canary, found.machines[0].without_canary) == ("matmul", 0)
    _show_history(found)
    shown = capsys.readouterr().out
    assert "normalised by the canary (matmul)" in shown
    assert "normalised" in shown.splitlines()[1]


def test_bytes_are_not_normalised(record: Callable[..., Record]) -> None:
    def made(day: int, matmul_ms: float) -> Record:
        peak = Metric(name="memory.peak_allocated_bytes", value=100.0, unit="B", better="lower")
        plain = record(peak, started_at=f"2026-01-{day:02d}")
        return with_state(on_machine(plain, "A", matmul_ms=matmul_ms), commit=f"c{day:02d}")

    found = history_of([made(1, 2.0), made(2, 4.0)], "memory.peak_allocated_bytes", "c3d")
    assert [each.normalised for each in found.commits] == [100.0, 100.0]
    assert found.machines[0].canary == ""


def test_a_model_renamed_in_a_suite_keeps_its_history(
    commits: Callable[..., list[Record]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Three names, one after the other; the suite of the newest results says so."""
    parts = [commits([*LEVEL, *LEVEL], model=name) for name in ("first", "second", "third")]
    records = [*parts[0][:12], *parts[1][12:24], *parts[2][24:]]
    for each in records:
        RecordStore(tmp_path / each.case.point.model).append(each)
    for name, renamed in (("second", {"second": "first"}), ("third", {"third": "second"})):
        RecordStore(tmp_path / name).write_suite({"name": "s", "renamed": renamed})
    arguments = ["history", "latency.p50_ms", "third", "--from", str(tmp_path), "--json"]
    assert run_command(arguments) == 0
    found = json.loads(capsys.readouterr().out)
    assert [each["commit"] for each in found["commits"]] == [f"c{n:02d}" for n in range(16)]
    assert (found["former"], found["changes"]) == (["first", "second"], [])
    assert run_command(["history", "--from", str(tmp_path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["series"] == 1, "former names are not series of their own"


def test_saving_a_baseline_keeps_former_names_for_the_history(
    commits: Callable[..., list[Record]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    records = commits(LEVEL[:2], model="before")[:3] + commits(LEVEL[:2], model="after")[3:]
    for name in ("before", "after"):
        store = RecordStore(tmp_path / name)
        for each in records:
            if each.case.point.model == name:
                store.append(each)
        store.write_suite({"name": "s", "renamed": {"after": "before"} if name == "after" else {}})
        assert run_command(["baseline", "save", name, "--branch", "main"]) == 0
    capsys.readouterr()
    assert run_command(["history", "latency.p50_ms", "after", "--branch", "main", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["commits"]) == 2
    assert run_command(["baseline", "promote", "main", "stable"]) == 0
    capsys.readouterr()
    assert run_command(["history", "latency.p50_ms", "after", "--branch", "stable", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["commits"]) == 2


def test_the_command_reads_what_baselines_save(
    commits: Callable[..., list[Record]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    records = commits([*LEVEL, *(1.05 * value for value in LEVEL)])
    for number in range(16):
        for record in records[3 * number : 3 * number + 3]:
            RecordStore(tmp_path / f"results{number}").append(record)
        assert run_command(["baseline", "save", f"results{number}", "--branch", "main"]) == 0
    capsys.readouterr()
    assert run_command(["history", "latency.p50_ms", "c3d", "--branch", "main"]) == 0
    assert "first bad commit: c08" in capsys.readouterr().out
    sources = [text for number in range(16) for text in ("--from", f"results{number}")]
    assert run_command(["history", "latency.p50_ms", "c3d", "--json", *sources]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (len(told["moments"]), told["turns"][0]["first"]["commit"]) == (16, "c08")
    assert run_command(["history", "latency.p50_ms", "c3d", "--branch", "dev"]) == 2


def test_accuracies_of_several_machines_are_one_series_and_their_times_are_not(record: Callable[..., Record]) -> None:
    def trained(number: int, gpu: str) -> Record:
        top = Metric(name="accuracy.top1", value=50.0 + number, unit="%", better="higher")
        took = Metric(name="accuracy.train_seconds", value=100.0, unit="s", better="lower")
        environment = Environment(hardware={"gpu": gpu}, state={"commit": f"c{number}"})
        return record(top, took, environment=environment, started_at=f"2026-01-0{number}")

    records = [trained(1, "H100"), trained(2, "H200")]
    assert [moment.value for moment in history_of(records, "accuracy.top1", "c3d").commits] == [51.0, 52.0]
    assert len(history_of(records, "accuracy.train_seconds", "c3d").machines) == 2


def test_runs_in_turns_with_another_side_are_no_part_of_a_series(commits: Callable[..., list[Record]]) -> None:
    records = commits([10.0] * 12)
    taken = [record.model_copy(update={"details": {"in_turns": "processes"}}) for record in records]
    found = history_of([*records[:12], *taken[12:]], "latency.p50_ms", "c3d")
    assert (len(found.commits), found.in_turns) == (4, 24)
    with pytest.raises(InputError, match="part of an A/B measurement"):
        history_of(taken, "latency.p50_ms", "c3d")


@pytest.mark.parametrize(("is_exact", "is_said"), [(True, False), (False, True)])
def test_few_commits_show_a_step_of_a_count(
    record: Callable[..., Record],
    latency: Callable[..., Metric],
    capsys: pytest.CaptureFixture[str],
    is_exact: bool,
    is_said: bool,
) -> None:
    records = [
        record(
            latency(10.0, is_exact=is_exact),
            environment=Environment(state={"commit": f"c{day}"}),
            started_at=f"2026-01-0{day}T00:00:00",
        )
        for day in (1, 2)
    ]
    _show_history(history_of(records, "latency.p50_ms", "c3d"))
    shown = capsys.readouterr().out
    assert "no step in 2 commits" in shown
    assert ("fewer than 10 commits" in shown) == is_said


def test_a_series_without_a_step_states_the_detection_delay(
    commits: Callable[..., list[Record]], capsys: pytest.CaptureFixture[str]
) -> None:
    noise = np.exp(0.01 * np.random.default_rng(0).standard_normal(16))
    _show_history(history_of(commits(list(10.0 * noise)), "latency.p50_ms", "c3d"))
    assert "no step in 16 commits; a clear step shows once about 3 commits have it" in capsys.readouterr().out


def test_the_page_links_commits_to_the_remote_or_to_the_given_address(
    commits: Callable[..., list[Record]], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    for each in commits(LEVEL):
        RecordStore(tmp_path / "records").append(with_state(each, commit=digest(each.environment.state["commit"])))
    page, feed = tmp_path / "h.html", tmp_path / "feed.xml"
    command = ["history", "latency.p50_ms", "c3d", "--from", str(tmp_path / "records"), "--folder", str(tmp_path)]
    command += ["--html", str(page), "--atom", str(feed)]
    assert run_command(command) == 0
    assert "/commit/" not in page.read_text(encoding="utf-8")
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    remote = "https://me:secret@github.com/owner/name.git"
    subprocess.run(["git", "remote", "add", "origin", remote], cwd=tmp_path, check=True)
    assert run_command(command) == 0
    assert 'href="https://github.com/owner/name/commit/' in page.read_text(encoding="utf-8")
    assert "secret" not in page.read_text(encoding="utf-8")
    assert run_command([*command, "--repository", "https://gitlab.lan/a/b"]) == 0
    assert 'href="https://gitlab.lan/a/b/-/commit/' in page.read_text(encoding="utf-8")
    capsys.readouterr()
    assert run_command([*command, "--repository", "javascript:alert(1)"]) == 2
    assert "--repository: 'javascript:alert(1)' is not the web address" in capsys.readouterr().err
