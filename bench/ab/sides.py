"""The two sides of an A/B measurement: commits in their own worktrees, models, or other environments."""

import json
import math
import os
import re
import shutil
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

from bench.core.errors import InputError, SetUpError, last_line
from bench.core.git import commit_hint, git_environment, run_git
from bench.core.model_name import is_registered_name
from bench.core.process import BoundedLog, ChildTimeoutError, LastBytes, SupervisedProcess
from bench.core.yaml_tree import Tree

PYTHON, MODEL, HERE = "python:", "model:", "."
WORKTREES = "vbench-ab-"  # followed by the id of the process that made them
NEEDS_GIT = "vbench ab with a commit, branch or tag needs git, and a working folder inside a repository"
REQUEST_S = 60.0  # for a side to read a request
PLAN_S = 1800.0  # for a side to import its vbench and plan the suite, which builds every model once
PREPARE_S = 300.0  # for interpreters that were started ahead to import torch on a busy machine
# A side limits the time of its runs itself, doubled in turns; a commit from before this rule doubles it once more.
RUN_LIMITS, RUN_MARGIN_S = 4.0, 120.0
MOST_REPLY_BYTES = 64 << 20  # without a newline: not a reply of ours
# glibc returns freed memory at the end of the heap to the system, and gets it back page by page in the next pass.
# Whether a process does that in every pass depends on what happens to lie at that end, so equal processes differ by
# half to twice. Both sides keep freed memory instead (docs/decisions/0009). 32 MiB is the most that glibc allows.
KEEP_FREED_MEMORY = {"MALLOC_TRIM_THRESHOLD_": str(1 << 40), "MALLOC_MMAP_THRESHOLD_": str(32 << 20)}

SideName = Literal["base", "head"]


@dataclass(frozen=True, kw_only=True)
class SideSpec:
    """What a side is: a commit, a model that replaces the suite's, an interpreter, or the working folder as it is."""

    text: str
    kind: Literal["commit", "model", "python", "here"]
    value: str = ""


@dataclass(frozen=True, kw_only=True)
class SideSetup:
    """Where a side is measured: its working folder, its interpreter and its additional environment variables.

    `tree` is the checkout that the code of this side must come from, if it holds that code. `forbidden` is the
    repository whose own files must not be measured in place of this side's.
    """

    title: str
    folder: Path
    python: str = sys.executable
    variables: Mapping[str, str] = field(default_factory=dict)
    tree: Path | None = None
    forbidden: Path | None = None

    @property
    def is_here(self) -> bool:
        """Whether this vbench and the user's working files are measured, not a commit or another environment."""
        return self.forbidden is None and self.python == sys.executable


@dataclass(frozen=True, kw_only=True)
class PlannedCase:
    """A case in the plan of one side. `is_sharing`: it may be measured while the other side's process is alive.

    `is_counted`: it is exact, so one run a side settles it. `is_of_instructions`: it counts them and measures no time.
    `seconds` is the rough time of what one run measures, `model` the name of its model.
    """

    id: str
    title: str
    model: str = ""
    is_sharing: bool = False
    timeout_s: float | None = None
    is_counted: bool = False
    is_of_instructions: bool = False
    seconds: float = 1.0


@dataclass(frozen=True, kw_only=True)
class RunOutcome:
    """The outcome of one run. `needs_turns`: at least one of its metrics must be judged by many runs."""

    is_good: bool
    needs_turns: bool


def read_side(text: str) -> SideSpec:
    """Read `REF`, `model:NAME`, `package.module:factory`, `python:PATH` or `.`; raises InputError for anything else."""
    if text == HERE:
        return SideSpec(text=text, kind="here")
    if text.startswith(PYTHON):
        found = shutil.which(text.removeprefix(PYTHON))
        if found is None:
            raise InputError(f"{text}: no such program; give an interpreter, such as python:.venv/bin/python")
        return SideSpec(text=text, kind="python", value=os.path.abspath(found))
    if text.startswith(MODEL) or not is_registered_name(text):
        return SideSpec(text=text, kind="model", value=text.removeprefix(MODEL))
    commit = _git("rev-parse", "--verify", "--quiet", "--end-of-options", f"{text}^{{commit}}", missing=text)
    return SideSpec(text=text, kind="commit", value=commit)


@contextmanager
def side_setup(spec: SideSpec) -> Iterator[SideSetup]:
    """Where to measure `spec`. The worktree of a commit exists while the block runs; it is removed even on an error."""
    if spec.kind == "here" and (here := _repository()) is not None:
        yield _setup_in(here, here, title=spec.text)
        return
    if spec.kind != "commit":
        python = spec.value if spec.kind == "python" else sys.executable
        yield SideSetup(title=spec.text, folder=Path.cwd(), python=python)
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
        setup = _setup_in(tree, root, title=f"{spec.text} ({spec.value[:10]})")
        yield replace(setup, forbidden=root)
    finally:
        with suppress(InputError):
            _git("worktree", "remove", "--force", "--force", str(tree), folder=root)
        shutil.rmtree(parent, ignore_errors=True)
        with suppress(InputError):
            _git("worktree", "prune", folder=root)


