"""`vbench suites`, `recipes`, `measures` and `help` list what there is, and agree with the documentation."""

import json
import re
from pathlib import Path

import pytest
from rich.console import Console

from bench.cli import console
from bench.cli.app import app, run_command
from bench.cli.listings import EXIT_CODES, documentation_pages
from bench.core.errors import BenchError
from bench.core.registry import MEASURES

ROOT = Path(__file__).parents[2]


def output(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert run_command(list(arguments)) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize(("kind", "folder"), [("suites", "suites"), ("recipes", "suites/recipes")])
def test_all_files_of_a_kind_are_listed_and_shown(capsys: pytest.CaptureFixture[str], kind: str, folder: str) -> None:
    files = {file.stem: file for file in (ROOT / folder).glob("*.yaml")}
    listed = json.loads(output(capsys, kind, "list", "--json"))
    assert [row[kind[:-1]] for row in listed] == sorted(files)
    for name, file in files.items():
        assert output(capsys, kind, "show", name).splitlines()[1:] == file.read_text().rstrip().splitlines()


def test_a_measure_is_shown_with_options_and_metrics(capsys: pytest.CaptureFixture[str]) -> None:
    assert [row["measure"] for row in json.loads(output(capsys, "measures", "list", "--json"))] == sorted(
        entry.name for entry in MEASURES
    )
    shown = json.loads(output(capsys, "measures", "show", "latency", "--json"))
    entry = MEASURES.get("latency")
    assert set(shown["options"]) == set(entry.options)
    assert [row["metric"] for row in shown["metrics"]] == [spec.name for spec in entry.metrics]
    assert "latency.p50_ms" in output(capsys, "measures", "show", "latency")


@pytest.mark.parametrize(
    "arguments", [("suites", "show", "quikstart"), ("measures", "show", "latncy"), ("help", "wrds")]
)
def test_an_unknown_name_gets_the_nearest_spelling(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...]
) -> None:
    assert run_command(list(arguments)) == 2
    assert "did you mean" in capsys.readouterr().err


def test_help_on_exit_codes_agrees_with_the_documentation(capsys: pytest.CaptureFixture[str]) -> None:
    page = (ROOT / "docs/command-line.md").read_text(encoding="utf-8")
    assert dict(re.findall(r"^\| ([\d, ]+) \| (.+) \|$", page, re.MULTILINE)) == EXIT_CODES
    assert "inconclusive" in output(capsys, "help", "exit-codes")


def test_help_on_words_prints_the_glossary(capsys: pytest.CaptureFixture[str]) -> None:
    shown = output(capsys, "help", "words")
    assert re.search(r"^suite\s+a YAML file", shown, re.MULTILINE)
    assert "---" not in shown


def test_every_command_is_under_a_heading() -> None:
    commands = [*app.registered_commands, *app.registered_groups]
    assert all(isinstance(command.rich_help_panel, str) for command in commands)


def test_help_prints_every_page_of_the_documentation(capsys: pytest.CaptureFixture[str]) -> None:
    overview = output(capsys, "help")
    assert "own-model" in overview
    assert "Benchmark your own model" in overview
    assert output(capsys, "help", "own-model") == (ROOT / "docs" / "own-model.md").read_text(encoding="utf-8")


def test_every_error_that_names_a_page_names_one_that_exists() -> None:
    waiting, pages = [BenchError], set[str | None]()
    while waiting:
        kind = waiting.pop()
        waiting += kind.__subclasses__()
        pages.add(kind.page)
    assert {"suites", "data-lists", "published-checkpoint"} < pages
    assert pages - {None} <= documentation_pages().keys()


@pytest.mark.parametrize("is_terminal", [True, False])
def test_an_error_in_a_terminal_says_how_to_read_its_page(
    is_terminal: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In a pipe it stays one line."""
    written = Console(stderr=True, highlight=False, force_terminal=is_terminal, no_color=True)
    monkeypatch.setattr(console, "errors", written)
    assert run_command(["data", "verify", "folder", "--split", "train", "--root", "/nowhere"]) == 2
    assert ("more: vbench help data-lists" in capsys.readouterr().err) is is_terminal


@pytest.mark.parametrize(
    ("arguments", "more"),
    [
        (["data", "verify", "ucf102", "--split", "test1"], "vbench data verify --help"),
        (["recipes", "show", "quik"], "vbench recipes show --help"),
        (["run", "quickstart", "--set", "epoch=3"], "vbench help suites"),
        (["profile", "c3dd"], "vbench profile --help"),
    ],
)
def test_an_error_without_a_page_names_the_help_of_its_command(
    arguments: list[str], more: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    written = Console(stderr=True, highlight=False, force_terminal=True, no_color=True)
    monkeypatch.setattr(console, "errors", written)
    assert run_command(arguments) == 2
    assert f"more: {more}" in capsys.readouterr().err


def test_a_wrong_choice_is_told_without_the_words_of_a_library(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["profile", "c3d", "--format", "xml"]) == 2
    err = capsys.readouterr().err
    assert "'xml'" in err
    assert "Value error" not in err
