"""`action.yml` as a workflow runs it: its own steps, by a real bash, with inputs and defaults filled in."""

import os
import re
import subprocess
import sys
import sysconfig
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench.core.yaml_tree import read_yaml

ACTION = Path(__file__).parents[1] / "action.yml"
NETS = """
from torch import nn
from bench.core.registry import register_model


class Net(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.layer = nn.Conv3d(3, WIDTH, 3)
        self.fc = nn.Linear(WIDTH, num_classes)

    def forward(self, clips):
        return self.fc(self.layer(clips).mean((2, 3, 4)))


@register_model("net", clip="4x1x16")
def net(num_classes: int = 5) -> Net:
    "A network for tests."
    return Net(num_classes)
"""
SUITE = """\
suite: counts
plugins: [nets]
models: [net]
measure: {params: {}}
gate:
  params.total: {max_rise: 1%}
"""


def git(folder: Path, *arguments: str) -> None:
    command = ["git", "-c", "user.name=t", "-c", "user.email=t@t", *arguments]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository whose last commit widens its network."""
    folder = tmp_path / "repository"
    folder.mkdir()
    git(folder, "init", "-q", "-b", "main")
    (folder / "counts.yaml").write_text(SUITE)
    for width in (8, 16):
        (folder / "nets.py").write_text(NETS.replace("WIDTH", str(width)))
        git(folder, "add", ".")
        git(folder, "commit", "-q", "-m", f"{width} wide")
    return folder


def run_action(
    repository: Path, *, programs: Path | None = None, has_vbench: bool = True, **inputs: str
) -> tuple[int, str, str]:
    """The exit code of the step that ends the action, its outputs, and the summary or else what was printed.

    `programs` is a folder whose programs go before those of the machine, which has a vbench of its own or not.
    """
    action: dict[str, Any] = read_yaml(ACTION).data
    given = {name: str(each.get("default", "")) for name, each in action["inputs"].items()} | inputs
    assert given.keys() == action["inputs"].keys(), "an input that the action does not have"
    output, summary, paths = (repository.parent / name for name in ("output.txt", "summary.md", "path.txt"))
    files = {
        "GITHUB_ACTIONS": "true",
        "GITHUB_OUTPUT": str(output),
        "GITHUB_STEP_SUMMARY": str(summary),
        "GITHUB_ACTION_PATH": str(ACTION.parent),
        "GITHUB_PATH": str(paths),
        "RUNNER_TEMP": str(repository.parent / "temp"),
    }
    machine = [str(Path(sys.executable).parent), os.environ["PATH"]] if has_vbench else ["/usr/bin", "/bin"]
    folders = [*([] if programs is None else [str(programs)]), *machine]
    cache = {"XDG_CACHE_HOME": str(repository.parent / "cache")}
    for step in action["runs"]["steps"]:
        if not _is_due(step.get("if"), given):
            continue
        added = paths.read_text().splitlines() if paths.is_file() else []
        variables = {**cache, "PATH": os.pathsep.join([*reversed(added), *folders])}
        own = {name: _filled(text, given) for name, text in (step.get("env") or {}).items()}
        done = subprocess.run(
            ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]],
            cwd=repository,
            env={**os.environ, **files, **variables, **own},
            capture_output=True,
            text=True,
        )
        if done.returncode:
            break
    said = summary.read_text() if summary.is_file() else done.stdout + done.stderr
    return done.returncode, output.read_text() if output.is_file() else "", said


def _filled(text: str, given: dict[str, str]) -> str:
    return re.sub(r"\$\{\{ inputs\.([\w-]+) \}\}", lambda found: given[found[1]], text)


def _is_due(condition: str | None, given: dict[str, str]) -> bool:
    """`inputs.NAME == ''` and `!= ''`, joined by `&&`: all that the action asks."""
    for part in (condition or "").split("&&") if condition else ():
        name, sign = re.fullmatch(r"inputs\.([\w-]+) (==|!=) ''", part.strip()).groups()  # type: ignore[union-attr]
        if (given[name] == "") != (sign == "=="):
            return False
    return True


@pytest.mark.slow
def test_base_and_head_are_measured_in_one_job(repository: Path) -> None:
    code, outputs, summary = run_action(
        repository, **{"suite": "counts.yaml", "base-ref": "HEAD~1", "install": "none", "budget": "2m"}
    )
    assert code == 1, summary
    assert outputs == "exit-code=1\n"
    assert "params.total" in summary
    assert "worse" in summary
    verdicts = ET.parse(repository / "vbench-gate" / "verdicts.xml").getroot()
    assert verdicts.findall(".//failure")
    assert (repository / "vbench-gate" / "verdicts.smaller.json").is_file()


@pytest.mark.slow
def test_head_is_measured_and_compared_with_records_that_are_kept(repository: Path) -> None:
    kept = [str(Path(sys.executable).parent / "vbench"), "run", "counts.yaml", "--out", "kept"]
    environment = {**os.environ, "XDG_CACHE_HOME": str(repository.parent / "cache")}
    subprocess.run(kept, cwd=repository, env=environment, check=True, capture_output=True)
    first = {"suite": "counts.yaml", "base": "kept", "install": "none"}
    assert run_action(repository, **first)[0] == 0
    code, outputs, summary = run_action(repository, **{**first, "gate": "params.totl=1%\nparams.total=1%"})
    assert (code, outputs.splitlines()[-1]) == (3, "exit-code=3"), summary


@pytest.mark.slow
def test_unmeasurable_cases_exit_2_or_3_and_are_never_a_regression(repository: Path) -> None:
    broken = {"suite": "counts.yaml", "base-ref": "no-such-branch", "install": "none"}
    code, outputs, said = run_action(repository, **broken)
    assert (code, outputs) == (2, "exit-code=2\n")
    assert "no-such-branch" in said


@pytest.fixture
def programs(tmp_path: Path) -> Callable[..., Path]:
    """A folder with programs of these names that note how they were called and do as the given lines say."""

    def make(**lines: str) -> Path:
        folder = tmp_path / "programs"
        folder.mkdir()
        for name, text in lines.items():
            file = folder / name
            file.write_text(f'#!/bin/bash\necho "$0 $*" >> {tmp_path}/called.txt\n{text}\n')
            file.chmod(0o755)
        return folder

    return make


OURS = 'case "$1 $2" in "ab --help") echo "--budget TEXT" ;; "run "*) exit {run} ;; *) exit {judged} ;; esac'


JUDGED = 'case "$1" in ab) exec {vbench} "$@" ;; compare) {judge} ;; esac'


def test_this_projects_own_program_is_known_as_such(
    repository: Path, tmp_path: Path, programs: Callable[..., Path]
) -> None:
    """On GitHub the help is coloured, for a terminal that is none."""
    real = Path(sys.executable).parent / "vbench"
    folder = programs(vbench=JUDGED.format(vbench=real, judge="exit 0"))
    code, _, said = run_action(repository, programs=folder, base="a", head="b", install="none")
    assert code == 0, said
    assert [line.split()[1] for line in called(tmp_path)] == ["ab", "compare"]


def test_verdicts_of_a_run_before_are_not_shown_as_this_ones(
    repository: Path, tmp_path: Path, programs: Callable[..., Path]
) -> None:
    written = repository / "vbench-gate"
    written.mkdir()
    for kind in ("md", "xml", "bencher.json"):
        (written / f"verdicts.{kind}").write_text("of the run before")
    folder = programs(vbench=OURS.format(run=0, judged=2))
    code, _, said = run_action(repository, programs=folder, base="a", head="b", install="none")
    assert code == 2
    assert "of the run before" not in said
    assert not list(written.iterdir())


def called(folder: Path) -> list[str]:
    lines = (folder / "called.txt").read_text().splitlines()
    return [line.removeprefix(f"{folder}/programs/") for line in lines]


def installed(folder: Path) -> list[str]:
    return [line for line in called(folder) if "python3 -m pip" in line]


# A python3 that is the machine's own; the environment that it makes has a python3 and, once installed, a vbench.
SHARED = """case "$*" in
  *purelib*) exit 1 ;;
  "-m venv --system-site-packages "*)
    mkdir -p "$4/bin"
    lines='#!/bin/bash\\necho "own python3 $*" >> {called}\\ncp {vbench} "$(dirname "$0")/vbench"\\n'
    printf "$lines" > "$4/bin/python3"
    chmod +x "$4/bin/python3" ;;
