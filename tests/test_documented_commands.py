"""What documents show works: commands have the options that they are given, suites can be planned, Python compiles."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.main import get_command

from bench.cli.app import app, run_command
from bench.cli.arguments import with_optional_values

ROOT = Path(__file__).parents[1]
GENERATED = (ROOT / "docs" / "reference", ROOT / "docs" / "_build")  # see docs/reference_pages.py
PAGES = [
    ROOT / "README.md",
    ROOT / "SECURITY.md",
    *(page for page in sorted((ROOT / "docs").rglob("*.md")) if not any(map(page.is_relative_to, GENERATED))),
]
FENCES = re.compile(r"^```(\w+)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
OMISSIONS = ("…", "...")


def commands_of(text: str) -> Iterator[list[str]]:
    """The arguments of each line that calls vbench, without comments; lines that leave something out are skipped."""
    code = "\n".join([*(block for _, block in FENCES.findall(text)), *re.findall(r"^    (.+)$", text, re.MULTILINE)])
    joined = re.sub(r"\\\n\s*", "", code)
    for line in re.findall(r"^(?:\$ )?(?:\.venv/bin/)?vbench (.+)$", joined, re.MULTILINE):
        arguments = shlex.split(re.split(r" \|\|? | && ", line)[0], comments=True)  # what the shell does next
        if not any(omission in argument for argument in arguments for omission in OMISSIONS):
            yield arguments


def parse(arguments: list[str]) -> None:
    """Parse a command line without running it; raises click's UsageError if it is wrong."""
    command = get_command(app)
    context = command.make_context("vbench", list(arguments), resilient_parsing=True)
    if all(
        argument.startswith("--") for argument in arguments
    ):  # options of vbench itself, such as --install-completion
        return
    rest = with_optional_values(arguments)
    while hasattr(command, "resolve_command"):
        name, command, rest = command.resolve_command(context, rest)
        assert command is not None, f"no such command: {arguments[0]}"
        if hasattr(command, "resolve_command"):
            context = command.make_context(name, list(rest), parent=context, resilient_parsing=True)
    command.make_context(name, list(rest), parent=context)


COMMANDS = [pytest.param(c, id=" ".join(c)) for page in PAGES for c in commands_of(page.read_text(encoding="utf-8"))]


def test_documents_show_commands() -> None:
    assert len(COMMANDS) > 60


@pytest.mark.parametrize("arguments", COMMANDS)
def test_a_documented_command_line_is_accepted(arguments: list[str]) -> None:
    parse(arguments)


@pytest.mark.parametrize("arguments", [["run"], ["rnu", "x.yaml"], ["profile", "c3d", "--inptu", "1"]])
def test_a_wrong_command_line_is_refused(arguments: list[str]) -> None:
    with pytest.raises(Exception, match=r"(?i)missing|no such"):  # click's UsageError, of whichever click typer carries
        parse(arguments)


def blocks(language: str) -> Iterator[tuple[Path, str]]:
    for page in PAGES:
        yield from ((page, text) for kind, text in FENCES.findall(page.read_text(encoding="utf-8")) if kind == language)


SAVED_AS = re.compile(r"Save this as `(\w+\.py)`")
SUITES = [pytest.param(page, text, id=page.stem) for page, text in blocks("yaml") if text.startswith("suite:")]


@pytest.mark.slow
@pytest.mark.parametrize(("page", "text"), SUITES)
def test_a_documented_suite_can_be_planned(
    page: Path, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    written = page.read_text(encoding="utf-8")
    for number, (of, code) in enumerate(blocks("python")):
        if of == page:
            names = SAVED_AS.findall(written[: written.index(code)])
            (tmp_path / (names[-1] if names else f"block_{number}.py")).write_text(code)
    (tmp_path / "suite.yaml").write_text(text)
    code = run_command(["plan", "suite.yaml"])
    assert code == 0, capsys.readouterr().err


@pytest.mark.parametrize(("page", "text"), [pytest.param(*each, id=each[0].stem) for each in blocks("python")])
def test_documented_python_compiles(page: Path, text: str) -> None:
    compile(text, str(page), "exec")
