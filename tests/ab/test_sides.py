"""Sides of an A/B measurement: how they are read, where they are measured, and how their processes end."""

import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest

from bench.ab import side_child, sides
from bench.ab.side_child import OWN, _is_other, _origins
from bench.ab.sides import (
    RunOutcome,
    Side,
    SideSetup,
    modules_of,
    read_side,
    side_setup,
)
from bench.core.errors import InputError, SetUpError
from bench.core.yaml_tree import Tree, read_yaml

SUITE = {"suite": "s", "models": ["c3d"], "measure": {"params": {}}}


def git(folder: Path, *arguments: str) -> str:
    command = ["git", "-c", "user.name=t", "-c", "user.email=t@t", *arguments]
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with two commits of `lib/word.py`, `one` and `two`, the user standing in its folder `lib`."""
    folder = (tmp_path / "repository").resolve()
    (folder / "lib").mkdir(parents=True)
    git(folder, "init", "-q", "-b", "main")
    for word in ("one", "two"):
        (folder / "lib" / "word.py").write_text(f"WORD = {word!r}\n")
        git(folder, "add", ".")
        git(folder, "commit", "-q", "-m", word)
    monkeypatch.chdir(folder / "lib")
    return folder


def test_sides_are_read_by_their_form(repository: Path) -> None:
    first = git(repository, "rev-parse", "HEAD~1")
    assert (read_side("HEAD~1").kind, read_side("HEAD~1").value) == ("commit", first)
    assert (read_side("model:c3d").kind, read_side("model:c3d").value) == ("model", "c3d")
    assert (read_side("nets:small").kind, read_side("nets:small").value) == ("model", "nets:small")
    assert read_side(f"python:{sys.executable}").kind == "python"
    assert read_side(".").kind == "here"


@pytest.mark.parametrize("text", ["no-such-branch", "--help", "python:/nowhere/python", ""])
def test_an_unknown_side_is_wrong_input(repository: Path, text: str) -> None:
    with pytest.raises(InputError) as caught:
        read_side(text)
    assert caught.value.exit_code == 2
    assert str(caught.value)


def test_the_error_for_a_shallow_clone_says_so(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As actions/checkout makes it: the branch to compare with is not there."""
    clone = tmp_path / "clone"
    source = ["git", "clone", "-q", "--depth", "1", f"file://{repository}", str(clone)]
    subprocess.run(source, check=True, capture_output=True)
    monkeypatch.chdir(clone)
    with pytest.raises(InputError, match="fetch-depth: 0"):
        read_side("origin/none")
    monkeypatch.chdir(repository)
    with pytest.raises(InputError) as caught:
        read_side("origin/none")
    assert "fetch-depth" not in str(caught.value)


def test_a_ref_outside_a_repository_says_what_is_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    with pytest.raises(InputError, match=r"repository|no commit"):
        read_side("main")


def test_a_worktree_holds_the_commit_and_is_gone_afterwards(repository: Path) -> None:
    with pytest.raises(KeyboardInterrupt), side_setup(read_side("HEAD~1")) as place:  # noqa: PT012
        assert place.folder.name == "lib"
        assert (place.folder / "word.py").read_text() == "WORD = 'one'\n"
        (place.folder / "left").write_text("something that git does not know")
        paths = place.variables["PYTHONPATH"].split(os.pathsep)
        assert paths[:2] == [str(place.folder), str(place.folder.parent)]
        raise KeyboardInterrupt
    assert not place.folder.exists()
    assert git(repository, "worktree", "list").count("\n") == 0


def test_paths_into_the_repository_are_moved_into_the_worktree(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(repository / "lib"), "/elsewhere"]))
    with side_setup(read_side("main")) as place:
        paths = place.variables["PYTHONPATH"].split(os.pathsep)
        assert str(repository / "lib") not in paths
        assert paths[-1] == "/elsewhere"


