"""The two sides of an A/B measurement: commits in worktrees of their own, models, or other environments."""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

from bench.core.errors import InputError, SetUpError, last_line
from bench.core.git import git_environment, run_git
from bench.core.process import tail
from bench.core.yaml_tree import Tree

PYTHON, MODEL, HERE = "python:", "model:", "."
WORKTREES = "vbench-ab-"  # with the process that made them
NEEDS_GIT = "vbench ab with a commit, branch or tag needs git, and a working folder that lies in a repository"

SideName = Literal["base", "head"]


@dataclass(frozen=True, kw_only=True)
class SideSpec:
    """What a side is: a commit, a model in the place of the suite's, an interpreter, or the working folder as it is."""

    text: str
    kind: Literal["commit", "model", "python", "here"]
    value: str = ""


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a side is measured: its working folder, its interpreter and what it adds to the process's environment.

    `tree` is the checkout that the code of this side must come from, as far as it holds that code; `forbidden` the
    repository whose own files must not be measured in the place of this side's.
    """

    title: str
    folder: Path
    python: str = sys.executable
    variables: Mapping[str, str] = field(default_factory=dict)
    tree: Path | None = None
    forbidden: Path | None = None

    @property
    def is_here(self) -> bool:
        """Whether this very vbench and what the user wrote last are measured, not a commit or another environment."""
        return self.forbidden is None and self.python == sys.executable


@dataclass(frozen=True, kw_only=True)
class PlannedCase:
    """A case as one side plans it. `is_sharing` says that it may be measured while the other side's process lives."""

    id: str
    title: str
    is_sharing: bool = False


@dataclass(frozen=True, kw_only=True)
class Ran:
    """What came of one run. `needs_turns` says whether any of its metrics must be judged by many runs."""

    is_good: bool
    needs_turns: bool


def read_side(text: str) -> SideSpec:
    """`REF`, `model:NAME`, `package.module:factory`, `python:PATH` or `.`; InputError where it is none of these."""
    if text == HERE:
        return SideSpec(text=text, kind="here")
    if text.startswith(PYTHON):
        found = shutil.which(text.removeprefix(PYTHON))
        if found is None:
            raise InputError(f"{text}: no program there; give an interpreter, such as python:.venv/bin/python")
        return SideSpec(text=text, kind="python", value=os.path.abspath(found))
    if text.startswith(MODEL) or ":" in text:
        return SideSpec(text=text, kind="model", value=text.removeprefix(MODEL))
    return SideSpec(text=text, kind="commit", value=_commit(text))


def suite_of(spec: SideSpec, suite: Mapping[str, Any]) -> dict[str, Any]:
    """The suite as this side measures it: with its own model, where it is one, for which it must be checked."""
    if spec.kind != "model":
        return dict(suite)
    models = suite.get("models") or []
    if len(models) != 1:
        raise InputError(
            f"{spec.text}: the suite must have one model, whose place this one takes; it has {len(models)}"
        )
    given = {} if isinstance(models[0], str) else models[0]
    if "clip" not in given and "clip" not in (suite.get("matrix") or {}):
        raise InputError(f"{spec.text}: the suite must say the clip of both models: matrix: {{clip: [16x1x112]}}")
    mine = {"models": [{**given, "name": spec.value}]}
    matrix = dict(suite.get("matrix") or {})
    for kind in ("include", "exclude"):
        if isinstance(rules := matrix.get(kind), list):
            matrix[kind] = [_of_model(rule, spec.value) for rule in rules]
    return {**suite, **mine, **({"matrix": matrix} if matrix else {})}


def _of_model(rule: Any, name: str) -> Any:
    """A rule of the suite's one model as one of the model that takes its place."""
    return {**rule, "model": name} if isinstance(rule, dict) and "model" in rule else rule