def _remove_abandoned(root: Path) -> None:
    """Remove the worktrees of measurements that were killed: their process no longer exists."""
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


def _setup_in(tree: Path, root: Path, *, title: str) -> SideSetup:
    """Return the set-up of `tree` for the user's folder within `root`; PYTHONPATH entries move to `tree` too."""
    here = Path.cwd().resolve()
    folder = tree / here.relative_to(root)
    folder = folder if folder.is_dir() else tree
    given = [Path(part).resolve() for part in os.environ.get("PYTHONPATH", "").split(os.pathsep) if part]
    moved = [tree / path.relative_to(root) if path.is_relative_to(root) else path for path in given]
    paths = dict.fromkeys(map(str, [folder, tree, *([tree / "src"] if (tree / "src").is_dir() else []), *moved]))
    return SideSetup(title=title, folder=folder, variables={"PYTHONPATH": os.pathsep.join(paths)}, tree=tree)


def _repository() -> Path | None:
    """The root of the user's checkout; None outside a repository."""
    try:
        return Path(_git("rev-parse", "--show-toplevel")).resolve()
    except InputError:
        return None


class _SideProcess(SupervisedProcess):
    """The process of one side: it answers each JSON line on its standard input with one on its standard output.

    It runs another interpreter and maybe another vbench, so it cannot use the reply pipe of `ChildProcess`.
    """

    def __init__(self, setup: SideSetup, *, log: Path) -> None:
        self._replies, self._rest = deque[bytes](), b""
        self._log, self._last = BoundedLog(log), LastBytes()
        text = (Path(__file__).parent / "side_child.py").read_text(encoding="utf-8")
        super().__init__(
            [setup.python, "-c", text],
            stdin=None,
            stdout=self._received,
            stderr=self._printed,
            environment={**KEEP_FREED_MEMORY, **git_environment(), **setup.variables},
            cwd=setup.folder,
        )

    @property
    def has_reply(self) -> bool:
        return bool(self._replies)

    def reply(self, deadline: float) -> bytes:
        """The next reply; empty if the process ends without one. Raises ChildTimeoutError at `deadline`."""
        while not self._replies and not self.has_exited:
            if (left := deadline - time.monotonic()) <= 0:
                raise ChildTimeoutError
            self.watch(left)
        if not self._replies:
            self.end()  # reads the rest of the pipe
        return self._replies.popleft() if self._replies else b""

    def last_error(self) -> str:
        return last_line(self._last.text(), otherwise="its process ended without a message")

    def _received(self, block: bytes) -> None:
        *lines, self._rest = (self._rest + block).split(b"\n")
        self._replies.extend(lines)
        if len(self._rest) > MOST_REPLY_BYTES:
            self._replies.append(self._rest[:100])
            self._rest = b""

    def _printed(self, block: bytes) -> None:
        self._last.write(block)
        self._log.write(block)

    def _close(self) -> None:
        super()._close()
        self._log.close()