@pytest.mark.parametrize(
    ("code", "message"),
    [("import sys; sys.exit('no vbench here')", "no vbench here"), ("print('not JSON', flush=True)", "not JSON")],
)
def test_a_side_that_breaks_is_exit_3_with_its_last_line(tmp_path: Path, code: str, message: str) -> None:
    python = tmp_path / "python"
    python.write_text(f"#!{sys.executable}\n{code}\n")
    python.chmod(0o755)
    place = SideSetup(title="broken", folder=tmp_path, python=str(python))
    with pytest.raises(SetUpError, match=message) as caught:
        Side(
            "base", place, Tree.of(SUITE, name="s.yaml"), path=tmp_path / "s.yaml", out=tmp_path / "base"
        ).wait_for_plan()
    assert caught.value.exit_code == 3


def fake_side(folder: Path, code: str) -> SideSetup:
    """A side whose interpreter runs `code` in the place of `side_child.py`."""
    python = folder / "python"
    python.write_text(f"#!{sys.executable}\nimport json, os, subprocess, sys, time\n{code}")
    python.chmod(0o755)
    return SideSetup(title="fake", folder=folder, python=str(python))


def start(setup: SideSetup) -> Side:
    folder = setup.folder
    side = Side("base", setup, Tree.of(SUITE, name="s.yaml"), path=folder / "s.yaml", out=folder / "base")
    side.wait_for_plan()
    return side


# Plans one case that may take 60 s, then does what each test adds.
PLANS = """
sys.stdin.readline()
cases = [{"id": "c", "title": "t", "is_sharing": True, "timeout_s": 60}]
print(json.dumps({"cases": cases, "origins": {}, "prefix": ""}), flush=True)
"""
# Plans one case whose title is the number of pages that twenty passes get from the system anew; each uses 6.4 MB.
COUNTS_NEW_PAGES = """
import ctypes, resource
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
def one_pass():
    blocks = [ctypes.c_void_p(libc.malloc(100_000)) for _ in range(64)]
    for block in blocks:
        libc.memset(block, 1, 100_000)
    for block in blocks:
        libc.free(block)
one_pass()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    one_pass()
pages = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
sys.stdin.readline()
print(json.dumps({"cases": [{"id": "c", "title": str(pages)}], "origins": {}, "prefix": ""}), flush=True)
"""
STARTS_ANOTHER = """
other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
open("pids", "w").write(f"{os.getpid()} {other.pid}")
"""
HANGS = "\ntime.sleep(600)\n"


def test_a_side_that_hangs_while_planning_ends_at_its_deadline_with_its_children(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wait_until_gone: Callable[..., None]
) -> None:
    monkeypatch.setattr(sides, "PLAN_S", 2.0)
    with pytest.raises(SetUpError, match=r"base \(fake\) cannot be measured: no reply within 2 s"):
        start(fake_side(tmp_path, STARTS_ANOTHER + HANGS))
    wait_until_gone([int(pid) for pid in (tmp_path / "pids").read_text().split()], within_s=0.5)


def test_a_run_that_hangs_ends_the_side_at_its_deadline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wait_until_gone: Callable[..., None]
) -> None:
    monkeypatch.setattr(sides, "RUN_LIMITS", 0.0)
    monkeypatch.setattr(sides, "RUN_MARGIN_S", 1.0)
    with start(fake_side(tmp_path, PLANS + STARTS_ANOTHER + HANGS)) as side:
        side.begin(0, 0)
        assert sides.wait_for_results([side]) == [side]
        with pytest.raises(SetUpError, match="no reply within 1 s"):
            side.result()
        wait_until_gone([int(pid) for pid in (tmp_path / "pids").read_text().split()], within_s=0.5)


def test_processes_of_a_side_keep_freed_memory_unless_the_user_decides(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """6.4 MB are at least 1,563 pages of 4 KiB."""
    if platform.libc_ver()[0] != "glibc":
        pytest.skip("only glibc has these variables")

    def new_pages() -> int:
        with start(fake_side(tmp_path, COUNTS_NEW_PAGES)) as side:
            return int(side.cases[0].title)

    assert new_pages() < 100
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "131072")
    assert new_pages() > 10 * 1563


