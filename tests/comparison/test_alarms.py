"""All series of a history at once: alarms by their cause, drifts, the quarantine, and what people read of it."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from bench.cli.app import run_command
from bench.comparison.alarms import overview_of
from bench.comparison.series import series_of
from bench.core.errors import UnknownNameError
from bench.core.schema import Environment, Metric, Record
from bench.store import RecordStore

Make = Callable[..., Record]
COUNT, STEP = 60, 40


@pytest.fixture
def timed(record: Make, latency: Callable[..., Metric]) -> Callable[..., list[Record]]:
    """One run of each commit with 1 % of noise around its level; `software` of each commit may be given."""

    def make(
        levels: Sequence[float], model: str, *, seed: int = 0, gpu: str = "A", torch: str = "2.12.0"
    ) -> list[Record]:
        noise = np.exp(0.01 * np.random.default_rng([seed, len(model)]).standard_normal(len(levels)))
        return [
            record(
                latency(float(level * factor)),
                model=model,
                started_at=f"2026-01-01T00:{number:02d}:00",
                environment=Environment(
                    hardware={"gpu": gpu},
                    software={"torch": "2.12.1" if torch != "2.12.0" and number >= STEP else "2.12.0"},
                    state={"commit": f"c{number:02d}"},
                ),
            )
            for number, (level, factor) in enumerate(zip(levels, noise, strict=True))
        ]

    return make


@pytest.fixture
def counted(record: Make) -> Callable[..., list[Record]]:
    """The counts of each commit: a stem, blocks, and one more of those from commit `more_from` on."""

    def make(model: str, *, more_from: int) -> list[Record]:
        made = []
        for number in range(COUNT):
            blocks = 3 if number >= more_from else 2
            total = 50 + 100 * blocks
            table = {"": total, "stem": 50, "blocks": 100 * blocks, **{f"blocks.{n}": 100 for n in range(blocks)}}
            macs = Metric(name="macs.forward", value=total, unit="MACs", better="lower", is_exact=True)
            made.append(
                record(
                    macs,
                    model=model,
                    measures={"macs": {}},
                    started_at=f"2026-01-01T00:{number:02d}:30",
                    environment=Environment(state={"commit": f"c{number:02d}"}),
                    details={"macs_by_module": table, "model_source": "nets.py:19"},
                )
            )
        return made

    return make


FLAT, SLOWER = [10.0] * COUNT, [10.0] * STEP + [12.0] * (COUNT - STEP)


def test_a_new_layer_and_the_time_that_it_takes_are_one_alarm(
    timed: Callable[..., list[Record]], counted: Callable[..., list[Record]]
) -> None:
    records = [*timed(SLOWER, "net"), *counted("net", more_from=STEP), *timed(FLAT, "other")]
    found = overview_of(series_of(records))
    assert (found.series, found.commits, found.order) == (3, COUNT, "measured")
    [alarm] = found.alarms
    assert (alarm.first, alarm.last_before) == ("c40", "c39")
    assert alarm.causes == ("net: blocks.2 added: +100 MACs (nets.py:19)",)
    assert [(each.metric, each.case) for each in alarm.moved] == [
        ("macs.forward", "net 16x1x112"),
        ("latency.p50_ms", "net 16x1x112"),
    ]
    assert alarm.moved[1].change == pytest.approx(0.2, abs=0.02)
    assert (found.improvements, found.drifts, found.quarantine) == ((), (), ())


def test_changes_at_far_commits_are_alarms_of_their_own(
    timed: Callable[..., list[Record]], counted: Callable[..., list[Record]]
) -> None:
    found = overview_of(series_of([*timed(SLOWER, "net"), *counted("net", more_from=20)]))
    assert [(alarm.first, len(alarm.moved)) for alarm in found.alarms] == [("c20", 1), ("c40", 1)]
    assert found.alarms[1].causes == (
        "no count and no fact of the machine changed: an operator, a memory layout or a library",
    )


def test_a_library_that_changed_with_the_times_is_named(timed: Callable[..., list[Record]]) -> None:
    [alarm] = overview_of(series_of(timed(SLOWER, "net", torch="2.12.1"))).alarms
    assert alarm.causes == ("the machine changed: software.torch: 2.12.0 before, 2.12.1 after",)


def test_a_step_of_all_models_at_once_is_probably_the_machine(timed: Callable[..., list[Record]]) -> None:
    records = [each for name in ("a", "bb", "ccc") for each in timed(SLOWER, name)]
    [alarm] = overview_of(series_of(records)).alarms
    assert alarm.causes == ("3 of 3 timings on this machine moved at once and no count changed: probably the machine",)
    with_one_flat = [*records, *timed(FLAT, "dddd"), *timed(FLAT, "eeeee")]
    [alarm] = overview_of(series_of(with_one_flat)).alarms
    assert alarm.causes[0].startswith("no count and no fact")


def test_a_faster_commit_is_an_improvement(timed: Callable[..., list[Record]]) -> None:
    found = overview_of(series_of(timed(SLOWER[::-1], "net")))
    assert (found.alarms, [each.first for each in found.improvements]) == ((), ["c20"])


def test_a_flaky_series_is_listed_and_gives_no_alarm(timed: Callable[..., list[Record]]) -> None:
    states = list(np.where(np.random.default_rng(0).random(COUNT) < 0.4, 12.0, 10.0))
    found = overview_of(series_of([*timed(states, "flaky"), *timed(SLOWER, "net")]))
    [flaky] = found.quarantine
    assert (flaky.case, flaky.metric) == ("flaky 16x1x112", "latency.p50_ms")
    assert "two states" in flaky.why
    assert [moved.case for alarm in found.alarms for moved in alarm.moved] == ["net 16x1x112"]


def test_a_drift_is_listed_without_a_commit_to_blame(timed: Callable[..., list[Record]]) -> None:
    found = overview_of(series_of(timed(list(np.linspace(10, 13, COUNT)), "net")))
    [drift] = found.drifts
    assert drift.change == pytest.approx(0.3, abs=0.06)
    assert (found.alarms, drift.verdict) == ((), "worse")


def test_series_are_chosen_by_pattern(timed: Callable[..., list[Record]]) -> None:
    known = series_of([*timed(FLAT, "net"), *timed(FLAT, "other")])
    assert overview_of(known, case="net").series == 1
    assert overview_of(known, metric="latency.*").series == 2
    with pytest.raises(UnknownNameError, match=r"latency\.p50_ms"):
        overview_of(known, metric="latency.p50")
    with pytest.raises(UnknownNameError, match="did you mean: other"):
        overview_of(known, case="othre")


def test_people_and_programs_read_the_overview(
    timed: Callable[..., list[Record]],
    counted: Callable[..., list[Record]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """From histories that `baseline save` wrote, commit by commit: layers are known there too."""
    monkeypatch.chdir(tmp_path)
    states = list(np.where(np.random.default_rng(0).random(COUNT) < 0.4, 12.0, 10.0))
    records = [*timed(SLOWER, "net"), *counted("net", more_from=STEP), *timed(states, "flaky")]
    for number in range(COUNT):
        store = RecordStore(tmp_path / f"r{number}")
        for each in records:
            if each.environment.state["commit"] == f"c{number:02d}":
                store.append(each)
        assert run_command(["baseline", "save", f"r{number}", "--branch", "main"]) == 0
    layers = list((tmp_path / ".vbench/history/main/s/layers").glob("*.json"))
    assert len(layers) == 2, "equal tables are stored once"
    capsys.readouterr()
    web = ["--repository", "https://github.com/lab/nets"]
    assert run_command(["history", "--branch", "main", "--html", "alarms.html", "--atom", "alarms.xml", *web]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "3 series over 60 commits on 1 kind of machine"
    assert lines[1] == "worse from c40, after c39:"
    assert lines[2] == "  net: blocks.2 added: +100 MACs (nets.py:19)"
    assert lines[3].startswith("  net 16x1x112: macs.forward +40.0 % (250 MACs to 350 MACs)")
    assert lines[4].startswith("  net 16x1x112: latency.p50_ms +")
    assert lines[5] == "in quarantine, without alarms:"
    assert lines[6].startswith("  flaky 16x1x112: latency.p50_ms: it has two states, ")
    assert lines[6].endswith(" on one level")
    assert lines[-1] == "1 alarm"
    page = (tmp_path / "alarms.html").read_text(encoding="utf-8")
    assert "net: blocks.2 added: +100 MACs (nets.py:19)" in page
    assert "two states" in page
    feed = ElementTree.parse(tmp_path / "alarms.xml").getroot()
    assert len(feed.findall("{http://www.w3.org/2005/Atom}entry")) == 1
    assert run_command(["history", "--branch", "main", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [each["first"] for each in told["alarms"]] == ["c40"]
    assert told["quarantine"][0]["until_commits"] > 0
    assert run_command(["history", "latency.p50_ms", "flaky", "--branch", "main"]) == 0
    assert "in quarantine, without alarms: it has two states" in capsys.readouterr().out
    assert run_command(["history", "latency.*", "net", "--branch", "main", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["series"] == 1


def test_a_baseline_names_the_changed_layer(
    counted: Callable[..., list[Record]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, each in (("old", counted("net", more_from=STEP)[0]), ("new", counted("net", more_from=0)[0])):
        RecordStore(tmp_path / name).append(each)
    assert run_command(["baseline", "save", "old", "--branch", "main"]) == 0
    assert run_command(["compare", "baseline:main", "new"]) == 1
    assert "net: blocks.2 added: +100 MACs" in capsys.readouterr().out
