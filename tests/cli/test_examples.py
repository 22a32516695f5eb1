"""The examples in the help of every command: they parse, name things that exist, and the quick ones run."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer

from bench.cli.app import app, run_command
from bench.cli.examples import EXAMPLES
from bench.core.registry import DATASETS, find_metric_spec
from bench.core.schema import Case, Clip, Metric, Point, Record
from bench.models.factory import is_model
from bench.reference.zoo_files import zoo_file
from bench.store import RecordStore
from bench.suite import read_suite
from bench.suite.shipped import shipped_recipes, shipped_suites

ROOT = Path(__file__).parents[2]
COMMANDS: Any = typer.main.get_command(app)
ALL = [(name, example) for name, examples in EXAMPLES.items() for example in examples]
QUICK_COMMANDS = ("models", "help", "measures list", "measures show", "suites list", "recipes list", "data list")
QUICK = [*(example for name in QUICK_COMMANDS for example in EXAMPLES[name]), EXAMPLES["profile"][0]]
# Models of the user's own.
OWN_MODELS = ("my_models:small", "my_models.py:small")


def parsed(example: str) -> dict[str, Any]:
    """The values of an example's arguments; raises a usage error as the command would."""
    arguments = shlex.split(example.partition(" > ")[0])
    context, command = COMMANDS.make_context("vbench", arguments), COMMANDS
    while hasattr(command, "commands"):
        _, command, rest = command.resolve_command(context, context._protected_args + context.args)
        context = command.make_context(command.name, rest, parent=context)
    return dict(context.params)


def names_of(group: Any, prefix: str = "") -> set[str]:
    found = set()
    for name, command in group.commands.items():
        found |= names_of(command, f"{name} ") if hasattr(command, "commands") else {f"{prefix}{name}"}
    return found


def test_every_command_has_examples_of_its_own() -> None:
    assert set(EXAMPLES) == names_of(COMMANDS)
    assert all(example.startswith(f"{name} ") or example == name for name, example in ALL)
    assert all(len(set(examples)) == len(examples) >= 3 for examples in EXAMPLES.values())


@pytest.mark.parametrize("name", EXAMPLES)
def test_help_ends_with_the_examples(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command([*name.split(), "--help"]) == 0
    text = " ".join(capsys.readouterr().out.partition("Examples:")[2].split())
    assert text == " ".join(f"vbench {example}" for example in EXAMPLES[name])


@pytest.mark.parametrize(("name", "example"), ALL)
def test_examples_parse_and_name_what_exists(name: str, example: str) -> None:
    values = parsed(example)
    for key, value in values.items():
        if key == "model" and name != "weights find":
            for model in [value] if isinstance(value, str) else value:
                assert model in OWN_MODELS or is_model(model), model
        elif key == "dataset" and not value.endswith(".json"):
            assert value in DATASETS, value
            split = values.get("split")
            if name in ("features", "data verify", "data shard", "data bench"):
                assert split in DATASETS.get(value).splits, split
        elif key == "recipe":
            assert value in shipped_recipes(), value
        elif key == "suite":
            assert (ROOT / value).is_file(), value
            assert not values.get("small") or "small" in read_suite(ROOT / value).data, value
            assert "model:" not in example or len(read_suite(ROOT / value).data["models"]) == 1, value
        elif key == "metric" and value is not None:
            assert "*" in value or find_metric_spec(value) is not None, value
        elif key == "id_":
            assert zoo_file(value).id == value
    if name in ("suites show", "recipes show"):
        assert values["name"] in {"suites show": shipped_suites(), "recipes show": shipped_recipes()}[name]


@pytest.mark.parametrize("example", EXAMPLES["query"])
def test_query_examples_run_on_records(example: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("duckdb")
    case = Case(suite="s", point=Point(model="c3d", clip=Clip.model_validate("16x1x112")), measures={"latency": {}})
    metric = Metric(name="latency.p50_ms", value=2.5, unit="ms", better="lower")
    RecordStore(tmp_path / "results").append(
        Record(
            case=case,
            case_id=case.id,
            run_index=0,
            freshness="",
            status="ok",
            started_at="2026-01-01T00:00:00+00:00",
            metrics=(metric,),
        )
    )
    _, sql, *others = shlex.split(example)
    assert run_command(["query", sql, str(tmp_path / "results"), *others[1:]]) == 0
    assert capsys.readouterr().out.strip()


@pytest.mark.parametrize("example", QUICK)
def test_quick_examples_run(example: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(shlex.split(example.partition(" > ")[0])) == 0
    captured = capsys.readouterr()
    assert captured.out.strip()
    assert not captured.err.strip()


@pytest.mark.parametrize("name", EXAMPLES)
def test_defaults_in_help_are_readable(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command([*name.split(), "--help"]) == 0
    defaults = re.findall(r"\[default: ([^\]]*)\]", capsys.readouterr().out)
    assert not [text for text in defaults if re.fullmatch(r"\d{6,}(\.0*)?|None|.*e[+-]\d+", text)]