def test_the_result_of_the_side_that_is_done_is_read_first(tmp_path: Path) -> None:
    (tmp_path / "slow").mkdir()
    run = "sys.stdin.readline()\n"
    done = 'print(json.dumps({"is_good": True, "needs_turns": False}), flush=True)\n'
    with (
        start(fake_side(tmp_path / "slow", PLANS + run + HANGS)) as slow,
        start(fake_side(tmp_path, PLANS + run + done + HANGS)) as quick,
    ):
        slow.begin(0, 0)
        quick.begin(0, 0)
        assert sides.wait_for_results([slow, quick]) == [quick]
        assert quick.result() == RunOutcome(is_good=True, needs_turns=False)


def test_a_side_that_prints_200_mb_is_measured_and_its_log_is_bounded(tmp_path: Path) -> None:
    prints = "for _ in range(200): sys.stderr.write('x' * 1_000_000 + '\\n')\n"
    with start(fake_side(tmp_path, prints + PLANS + HANGS)) as side:
        assert [case.id for case in side.cases] == ["c"]
    assert (tmp_path / "base.log").stat().st_size < 5_000_000


def test_a_reply_without_end_is_not_read_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sides, "MOST_REPLY_BYTES", 1_000_000)
    with pytest.raises(SetUpError, match="it replied 'xxx"):
        start(fake_side(tmp_path, "while True: sys.stdout.write('x' * 1_000_000)\n"))


def test_a_suite_longer_than_a_pipe_reaches_a_side_that_prints_first(tmp_path: Path) -> None:
    """Each side of the pipe would wait for the other if only one of them was read."""
    prints = "sys.stderr.write('x' * 1_000_000)\n"
    setup = fake_side(tmp_path, prints + PLANS + HANGS)
    suite = Tree.of({**SUITE, "description": "d" * 1_000_000}, name="s.yaml")
    with Side("base", setup, suite, path=tmp_path / "s.yaml", out=tmp_path / "base") as side:
        side.wait_for_plan()
        assert len(side.cases) == 1


PARENT = """
import sys
from pathlib import Path
from bench.ab.sides import Side, SideSetup
from bench.core.yaml_tree import Tree
folder = Path(sys.argv[1])
suite = {"suite": "s", "plugins": ["hanging_plugin"], "models": ["c3d"], "measure": {"params": {}}}
tree = Tree.of(suite, name="s.yaml")
Side("base", SideSetup(title="x", folder=folder), tree, path=folder / "s.yaml", out=folder / "b").wait_for_plan()
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the Linux kernel ends children of a dead process")
def test_a_side_and_its_children_end_if_vbench_is_killed(tmp_path: Path, wait_until_gone: Callable[..., None]) -> None:
    plugin = "import os, time\nopen('pids', 'w').write(f'{os.getppid()} {os.getpid()}')\ntime.sleep(600)\n"
    (tmp_path / "hanging_plugin.py").write_text(plugin)
    parent = subprocess.Popen([sys.executable, "-c", PARENT, str(tmp_path)])
    deadline = time.monotonic() + 60
    while not (tmp_path / "pids").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    time.sleep(0.2)
    pids = [int(pid) for pid in (tmp_path / "pids").read_text().split()]
    for pid in pids:
        os.kill(pid, 0)
    parent.kill()
    parent.wait()
    wait_until_gone(pids)


def test_a_worktree_is_made_without_git_hooks(repository: Path) -> None:
    hooks = repository / ".git" / "hooks"
    for name in ("post-checkout", "reference-transaction", "post-index-change"):
        (hooks / name).write_text(f"#!/bin/sh\ntouch {repository}/hook-ran\n")
        (hooks / name).chmod(0o755)
    git(repository, "checkout", "-q", "-b", "probe")
    assert (repository / "hook-ran").exists(), "these hooks do run in the repository itself"
    (repository / "hook-ran").unlink()
    with side_setup(read_side("HEAD~1")) as setup:
        assert (setup.folder / "word.py").is_file()
    assert not (repository / "hook-ran").exists()


FILE = """\
suite: s
models: [c3d]
measure: {params: {}}
matrix:
  clip: [16x1x112]
  exclude: [{precison: bf16}]
