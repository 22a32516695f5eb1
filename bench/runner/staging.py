"""Copies of the working tree from which the jobs of a cluster run, so that later edits change none of them."""

import hashlib
import os
import shutil
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex

from bench.core.errors import InputError
from bench.core.git import run_git
from bench.core.units import format_value, plural
from bench.runner.environment import staged_variables
from bench.store.record_store import STAGED_TREES

UNUSED_S = 3600.0  # after which a staged tree without jobs is removed: a command may be about to submit some
LARGEST_BYTES = 1 << 30  # a tree above this holds data, which jobs read where it is
RUN_TREE = ("ls-files", "-z", "--exclude-standard")
SKIPPED = ("__pycache__", ".pyc")


@dataclass(frozen=True, kw_only=True)
class StagedTree:
    """A sealed copy of the working tree `root` in `folder`, whose name is a hash of its content."""

    root: Path
    folder: Path
    files: int
    size_bytes: int
    is_new: bool

    def place_of(self, path: Path) -> Path:
        """Return where the copy of a file or folder of the tree is; raises InputError for one outside of the tree."""
        try:
            return self.folder / path.resolve().relative_to(self.root)
        except ValueError:
            raise InputError(f"--stage copies the working tree {self.root}, and {path} lies outside of it") from None

    def variables(self, given: Mapping[str, str]) -> dict[str, str]:
        """Return PYTHONPATH and VBENCH_DATA for a job, so that it imports the copies and finds the data.

        Folders of the tree on this process's import path, as an editable installation puts them there, are replaced by
        their copies. The variable of `staged_variables` is added.
        """
        copies = [str(self.place_of(Path(entry))) for entry in sys.path if entry and self._has_copy(Path(entry))]
        entries = [Path(entry) for entry in given.get("PYTHONPATH", "").split(os.pathsep) if entry]
        rest = [str(self.place_of(entry) if self._has_copy(entry) else entry.absolute()) for entry in entries]
        found = {"PYTHONPATH": os.pathsep.join(dict.fromkeys([*copies, *rest]))}
        if data := given.get("VBENCH_DATA"):
            found["VBENCH_DATA"] = os.path.abspath(data)
        return found | staged_variables(self.folder, root=self.root)

    def _has_copy(self, folder: Path) -> bool:
        resolved = folder.resolve()
        if not resolved.is_relative_to(self.root):
            return False
        copy = self.place_of(resolved)
        return copy.is_dir() and copy.resolve() == copy.absolute()  # not below a link to something ignored

    def __str__(self) -> str:
        content = f"{plural(self.files, 'file')}, {format_value(self.size_bytes, 'B')}"
        return f"{'staged' if self.is_new else 'staged before'}: {self.folder} ({content})"


def stage_tree(into: Path, *, working: Path) -> StagedTree:
    """Copy the working tree of git that holds the folder `working` into a folder of `into`, unless it is there.

    The files are those that git tracks and new ones that it does not ignore. What it ignores, such as data and
    checkpoints, is linked to where it is. Results folders are left out. Raises InputError without a working tree, and
    if it holds more than 1 GiB.
    """
    root = _root_of(working)
    files, links = _files_and_links(root, apart_from=into)
    size_bytes = sum(file.lstat().st_size for file in map(root.joinpath, files))
    if size_bytes > LARGEST_BYTES:
        largest = max(files, key=lambda name: (root / name).lstat().st_size)
        raise InputError(
            f"--stage: the working tree {root} holds {format_value(size_bytes, 'B')}, more than "
            f"{format_value(LARGEST_BYTES, 'B')}; the largest file is {largest}. Ignore data in .gitignore: jobs read "
            "what git ignores where it is"
        )
    folder = into.absolute() / _hash(root, files, links)
    tree = StagedTree(root=root, folder=folder, files=len(files), size_bytes=size_bytes, is_new=not folder.is_dir())
    if not tree.is_new:
        os.utime(folder)  # else it might be removed before jobs are submitted from it
        return tree
    copy = folder.with_name(f".{folder.name}-{token_hex(4)}")
    try:
        _copy_tree(root, copy, files=files, links=links)
        (copy / working.resolve().relative_to(root)).mkdir(parents=True, exist_ok=True)
        if _hash(copy, files, links) != folder.name:
            raise InputError(f"--stage: the working tree {root} changed while it was copied; run the command again")
        _set_writable(copy, is_writable=False)
        try:
            copy.rename(folder)
        except OSError:
            if not folder.is_dir():  # else another command has staged the same tree meanwhile
                raise
    finally:
        if copy.exists():
            remove_staged_tree(copy)
    return tree