@contextmanager
def place_of(spec: SideSpec) -> Iterator[Place]:
    """Where to measure `spec`. The worktree of a commit lasts as long as this does, and is removed however it ends."""
    if spec.kind == "here" and (here := _repository()) is not None:
        yield _place_in(here, here, title=spec.text)
        return
    if spec.kind != "commit":
        python = spec.value if spec.kind == "python" else sys.executable
        yield Place(title=spec.text, folder=Path.cwd(), python=python)
        return
    root = Path(_git("rev-parse", "--show-toplevel")).resolve()
    _remove_abandoned(root)
    parent = Path(tempfile.mkdtemp(prefix=f"{WORKTREES}{os.getpid()}-")).resolve()
    tree = parent / "tree"
    try:
        try:
            _git("worktree", "add", "--detach", str(tree), spec.value)
        except InputError as error:
            raise SetUpError(f"{spec.text}: its worktree could not be made: {error}") from None
        place = _place_in(tree, root, title=f"{spec.text} ({spec.value[:10]})")
        yield replace(place, forbidden=root)
    finally:
        with suppress(InputError):
            _git("worktree", "remove", "--force", "--force", str(tree), folder=root)
        shutil.rmtree(parent, ignore_errors=True)
        with suppress(InputError):
            _git("worktree", "prune", folder=root)


def _remove_abandoned(root: Path) -> None:
    """Remove worktrees of measurements that were killed before they could: their process is no longer there."""
    for line in _git("worktree", "list", "--porcelain", folder=root).splitlines():
        tree = Path(line.removeprefix("worktree "))
        made_by = re.fullmatch(rf"{WORKTREES}(\d+)-.*", tree.parent.name) if line.startswith("worktree ") else None
        if made_by and not _is_alive(int(made_by[1])):
            with suppress(InputError):
                _git("worktree", "remove", "--force", "--force", str(tree), folder=root)
            shutil.rmtree(tree.parent, ignore_errors=True)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _place_in(tree: Path, root: Path, *, title: str) -> Place:
    """`tree` seen from where the user stands in `root`, with what PYTHONPATH names there taken from `tree`."""
    here = Path.cwd().resolve()
    folder = tree / here.relative_to(root)
    folder = folder if folder.is_dir() else tree
    given = [Path(part).resolve() for part in os.environ.get("PYTHONPATH", "").split(os.pathsep) if part]
    moved = [tree / path.relative_to(root) if path.is_relative_to(root) else path for path in given]
    paths = dict.fromkeys(map(str, [folder, tree, *([tree / "src"] if (tree / "src").is_dir() else []), *moved]))
    return Place(title=title, folder=folder, variables={"PYTHONPATH": os.pathsep.join(paths)}, tree=tree)


def _repository() -> Path | None:
    """The checkout in which the user stands; None outside of any."""
    try:
        return Path(_git("rev-parse", "--show-toplevel")).resolve()
    except InputError:
        return None