"""


@pytest.mark.parametrize(("is_other", "error"), [(False, InputError), (True, SetUpError)])
def test_a_side_whose_plan_is_wrong_says_where(tmp_path: Path, is_other: bool, error: type[Exception]) -> None:
    """What this vbench cannot plan is wrong input; what another commit or environment cannot is a broken set-up."""
    file, python = tmp_path / "s.yaml", tmp_path / "python"
    file.write_text(FILE)
    python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    place = SideSetup(title="here", folder=tmp_path, **({"python": str(python)} if is_other else {}))
    with pytest.raises(error, match=r"head \(here\).*s\.yaml:6:14: unknown axis 'precison'"):
        Side("head", place, read_yaml(file), path=file, out=tmp_path / "head").wait_for_plan()


def test_a_side_knows_which_rules_another_file_overrides(tmp_path: Path) -> None:
    """They may name what the upper file has put aside."""
    (tmp_path / "s.yaml").write_text(FILE.replace("precison: bf16", "depth: 18"))
    top = Tree.of({"measure": {"params": {}}}, name="s.yaml")
    place = SideSetup(title="here", folder=tmp_path)
    with Side("head", place, top.over(read_yaml(tmp_path / "s.yaml")), path=tmp_path / "s.yaml", out=tmp_path) as side:
        side.wait_for_plan()
        assert len(side.cases) == 1


def test_a_suite_by_a_relative_path_keeps_its_recipes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A side has its own working folder, from which the relative path leads elsewhere or nowhere."""
    (tmp_path / "recipes").mkdir()
    (tmp_path / "elsewhere").mkdir()
    recipe = (Path(__file__).parents[2] / "suites" / "recipes" / "quick.yaml").read_text()
    (tmp_path / "recipes" / "own.yaml").write_text(recipe.replace("recipe: quick", "recipe: own"))
    measure = "measure: {accuracy: {dataset: motions, recipe: own}}"
    (tmp_path / "s.yaml").write_text(f"suite: s\nmodels: [c3d]\nmatrix: {{clip: [16x1x112]}}\n{measure}\n")
    monkeypatch.chdir(tmp_path)
    place = SideSetup(title="here", folder=tmp_path / "elsewhere")
    with Side("head", place, read_yaml(Path("s.yaml")), path=tmp_path / "s.yaml", out=tmp_path / "out") as side:
        side.wait_for_plan()
        assert len(side.cases) == 1


def test_a_folder_without_init_is_not_another_package_bench(tmp_path: Path) -> None:
    """Its place of the path is left out while vbench is imported, with all else that it holds."""
    package = tmp_path / "bench"
    (package / "suites").mkdir(parents=True)
    assert not _is_other(str(tmp_path))
    (package / "__init__.py").write_text("")
    assert _is_other(str(tmp_path))
    (package / "execution").mkdir()
    (package / "execution" / "running.py").write_text("")
    assert not _is_other(str(tmp_path))


def make_side(place: SideSetup) -> Side:
    """A side that has planned, without its process."""
    side = object.__new__(Side)
    side.name, side.setup = "base", place
    return side


def test_code_from_the_repository_instead_of_the_worktree_is_refused(repository: Path) -> None:
    """As with an editable install: base would be measured with the code of head."""
    new = repository / "lib" / "new.py"
    new.write_text("")
    with side_setup(read_side("main")) as place:
        side = make_side(place)
        for name, file in (("word", repository / "lib" / "word.py"), ("new", new)):
            planned = {"origins": {name: str(file)}, "prefix": "/usr"}
            with pytest.raises(SetUpError, match="not from its checkout"):
                side._check_origins(planned)
        side._check_origins({"origins": {"word": str(place.folder / "word.py")}, "prefix": "/usr"})