def _copy_tree(root: Path, copy: Path, *, files: Sequence[str], links: Sequence[str]) -> None:
    copy.mkdir(parents=True)
    for name in (*files, *links):
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
    for name in files:
        shutil.copy2(root / name, copy / name, follow_symlinks=False)
    for name in links:
        (copy / name).symlink_to(root / name)


def remove_staged_tree(folder: Path) -> None:
    """Remove a staged tree, which is sealed."""
    _set_writable(folder, is_writable=True)
    shutil.rmtree(folder)


def is_recent(folder: Path) -> bool:
    """Whether a staged tree was made or asked for in the last hour."""
    return time.time() - folder.stat().st_mtime < UNUSED_S


def staged_trees_in(results: Path) -> list[Path]:
    """Return the staged trees in a results folder, in the order of their names."""
    found = (results / STAGED_TREES).glob("*")
    return sorted(path for path in found if path.is_dir() and not path.name.startswith("."))


def _root_of(working: Path) -> Path:
    try:
        asked = run_git("rev-parse", "--show-toplevel", folder=working)
    except OSError as error:
        raise InputError(f"--stage needs git: {error}") from None
    if asked.returncode:
        raise InputError(f"--stage copies the files that git knows, but {working} is in no git repository")
    return Path(asked.stdout.rstrip("\n")).resolve()


def _files_and_links(root: Path, *, apart_from: Path) -> tuple[list[str], list[str]]:
    """Return the names of the files to copy and of what git ignores, a folder as one; each sorted.

    Deleted files, bytecode, and whatever is in a results folder or below `apart_from` are left out.
    """
    new = _listed(root, "--others")
    results = {Path(name).parent for name in new if Path(name).match("records*.jsonl")} - {Path()}

    def is_kept(name: str) -> bool:
        in_results = results & {Path(name), *Path(name).parents}
        return not in_results and not (root / name).is_relative_to(apart_from.absolute())

    files = {*_listed(root, "--cached", "--recurse-submodules"), *filter(is_kept, new)}
    ignored = (name.rstrip("/") for name in _listed(root, "--others", "--ignored", "--directory"))
    links = [name for name in ignored if is_kept(name) and not name.endswith(SKIPPED)]
    return sorted(name for name in files if (root / name).is_symlink() or (root / name).is_file()), sorted(links)


def _listed(root: Path, *options: str) -> list[str]:
    found = run_git(*RUN_TREE, *options, folder=root)
    if found.returncode:
        raise InputError(f"--stage: git ls-files failed in {root}: {found.stderr.strip()}")
    return [name for name in found.stdout.split("\0") if name]


def _hash(root: Path, files: Sequence[str], links: Sequence[str]) -> str:
    """Return 12 hex digits of a hash over names, contents and permissions to execute."""
    whole = hashlib.sha256()
    for name in files:
        for part in (name.encode(errors="surrogateescape"), *_content(root / name)):
            whole.update(len(part).to_bytes(8, "big") + part)
    for name in links:
        whole.update(b"link\0" + name.encode(errors="surrogateescape") + b"\0")
    return whole.hexdigest()[:12]


def _content(file: Path) -> Iterator[bytes]:
    if file.is_symlink():
        yield b"link"
        yield os.fsencode(os.readlink(file))
        return
    yield b"program" if os.access(file, os.X_OK) else b"file"
    with file.open("rb") as opened:
        yield hashlib.file_digest(opened, "sha256").digest()


def _set_writable(folder: Path, *, is_writable: bool) -> None:
    """Let the owner write the files and folders of a staged tree, or nobody; what links point to stays as it is."""
    for path, _, names in os.walk(folder):
        for place in (Path(path), *(Path(path, name) for name in names)):
            if not place.is_symlink():
                mode = place.stat().st_mode
                place.chmod(mode | 0o200 if is_writable else mode & ~0o222)
