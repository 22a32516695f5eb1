"""Does what README.md and docs/tutorial.md tell a newcomer, in empty environments: from a clone and from the wheel.

    python benchmarks/newcomer.py [--folder FOLDER] [--packages SITE_PACKAGES]

Needs nothing but the standard library. Prints how long each step took, also as a ratio to the installation, since that
is what two machines have in common; ends with the exit code of the first step that fails. `--packages` takes the
dependencies from an environment that has them, so that only vbench itself is installed.
"""

import argparse
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter

ROOT = Path(__file__).resolve().parents[1]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SAVED_AS = re.compile(r"Save this as `([^`]+)`:\n\n```\w+\n(.*?)^```$", re.MULTILINE | re.DOTALL)
OF_THE_READER = ("/data/",)  # paths that only the reader has


class Walk:
    """Runs commands one after another and keeps their times.

    The caches of vbench are in the folder `cache`, empty at first as a newcomer's; pip keeps the cache of this user.
    """

    def __init__(self, cache: Path) -> None:
        self.times: list[tuple[str, str, float, float]] = []  # part, command, seconds, load of the machine afterwards
        self.environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV")}
        usual = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        self.environment.setdefault("PIP_CACHE_DIR", str(usual / "pip"))
        self.environment["XDG_CACHE_HOME"] = str(cache)

    def run(self, part: str, command: list[str], *, folder: Path, path: Path | None = None) -> None:
        """Run a command in a folder, with the programs of an environment first; ends the process if it fails."""
        environment = dict(self.environment)
        if path is not None:
            environment["PATH"] = f"{path}{os.pathsep}{environment['PATH']}"
        print(f"\n{part}$ {shlex.join(command)}", flush=True)
        started = perf_counter()
        done = subprocess.run(command, cwd=folder, env=environment, check=False)
        self.times.append((part, shlex.join(command), perf_counter() - started, os.getloadavg()[0]))
        if done.returncode:
            print(f"newcomer: exit code {done.returncode} of: {shlex.join(command)}", file=sys.stderr)
            raise SystemExit(done.returncode)

    def report(self, *, installed: str) -> None:
        """Print every step with its time, and the ratio to the step `installed` of the same part."""
        whole = {part: seconds for part, command, seconds, _ in self.times if installed in command}
        print(f"\none run of each step on {os.cpu_count()} processors; the load is the average of its last minute")
        print("\n| part | step | seconds | installations | load |\n|---|---|---|---|---|")
        for part, command, seconds, load in self.times:
            ratio = f"{seconds / whole[part]:.2f}" if part in whole else "–"
            print(f"| {part} | `{command[-70:]}` | {seconds:.1f} | {ratio} | {load:.1f} |")


def tutorial_commands() -> Iterator[list[str]]:
    """The commands of the tutorial after its installation, without those about files that only the reader has."""
    text = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")
    for kind, block in BLOCK.findall(text):
        lines = re.findall(r"^\$ (vbench .+)$" if kind == "console" else r"^(vbench .+)$", block, re.MULTILINE)
        for line in lines:
            if not any(path in line for path in OF_THE_READER):
                yield shlex.split(line, comments=True)


def tutorial_files() -> dict[str, str]:
    """The files that the tutorial lets the reader save, by name."""
    return dict(SAVED_AS.findall((ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")))


def new_environment(walk: Walk, part: str, folder: Path, packages: str | None) -> Path:
    """Make an empty environment; returns its folder of programs."""
    walk.run(part, [sys.executable, "-m", "venv", str(folder)], folder=folder.parent)
    if packages is not None:
        [own] = folder.glob("lib/python*/site-packages")
        (own / "zzz_packages.pth").write_text(f"{packages}\n")
    return folder / "bin"


def main() -> None:
    """Walk from a clone, then from the wheel, and print the times."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--folder", type=Path, help="where to work; by default a temporary folder, kept if a step fails"
    )
    parser.add_argument("--packages", help="a folder site-packages with the dependencies, which are then not installed")
    given = parser.parse_args()
    folder = (given.folder or Path(tempfile.mkdtemp(prefix="vbench-newcomer-"))).absolute()
    with removed_at_the_end(folder / "cache") as cache:
        walk = Walk(cache)
        with removed_at_the_end(folder / "clone") as clone:
            walk_the_clone(walk, clone, packages=given.packages)
        with removed_at_the_end(folder / "wheel") as empty:
            walk_the_wheel(walk, empty, packages=given.packages)
    if given.folder is None:
        folder.rmdir()
    walk.report(installed="pip install")


@contextmanager
def removed_at_the_end(folder: Path) -> Iterator[Path]:
    """Make a folder and remove it afterwards, since each environment takes 5 GB; it stays if a step fails."""
    folder.mkdir(parents=True)
    yield folder
    shutil.rmtree(folder)


def walk_the_clone(walk: Walk, clone: Path, *, packages: str | None) -> None:
    """README.md, then the tutorial, in a clone of this repository."""
    walk.run("clone", ["git", "clone", "--quiet", str(ROOT), str(clone)], folder=clone.parent)
    programs = new_environment(walk, "clone", clone / ".venv", packages)
    install(walk, "clone", ["--editable", "."], folder=clone, programs=programs, packages=packages)
    (clone / ".venv" / ".run").touch()  # for make: the environment is there
    walk.run("clone", ["make", "demo"], folder=clone, path=programs)
    for name, text in tutorial_files().items():
        (clone / name).write_text(text, encoding="utf-8")
    for command in tutorial_commands():
        walk.run("clone", command, folder=clone, path=programs)


def walk_the_wheel(walk: Walk, empty: Path, *, packages: str | None) -> None:
    """Build the wheel, install it in an empty folder, and make a first report with it."""
    programs = new_environment(walk, "wheel", empty / ".venv", packages)
    build = ["wheel", "--quiet", "--no-deps", "--wheel-dir", str(empty), str(ROOT)]
    walk.run("wheel", [str(programs / "pip"), *build], folder=empty)
    [wheel] = empty.glob("*.whl")
    install(walk, "wheel", [str(wheel)], folder=empty, programs=programs, packages=packages)
    for command in (
        "vbench profile c3d --input 1x3x16x112x112",
        "vbench run demo",
        "vbench report results/demo --out site",
    ):
        walk.run("wheel", command.split(), folder=empty, path=programs)


def install(walk: Walk, part: str, what: list[str], *, folder: Path, programs: Path, packages: str | None) -> None:
    """Install vbench, with its dependencies unless they are at hand."""
    without = ["--no-deps"] if packages else []
    walk.run(part, [str(programs / "pip"), "install", "--quiet", *without, *what], folder=folder)


if __name__ == "__main__":
    main()