@pytest.mark.parametrize("environment", ["/opt/venv", "{repository}/.venv", "{repository}"])
@pytest.mark.parametrize("ref", ["main", "."])
def test_an_installed_copy_of_code_in_the_checkout_is_refused_on_either_side(
    repository: Path, ref: str, environment: str
) -> None:
    prefix = environment.format(repository=repository)
    copy, other = (f"{prefix}/lib/python3/site-packages/{name}.py" for name in ("word", "numpy"))
    with side_setup(read_side(ref)) as place:
        side = make_side(place)
        side._check_origins({"origins": {"numpy": other}, "prefix": prefix})
        with pytest.raises(SetUpError, match=r"word would come from .*site-packages.*, which has it at lib/word\.py"):
            side._check_origins({"origins": {"word": copy}, "prefix": prefix})
        side._check_origins({"origins": {"word": str(place.folder / "word.py")}, "prefix": prefix})


def test_an_environment_behind_a_symbolic_link_contains_its_modules(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = tmp_path / "real/lib/linked_words.py"
    module.parent.mkdir(parents=True)
    module.touch()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "link"))
    monkeypatch.syspath_prepend(tmp_path / "link/lib")
    planned = _origins({"plugins": ["linked_words"]})
    assert Path(planned["origins"]["linked_words"]).is_relative_to(planned["prefix"])


def test_an_environment_is_measured_with_what_is_installed_there(repository: Path) -> None:
    with side_setup(read_side(f"python:{sys.executable}")) as place:
        make_side(place)._check_origins({"origins": {"word": "/opt/venv/lib/word.py"}, "prefix": "/opt/venv"})


def test_modules_are_found_wherever_a_repository_keeps_them(repository: Path) -> None:
    files = ["packages/x/src/pkg/__init__.py", "packages/x/src/pkg/nets.py", "packages/y/nets.py", "spaced/nets.py"]
    for name in (*files, "ignored/nets.py"):
        (repository / name).parent.mkdir(parents=True, exist_ok=True)
        (repository / name).write_text("")
    (repository / ".gitignore").write_text("ignored/\n")
    git(repository, "add", "packages")
    own = {n: [str(f.relative_to(repository)) for f in modules_of(n, repository)] for n in ("pkg.nets", "pkg", "nets")}
    assert own == {"pkg.nets": files[1:2], "pkg": files[:1], "nets": files[2:]}
    assert modules_of("x.nets", repository) == []


def test_origins_are_found_without_importing_parent_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    for folder, name in ((first, "shared/one.py"), (second, "shared/two.py"), (second, "whole/net.py")):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("")
    (second / "whole" / "__init__.py").write_text("raise RuntimeError")
    for folder in (second, first):
        monkeypatch.syspath_prepend(str(folder))
    found = _origins({"plugins": ["shared.two", "whole", "nowhere"], "models": ["c3d", "whole.net:f", ".x:f"]})[
        "origins"
    ]
    assert {name: str(Path(place).relative_to(tmp_path)) for name, place in found.items() if name != OWN} == {
        "shared.two": "second/shared/two.py",
        "whole": "second/whole/__init__.py",
        "whole.net": "second/whole/net.py",
    }
    assert Path(found[OWN]).name == "running.py"


