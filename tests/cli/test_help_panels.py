"""The help of commands: long lists of options have headings, and a flag does not look as if it took a value."""

from typing import Any

import pytest
import typer

from bench.cli.app import app, run_command
from bench.cli.examples import EXAMPLES
from bench.cli.help_panels import GROUPS, MANY_OPTIONS

COMMANDS: Any = typer.main.get_command(app)


def options_of(name: str) -> list[Any]:
    command = COMMANDS
    for part in name.split():
        command = command.commands[part]
    return [each for each in command.params if each.param_type_name == "option" and not each.hidden]


@pytest.mark.parametrize("name", EXAMPLES)
def test_options_of_a_long_list_stand_below_headings(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command([*name.split(), "--help"]) == 0
    text = capsys.readouterr().out
    options = options_of(name)
    assert all(option.opts[0] in text for option in options)
    ungrouped = text.partition("─ Options ")[2].partition("╰")[0]
    if len(options) > MANY_OPTIONS:
        assert [word for word in ungrouped.split() if word.startswith("--")] == ["--help"]


@pytest.mark.parametrize("name", ["", "data", *EXAMPLES])
def test_a_flag_shows_no_type(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command([*name.split(), "--help"]) == 0
    assert "bool" not in capsys.readouterr().out


def test_an_option_has_one_heading_and_exists() -> None:
    listed = [option for options in GROUPS.values() for option in options]
    assert len(set(listed)) == len(listed)
    assert set(listed) <= {option.opts[0] for name in EXAMPLES for option in options_of(name)}


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_first_paragraph_is_one_sentence(name: str) -> None:
    command = COMMANDS
    for part in name.split():
        command = command.commands[part]
    first = command.help.split("\n\n")[0]
    assert first.endswith(".")
    assert first.rstrip(".").count(". ") == 0, first