class Side:
    """One side, ready to measure: its cases, and a process of its own that starts each run in a fresh one."""

    def __init__(self, name: SideName, place: Place, suite: Tree, *, path: Path, out: Path) -> None:
        """Plan `suite`; SetUpError where that fails, InputError where this very vbench says that it is wrong."""
        self.name, self.place = name, place
        self.log = out.parent / f"{name}.log"
        text = (Path(__file__).parent / "side_child.py").read_text(encoding="utf-8")
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                [place.python, "-c", text],
                cwd=place.folder,
                env={**git_environment(), **place.variables},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,
            )
        try:
            at = [
                (place, str(Path(where.file).absolute()), where.line, where.column)  # a side has a folder of its own
                for place, where in suite.positions.items()
            ]
            told = {"at": at, "overlaid": list(suite.overlaid)}
            self._send({"suite": suite.data, "name": str(path), "out": str(out), **told})
            planned = self._answer()
            self._check_origins(planned)
        except BaseException:
            self.close()
            raise
        self.cases = tuple(PlannedCase(**case) for case in planned["cases"])

    def run(self, case: int, index: int) -> Ran:
        """Measure the case at this place of the plan once; its record is kept in this side's folder."""
        self.begin(case, index)
        return self.result()

    def begin(self, case: int, index: int, *, turn_address: str | None = None) -> None:
        """Start such a run without waiting for it; its timings take turns through the relay at `turn_address`."""
        self._send({"case": case, "index": index, "turn_address": turn_address})

    def result(self) -> Ran:
        """What came of the run that was begun, once it has ended."""
        return Ran(**self._answer())

    def fileno(self) -> int:
        """For `select`: readable when the run has ended."""
        assert self._process.stdout is not None
        return self._process.stdout.fileno()

    def close(self) -> None:
        """End the process and what it started."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, 9)
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with suppress(BrokenPipeError):
                    stream.close()

    def __enter__(self) -> "Side":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _send(self, request: Mapping[str, Any]) -> None:
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        answer = self._read(self._process.stdout.readline())
        if "problem" in answer:
            is_input = answer.get("exit_code") == InputError.exit_code and self.place.is_here
            error = InputError if is_input else SetUpError
            raise error(f"{self.name} ({self.place.title}) cannot be measured: {answer['problem']}")
        return answer

    def _read(self, line: str) -> dict[str, Any]:
        if not line:
            return {"problem": self._last_words()}
        try:
            answer: dict[str, Any] = json.loads(line)
        except ValueError:
            return {"problem": f"it answered {line.strip()[:80]!r}"}
        return answer

    def _last_words(self) -> str:
        self._process.wait()
        return last_line(tail(self.log), otherwise="its process ended without a word")

    def _check_origins(self, planned: Mapping[str, Any]) -> None:
        """That code comes from this side's checkout wherever that has it, not from a copy that both sides would share.

        Copies are made by installing, for editing or not, in the repository or outside of it. What no commit holds
        must not come from the repository either, where it is that of the working folder.
        """
        place = self.place
        if place.tree is None:
            return
        for name, found in planned["origins"].items():
            origin, own = Path(found), modules_of(name, place.tree)
            is_left = place.forbidden is not None and origin.is_relative_to(place.forbidden)
            is_installed = origin.is_relative_to(planned["prefix"])
            if origin.parent in {file.parent for file in own} or (not own and (is_installed or not is_left)):
                continue
            there = f"its checkout, where it is {own[0].relative_to(place.tree)}" if own else "its checkout"
            raise SetUpError(
                f"{self.name} ({place.title}) cannot be measured: {name} would come from {origin}, not from {there}; "
                "put the folder that holds it on PYTHONPATH"
            )


def modules_of(name: str, tree: Path) -> list[Path]:
    """Files of the checkout `tree` from which module `name` could be imported, if their folder was on the path.

    Those that git knows or would add; not the ignored ones, such as an environment's. A file counts where the folder
    above its topmost package is no package itself: `a/b/c.py` is `b.c` unless there is an `a/__init__.py`.
    """
    relative = name.replace(".", "/")
    wanted = [f":(top,glob)**/{relative}.py", f":(top,glob)**/{relative}/__init__.py"]
    listed = _git("ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", *wanted, folder=tree)
    files = [tree / each for each in listed.split("\0") if each]
    return sorted({file.resolve() for file in files if file.is_file() and not _is_in_package(file, name)})


def _is_in_package(file: Path, name: str) -> bool:
    top = (file.parent if file.name == "__init__.py" else file).parents[name.count(".")]
    return (top / "__init__.py").is_file()


def _commit(ref: str) -> str:
    return _git("rev-parse", "--verify", "--quiet", "--end-of-options", f"{ref}^{{commit}}", missing=ref)


def _git(*arguments: str, folder: Path | None = None, missing: str | None = None) -> str:
    try:
        done = run_git(*arguments, folder=folder, timeout_s=600)  # a worktree of a large repository takes a while
    except FileNotFoundError:
        raise InputError(NEEDS_GIT) from None
    except TimeoutError as error:
        raise InputError(str(error)) from None
    if done.returncode == 0:
        return done.output.decode(errors="surrogateescape").strip()
    message = done.stderr.strip()
    if missing is not None and not message:
        others = "model:NAME, package.module:factory, python:PATH"
        message = f"no commit, branch or tag {missing!r} here{_why_few(folder)}; allowed too: {others}"
    raise InputError(message or NEEDS_GIT)


def _why_few(folder: Path | None) -> str:
    """What is said of a clone that lacks commits, as those of CI do unless told."""
    is_shallow = _git("rev-parse", "--is-shallow-repository", folder=folder) == "true"
    return (
        ", where git has only the newest commits; fetch them all (actions/checkout: fetch-depth: 0)"
        if is_shallow
        else ""
    )