def test_the_working_folder_finds_its_code_like_a_commit(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else `ab main .` of a `src` layout would measure base from its source and head from an installed copy."""
    (repository / "src").mkdir()
    (repository / "src" / "code.py").write_text("")
    git(repository, "add", ".")
    git(repository, "commit", "-q", "-m", "src")
    monkeypatch.setenv("PYTHONPATH", "/elsewhere")

    def paths(ref: str) -> list[str]:
        with side_setup(read_side(ref)) as place:
            assert place.tree is not None
            return [path.replace(str(place.tree), "") for path in place.variables["PYTHONPATH"].split(os.pathsep)]

    assert paths(".") == paths("main") == ["/lib", "", "/src", "/elsewhere"]


def test_outside_a_repository_the_working_folder_is_used_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    with side_setup(read_side(".")) as place:
        assert (place.folder, place.variables, place.tree) == (tmp_path, {}, None)


def test_names_that_are_not_utf_8_do_not_crash(repository: Path) -> None:
    odd = os.fsencode(repository) + b"/caf\xe9"
    os.mkdir(odd)
    Path(os.fsdecode(odd), "word.py").write_text("")
    assert len(modules_of("word", repository)) == 2
    git(repository, "add", ".")
    git(repository, "commit", "-q", "-m", "odd")
    with side_setup(read_side("main")) as place:
        assert (place.folder / "word.py").is_file()


def test_only_worktrees_of_killed_measurements_are_removed(repository: Path, tmp_path: Path) -> None:
    killed = subprocess.Popen([sys.executable, "-c", ""])
    killed.wait()
    trees = {pid: tmp_path / f"vbench-ab-{pid}-x" / "tree" for pid in (killed.pid, os.getppid())}
    own = tmp_path / "mine" / "tree"
    for tree in (*trees.values(), own):
        git(repository, "worktree", "add", "--detach", str(tree), "HEAD")
    with side_setup(read_side("HEAD")):
        pass
    assert [tree.exists() for tree in trees.values()] == [False, True]
    assert own.exists()
    assert str(trees[killed.pid]) not in git(repository, "worktree", "list")


OLD_VBENCH = {
    "__init__.py": "",
    "errors.py": "class BenchError(Exception):\n    exit_code = 2\n",
    "yaml_tree.py": """
from dataclasses import dataclass, field

@dataclass(frozen=True)
class Position:
    file: str
    line: int
    column: int

@dataclass(frozen=True)
class Tree:
    data: object
    positions: dict
    beneath: frozenset = frozenset()

    @classmethod
    def of(cls, data, *, name):
        return cls(data, {(): Position(name, 1, 1)})
""",
    "execution/__init__.py": "",
    "execution/running.py": """
from pathlib import Path
from types import SimpleNamespace
from bench.execution.fakes import CASE, Store

def plan(tree, out):
    suite = SimpleNamespace(cases=[CASE], path=Path("s.yaml"), facts=dict)
    return SimpleNamespace(suite=suite, store=Store(out), freshness={CASE.id: "f"})

def recipe_folders(path):
    return ()
""",
    "execution/local.py": """
import os
from bench.errors import BenchError
from bench.execution.fakes import Record

def run_case(case, store, *, run_index, freshness, recipes):
    if run_index:
        raise BenchError("no second run")
    return Record({"address": os.environ.get("VBENCH_FLOOR"), "limit_s": case.timeout_s})
""",
    "execution/fakes.py": """
from contextlib import nullcontext
from types import SimpleNamespace

class Case(SimpleNamespace):
    def model_copy(self, update):
        return Case(**{**vars(self), **update})

CASE = Case(id="c1", title="a case", measures={"latency": {}}, point=SimpleNamespace(device="cpu"), timeout_s=60)

class Record:
    is_good, metrics = True, ()
    def __init__(self, details):
        self.details = details
    def model_copy(self, update):
        return Record(update["details"])

class Store:
    def __init__(self, out):
        self.out = out
    def lock(self):
        return nullcontext()
    def write_suite(self, facts):
        pass
    def append(self, record):
        open("record.txt", "w").write(str(record.details))
""",
    "measure/__init__.py": "",
    "measure/floor.py": "",
}


def test_a_commit_from_before_the_modules_were_renamed_is_measured(tmp_path: Path) -> None:
    """Its modules have their old names, its workers read the old address, and its errors are reported as ours."""
    for name, text in OLD_VBENCH.items():
        (tmp_path / "bench" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "bench" / name).write_text(text)
    place = SideSetup(title="old", folder=tmp_path, variables={"PYTHONPATH": str(tmp_path)})
    tree = Tree.of(SUITE, name="s.yaml")
    with Side("base", place, tree, path=tmp_path / "s.yaml", out=tmp_path / "base") as side:
        side.wait_for_plan()
        assert [(case.id, case.is_sharing) for case in side.cases] == [("c1", True)]
        side.prepare(1)  # nothing is started ahead
        side.wait_until_prepared()
        side.begin(0, 0, turn_address="/run/turns")
        assert side.result().is_good
        record = (tmp_path / "record.txt").read_text()
        assert record == "{'address': '/run/turns', 'limit_s': 120, 'in_turns': 'steps'}"
        side.begin(0, 1)
        with pytest.raises(InputError, match="no second run"):
            side.result()


AHEAD = """
from bench.execution.fakes import Record

class WorkerStarts:
    calls = []
    def prepare(self, count):
        self.calls.append(count)
    def wait_until_prepared(self):
        self.calls.append("wait")
    def __enter__(self):
        return self
    def __exit__(self, *error):
        open("left.txt", "w").write("left")

def run_case(case, store, *, run_index, freshness, recipes, starts):
    return Record({"calls": list(starts.calls)})
"""


def test_a_side_starts_interpreters_ahead_and_replies_when_they_wait(tmp_path: Path) -> None:
    for name, text in {**OLD_VBENCH, "execution/local.py": AHEAD}.items():
        (tmp_path / "bench" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "bench" / name).write_text(text)
    setup = SideSetup(title="new", folder=tmp_path, variables={"PYTHONPATH": str(tmp_path)})
    tree = Tree.of(SUITE, name="s.yaml")
    with Side("base", setup, tree, path=tmp_path / "s.yaml", out=tmp_path / "base") as side:
        side.wait_for_plan()
        side.prepare(2)
        side.wait_until_prepared()
        side.begin(0, 0)
        assert side.result().is_good
    assert (tmp_path / "record.txt").read_text() == "{'calls': [2, 'wait'], 'in_turns': 'processes'}"


PRIVACY = """
from bench.execution.fakes import Record

def without_identity(record):
    return Record({"in_turns": record.details["in_turns"], "home": "~"})
"""


@pytest.mark.parametrize("names", ["RUNNING", "LOCAL", "YAML_TREE", "IMPORT_PATH", "TURN_TAKING", "PRIVACY", "ERRORS"])
def test_a_side_of_this_version_has_the_newest_names_of_all_modules(names: str) -> None:
    """After a rename, a side would otherwise silently do without turns or without hiding names."""
    assert find_spec(getattr(side_child, names)[0]) is not None


@pytest.mark.parametrize(("identify", "is_kept"), [(False, False), (True, True)])
def test_records_of_a_side_keep_no_home_folder_unless_asked_to(tmp_path: Path, identify: bool, is_kept: bool) -> None:
    vbench = {**OLD_VBENCH, "core/__init__.py": "", "core/privacy.py": PRIVACY}
    for name, text in vbench.items():
        (tmp_path / "bench" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "bench" / name).write_text(text)
    setup = SideSetup(title="new", folder=tmp_path, variables={"PYTHONPATH": str(tmp_path)})
    tree = Tree.of(SUITE, name="s.yaml")
    with Side("base", setup, tree, path=tmp_path / "s.yaml", out=tmp_path / "base", identify=identify) as side:
        side.wait_for_plan()
        side.begin(0, 0)
        assert side.result().is_good
    record = (tmp_path / "record.txt").read_text()
    assert ("limit_s" in record, "~" in record) == (is_kept, not is_kept)
    assert "'in_turns': 'processes'" in record
