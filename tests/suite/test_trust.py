"""Code of a suite from elsewhere runs only if the user trusts it."""

from pathlib import Path

import pytest

from bench.cli.app import run_command
from bench.core.errors import InputError
from bench.suite import read_suite
from bench.suite.trust import TRUST, check_trust, trust_folder_of

PLAIN = "suite: s\nmodels: [c3d, 'timm:x', 'torchvision:r3d_18']\nmeasure: {params: {}}\n"
PLUGIN = "suite: s\nplugins: [evil]\nmodels: [c3d]\nmeasure: {params: {}}\n"
FACTORY = "suite: s\nmodels: [{name: 'evil:net'}]\nmeasure: {params: {}}\n"
FILE = "suite: s\nmodels: [evil.py]\nmeasure: {params: {}}\n"
FILE_FACTORY = "suite: s\nmodels: [c3d, {name: 'evil.py:net'}]\nmeasure: {params: {}}\n"


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder outside of the working folder."""
    for name in ("here", "elsewhere"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv(TRUST, "")
    return tmp_path / "elsewhere"


def check(file: Path, text: str) -> None:
    file.write_text(text)
    check_trust(read_suite(file))


@pytest.mark.parametrize("text", [PLUGIN, FACTORY, FILE, FILE_FACTORY], ids=["plug-in", "factory", "file", "in file"])
def test_a_suite_from_elsewhere_that_runs_code_is_refused_with_the_option_to_type(elsewhere: Path, text: str) -> None:
    with pytest.raises(InputError, match=r"would run the (plug-in|model factory) evil.*add --trust"):
        check(elsewhere / "s.yaml", text)


def test_a_suite_without_code_needs_no_trust(elsewhere: Path) -> None:
    check(elsewhere / "s.yaml", PLAIN)


def test_suites_below_the_working_folder_its_repository_and_trusted_folders_may_run_code(
    elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check(Path("s.yaml"), PLUGIN)
    check(elsewhere.parent / "here" / "s.yaml", FACTORY)
    (elsewhere.parent / "here" / "deep").mkdir()
    monkeypatch.chdir("deep")
    with pytest.raises(InputError, match="--trust"):
        check(Path("..", "s.yaml"), PLUGIN)
    (elsewhere.parent / "here" / ".git").mkdir()
    check(Path("..", "s.yaml"), PLUGIN)
    with pytest.raises(InputError, match="--trust"):
        check(elsewhere / "s.yaml", PLUGIN)
    trust_folder_of(elsewhere / "s.yaml")
    check(elsewhere / "s.yaml", PLUGIN)


def test_the_file_that_names_the_code_decides_not_the_one_that_extends_it(elsewhere: Path) -> None:
    (elsewhere / "base.yaml").write_text(PLUGIN)
    with pytest.raises(InputError, match=r"elsewhere/base\.yaml would run the plug-in evil"):
        check(Path("s.yaml"), f"extends: [{elsewhere / 'base.yaml'}]\nsuite: own\n")


def test_a_link_in_the_working_folder_does_not_make_a_suite_trusted(elsewhere: Path) -> None:
    (elsewhere / "s.yaml").write_text(PLUGIN)
    Path("s.yaml").symlink_to(elsewhere / "s.yaml")
    with pytest.raises(InputError, match="--trust"):
        check(Path("s.yaml"), PLUGIN)


def test_plan_and_run_end_with_2_before_any_code_runs(
    elsewhere: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(Path.cwd()))
    (elsewhere / "s.yaml").write_text(PLUGIN)
    Path("evil.py").write_text("raise SystemExit('it ran')")
    for command in ("plan", "run"):
        assert run_command([command, str(elsewhere / "s.yaml"), "--out", "r"]) == 2
        assert "--trust" in capsys.readouterr().err
    assert run_command(["plan", str(elsewhere / "s.yaml"), "--out", "r", "--trust"]) == 2
    assert "it ran" in capsys.readouterr().err, "trusted code runs"