esac"""


def test_a_system_python_gets_a_virtual_environment(
    repository: Path, tmp_path: Path, programs: Callable[..., Path]
) -> None:
    """As Debian and Ubuntu have it since PEP 668, and wherever this user may not write."""
    folder = programs(ours=OURS.format(run=0, judged=1))
    text = SHARED.format(called=tmp_path / "called.txt", vbench=folder / "ours")
    (folder / "python3").write_text(f"#!/bin/bash\n{text}\n")
    (folder / "python3").chmod(0o755)
    code, _, said = run_action(repository, programs=folder, has_vbench=False, suite="counts.yaml", base="kept")
    assert code == 1, said
    assert called(tmp_path)[0] == f"own python3 -m pip install --quiet {ACTION.parent}"
    assert called(tmp_path)[-1].startswith(f"{tmp_path}/temp/vbench/bin/vbench compare kept")


def test_a_python_of_the_jobs_own_is_installed_into() -> None:
    """The question itself, asked of this very Python, into whose own folders pytest need not be installed."""
    action: dict[str, Any] = read_yaml(ACTION).data
    question = re.search(r"is_ours='\n(.*?)'", action["runs"]["steps"][0]["run"], re.S)
    assert question is not None
    done = subprocess.run([sys.executable, "-c", question[1]], capture_output=True, text=True, check=False)
    assert done.stderr == ""
    paths = {name: Path(path) for name, path in sysconfig.get_paths().items()}
    is_managed = sys.prefix == sys.base_prefix and (paths["stdlib"] / "EXTERNALLY-MANAGED").exists()
    assert done.returncode == (0 if os.access(paths["purelib"], os.W_OK) and not is_managed else 1)


def test_a_missing_vbench_and_another_program_of_that_name_are_distinguished(
    repository: Path, tmp_path: Path, programs: Callable[..., Path]
) -> None:
    said = run_action(repository, programs=programs(python3=""), has_vbench=False, base="a", head="b")[2]
    assert "the program vbench is not on the PATH" in said
    assert "belongs to another project" not in said


@pytest.mark.parametrize("other", [{"base": "kept"}, {"head": "new"}])
def test_base_records_together_with_a_base_commit_are_refused(
    repository: Path, tmp_path: Path, programs: Callable[..., Path], other: dict[str, str]
) -> None:
    """One of them would have been left out in silence."""
    folder = programs(python3="", vbench=OURS.format(run=0, judged=0))
    given = {"suite": "counts.yaml", "base-ref": "main", **other}
    code, outputs, said = run_action(repository, programs=folder, **given)
    assert (code, outputs) == (2, "exit-code=2\n")
    assert "without base and head" in said


def test_without_more_words_this_very_checkout_is_installed(
    repository: Path, tmp_path: Path, programs: Callable[..., Path]
) -> None:
    folder = programs(python3="", vbench=OURS.format(run=0, judged=1))
    assert run_action(repository, programs=folder, suite="counts.yaml", base="kept")[:2] == (1, "exit-code=1\n")
    assert installed(tmp_path) == [f"python3 -m pip install --quiet {ACTION.parent}"]
    assert (ACTION.parent / "pyproject.toml").is_file()


@pytest.mark.parametrize(
    ("install", "expected"), [("none", []), ("vbench @ git+https://x", ["vbench @ git+https://x"])]
)
def test_the_installed_package_can_be_chosen(
    repository: Path, tmp_path: Path, programs: Callable[..., Path], install: str, expected: list[str]
) -> None:
    folder = programs(python3="", vbench=OURS.format(run=0, judged=0))
    assert run_action(repository, programs=folder, suite="counts.yaml", base="kept", install=install)[0] == 0
    assert installed(tmp_path) == [f"python3 -m pip install --quiet {each}" for each in expected]


@pytest.mark.parametrize(
    ("python3", "vbench", "said"),
    [
        ('case "$*" in *pip*) exit 1 ;; esac', "", "could not be installed"),
        ('case "$*" in *purelib*|*venv*) exit 1 ;; esac', "", "could not create a virtual environment"),
        ('case "$*" in *version_info*) exit 1 ;; esac', "", "needs Python 3.11 or newer"),
        ("", "exit 0", "belongs to another project"),
        ("", "exit 2", "belongs to another project"),
    ],
)
def test_a_set_up_that_broke_is_exit_3_and_nothing_is_judged(
    repository: Path, tmp_path: Path, programs: Callable[..., Path], python3: str, vbench: str, said: str
) -> None:
    folder = programs(python3=python3, vbench=vbench)
    code, outputs, printed = run_action(repository, programs=folder, suite="counts.yaml", base="kept")
    assert (code, outputs) == (3, "exit-code=3\n")
    assert "::error title=vbench gate::" in printed
    assert said in printed
    assert not [line for line in called(tmp_path) if line.startswith(("vbench run", "vbench compare"))]


@pytest.mark.parametrize(("run", "is_judged"), [(0, True), (3, True), (1, False), (2, False), (70, False)])
def test_only_a_case_that_failed_is_left_to_the_comparison(
    repository: Path, tmp_path: Path, programs: Callable[..., Path], run: int, is_judged: bool
) -> None:
    folder = programs(python3="", vbench=OURS.format(run=run, judged=0))
    code, outputs, _ = run_action(repository, programs=folder, suite="counts.yaml", base="kept")
    assert (code, outputs) == ((0, "exit-code=0\n") if is_judged else (run, f"exit-code={run}\n"))
    assert is_judged == any(line.startswith("vbench compare") for line in called(tmp_path))


def test_the_actions_output_is_that_of_the_step_that_ended_it() -> None:
    action: dict[str, Any] = read_yaml(ACTION).data
    value = action["outputs"]["exit-code"]["value"]
    steps = {step.get("id") for step in action["runs"]["steps"]}
    assert set(re.findall(r"steps\.(\w+)\.outputs", value)) == steps