class Side:
    """One side: its cases once `wait_for_plan` has returned, and a process that starts each run in a fresh process."""

    def __init__(
        self, name: SideName, setup: SideSetup, suite: Tree, *, path: Path, out: Path, identify: bool = False
    ) -> None:
        """Start the process, which begins to plan `suite`; raises SetUpError if it does not start."""
        self.name, self.setup = name, setup
        self._deadline, self._limit_s = 0.0, PLAN_S
        log = out.parent / f"{name}.log"
        log.unlink(missing_ok=True)
        try:
            self._process = _SideProcess(setup, log=log)
        except OSError as error:
            raise SetUpError(f"{name} ({setup.title}) cannot be measured: {setup.python}: {error.strerror}") from None
        try:
            at = [
                (place, str(Path(where.file).absolute()), where.line, where.column)  # a side has its own folder
                for place, where in suite.positions.items()
            ]
            request = {"suite": suite.data, "name": str(path), "out": str(out), "at": at}
            self._send({**request, "overlaid": list(suite.overlaid), "identify": identify}, limit_s=PLAN_S)
        except BaseException:
            self.close()
            raise
        self.cases: tuple[PlannedCase, ...] = ()

    def wait_for_plan(self) -> None:
        """Wait for the plan, which sets `cases`.

        Raises SetUpError if planning fails, InputError if this vbench itself says that the suite is wrong.
        """
        try:
            planned = self._reply()
            self._check_origins(planned)
        except BaseException:
            self.close()
            raise
        self.cases = tuple(PlannedCase(**case) for case in planned["cases"])

    def prepare(self, count: int) -> None:
        """Let this side start so many interpreters ahead, while nothing is measured."""
        self._send({"prepare": count}, limit_s=REQUEST_S)

    def wait_until_prepared(self) -> None:
        """Wait until those interpreters have finished their imports. Raises SetUpError if the side has ended."""
        self._send({"wait": True}, limit_s=PREPARE_S)
        self._reply()

    def begin(self, case: int, index: int, *, turn_address: str | None = None) -> None:
        """Start a run of the case with this number in the plan; its record is stored in this side's folder.

        With `turn_address`, its timings take turns through the relay there.
        """
        timeout_s = self.cases[case].timeout_s
        limit_s = math.inf if timeout_s is None else RUN_LIMITS * timeout_s + RUN_MARGIN_S
        self._send({"case": case, "index": index, "turn_address": turn_address}, limit_s=limit_s)

    def result(self) -> RunOutcome:
        """Wait for the run that was begun. Raises SetUpError if the side's process ends or misses its deadline."""
        return RunOutcome(**self._reply())

    def close(self) -> None:
        """End the process and everything that it started."""
        self._process.kill()

    def __enter__(self) -> "Side":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _send(self, request: Mapping[str, Any], *, limit_s: float) -> None:
        self._limit_s, self._deadline = limit_s, time.monotonic() + limit_s
        with suppress(ChildTimeoutError):  # `_reply` reports it
            self._process.send(json.dumps(request).encode() + b"\n", timeout_s=REQUEST_S)

    def _reply(self) -> dict[str, Any]:
        try:
            line = self._process.reply(self._deadline)
            reply = json.loads(line) if line else {"problem": self._process.last_error()}
        except ChildTimeoutError:
            self.close()
            reply = {"problem": f"no reply within {self._limit_s:g} s"}
        except ValueError:
            reply = None
        if not isinstance(reply, dict):
            reply = {"problem": f"it replied {line[:80].decode(errors='replace').strip()!r}"}
        if "problem" in reply:
            is_input = reply.get("exit_code") == InputError.exit_code and self.setup.is_here
            error = InputError if is_input else SetUpError
            raise error(f"{self.name} ({self.setup.title}) cannot be measured: {reply['problem']}")
        return reply

    def _check_origins(self, planned: Mapping[str, Any]) -> None:
        """Raise SetUpError if code under test comes from elsewhere than this side's checkout, which holds it.

        A copy that is installed, editable or not, would be the same on both sides. Code that no commit holds must not
        come from the repository of the working folder either.
        """
        setup = self.setup
        if setup.tree is None:
            return
        for name, found in planned["origins"].items():
            origin, own = Path(found), modules_of(name, setup.tree)
            is_left = setup.forbidden is not None and origin.is_relative_to(setup.forbidden)
            is_installed = origin.is_relative_to(planned["prefix"])
            if origin.parent in {file.parent for file in own} or (not own and (is_installed or not is_left)):
                continue
            there = f"its checkout, which has it at {own[0].relative_to(setup.tree)}" if own else "its checkout"
            raise SetUpError(
                f"{self.name} ({setup.title}) cannot be measured: {name} would come from {origin}, not from {there}; "
                "put the folder that holds it on PYTHONPATH"
            )


def wait_for_results(sides: Sequence[Side]) -> list[Side]:
    """Wait until at least one of `sides` has a result, has ended or has missed its deadline; returns those."""
    processes = [side._process for side in sides]
    while True:
        now = time.monotonic()
        ready = [s for s in sides if s._process.has_reply or s._process.has_exited or now >= s._deadline]
        if ready:
            return ready
        processes[0].watch(min(side._deadline for side in sides) - now, companions=processes[1:])


def modules_of(name: str, tree: Path) -> list[Path]:
    """Files of the checkout `tree` from which module `name` could be imported if their folder were on the path.

    Files that git tracks or would add; not ignored ones, such as those of an environment. The folder above the topmost
    package must not be a package itself: `a/b/c.py` is `b.c` unless `a/__init__.py` exists.
    """
    relative = name.replace(".", "/")
    wanted = [f":(top,glob)**/{relative}.py", f":(top,glob)**/{relative}/__init__.py"]
    listed = _git("ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", *wanted, folder=tree)
    found = set()
    for file in (tree / path for path in listed.split("\0") if path):
        top = (file.parent if file.name == "__init__.py" else file).parents[name.count(".")]
        if file.is_file() and not (top / "__init__.py").is_file():
            found.add(file.resolve())
    return sorted(found)


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
    if missing is None or message:
        raise InputError(message or NEEDS_GIT)
    others = "model:NAME, package.module:factory, python:PATH"
    hint = commit_hint(missing, folder=folder)
    raise InputError(f"no commit, branch or tag {missing!r} here{hint}; allowed too: {others}")
