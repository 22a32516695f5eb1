"""motions: real H.264 files that vbench writes itself; only the motion tells the classes apart.

Laid out like Kinetics: `train/<class>/<id>_<start>_<end>.mp4`, `val/…`, `train.csv`, `val.csv`. Classes come in pairs
that are each other's reverse in time: class 2k played backwards is class 2k + 1. `motions.json` names the parameters
and the SHA-256 of every file; all of them are checked before use.
"""

import csv
import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.core.errors import DatasetError, InputError
from bench.core.files import cache_folder, require_writable_folder
from bench.core.registry import register_dataset
from bench.data.collection import Video, VideoSet, video_set

if TYPE_CHECKING:
    from bench.data.moving_objects import Scene

VERSION = 3
CLASSES = (
    "moving right",
    "moving left",
    "moving down",
    "moving up",
    "moving down right",
    "moving up left",
    "moving up right",
    "moving down left",
)
SPLITS = ("train", "val")
_MANIFEST = "motions.json"


@dataclass(frozen=True, kw_only=True)
class MotionsParameters:
    """The parameters that determine every pixel. `size` is in pixels; `classes` is even, because classes are pairs."""

    seed: int = 0
    clips_per_class: int = 96
    val_clips_per_class: int = 24
    frames: int = 24
    size: int = 64
    classes: int = 8
    fps: int = 12
    version: int = VERSION


@register_dataset(
    "motions", described_at="docs/data-lists.md: vbench writes it itself", num_classes=8, is_generated=True
)
def open_motions(
    root: Path | None,
    *,
    split: str,
    seed: int | None = None,
    clips_per_class: int | None = None,
    val_clips_per_class: int | None = None,
    frames: int | None = None,
    size: int | None = None,
    classes: int | None = None,
    true_flow: bool = False,
) -> VideoSet:
    """Open small textured objects that move in 8 directions; written on first use, to the user's cache without root.

    `true_flow` also writes the exact optical flow, known from the scenes and not estimated.
    """
    given_options = {
        "seed": seed,
        "clips_per_class": clips_per_class,
        "val_clips_per_class": val_clips_per_class,
        "frames": frames,
        "size": size,
        "classes": classes,
    }
    given = {key: value for key, value in given_options.items() if value is not None}
    folder = _existing(root, given) if root is not None and root.exists() else _written(root, given)
    if true_flow:
        _write_flow(folder, split)
    return _read_split(folder, split, has_flow=true_flow)


def write_motions(root: Path, parameters: MotionsParameters | None = None) -> Path:
    """Write the data set to `root`, where it appears complete or not at all; InputError if that is not possible."""
    parameters = parameters or MotionsParameters()
    _check(parameters)
    if root.exists() and not root.is_dir():
        raise InputError(f"motions: {root} is a file; name a folder")
    if root.is_dir() and any(root.iterdir()) and not (root / _MANIFEST).is_file():
        raise InputError(f"motions: {root} holds something else; name a folder that does not exist yet")
    require_writable_folder(root.parent)
    unfinished = Path(tempfile.mkdtemp(prefix=f".{root.name}.", dir=root.parent))
    try:
        _write_into(unfinished, parameters)
        unfinished.chmod(0o755)
        try:
            unfinished.rename(root)
        except OSError:
            if not (root / _MANIFEST).is_file():
                raise
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return root


def changed_files(root: Path) -> list[str]:
    """Return files of a written data set that are missing or changed."""
    files: dict[str, str] = _manifest(root)["files"]
    return [name for name, sha256 in files.items() if _sha256(root / name) != sha256]


def _written(root: Path | None, given: dict[str, int]) -> Path:
    """Return the folder of the data set with these parameters; it is written if missing, and again if changed."""
    parameters = MotionsParameters(**given)
    folder = root or _cached(parameters)
    if (folder / _MANIFEST).is_file() and changed_files(folder):
        shutil.rmtree(folder)
    if not (folder / _MANIFEST).is_file():
        write_motions(folder, parameters)
    return folder


def _existing(root: Path, given: dict[str, int]) -> Path:
    """Return `root` if it holds an unchanged data set with the given parameters; DatasetError if not."""
    if not any(root.iterdir()):
        root.rmdir()
        return write_motions(root, MotionsParameters(**given))
    parameters = _manifest(root)["parameters"]
    for name, value in given.items():
        if parameters.get(name) != value:
            raise DatasetError(f"data set motions in {root}: written with {name} {parameters.get(name)}, not {value}")
    changed = changed_files(root)
    if changed:
        raise DatasetError(
            f"data set motions in {root}: {len(changed)} files were changed since they were written, the first is "
            f"{changed[0]}; remove the folder and it is written again"
        )
    return root


def _read_split(root: Path, split: str, *, has_flow: bool) -> VideoSet:
    manifest = _manifest(root)
    parameters = MotionsParameters(**manifest["parameters"])
    videos = [
        Video(
            id=_id(split, number, label),
            path=root / _clip_path(split, number, label, parameters),
            labels=(label,),
            frames=parameters.frames,
            sha256=manifest["files"][str(_clip_path(split, number, label, parameters))],
            flow=root / "flow" / _clip_path(split, number, label, parameters).with_suffix("") if has_flow else None,
        )
        for of, number in _scenes(parameters)
        if of == split
        for label in range(parameters.classes)
    ]
    return video_set("motions", split, classes=CLASSES[: parameters.classes], videos=videos, root=root)


def _write_into(folder: Path, parameters: MotionsParameters) -> None:
    from bench.data.encode import HISTORY_FREE, write_mp4
    from bench.data.moving_objects import film

    for split, number in _scenes(parameters):
        scene = _scene(split, number, parameters)
        for label in range(parameters.classes):
            path = folder / _clip_path(split, number, label, parameters)
            path.parent.mkdir(parents=True, exist_ok=True)
            write_mp4(path, film(scene, label, frames=parameters.frames), fps=parameters.fps, options=HISTORY_FREE)
    for split in SPLITS:
        _write_annotation(folder, split, parameters)
    files = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    manifest = {"parameters": asdict(parameters), "files": {name: _sha256(folder / name) for name in files}}
    (folder / _MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")


def _write_flow(root: Path, split: str) -> None:
    """Write the flow of a split unless it exists: pairs of pictures below `flow`, laid out like the videos."""
    from bench.core.files import atomic_folder
    from bench.data.moving_objects import flow_of_film
    from bench.data.prepare_flow import as_bytes, write_flow_pictures

    parameters = MotionsParameters(**_manifest(root)["parameters"])
    if (root / "flow" / split).is_dir():
        return
    with atomic_folder(root / "flow" / split) as unfinished:
        for of, number in _scenes(parameters):
            for label in range(parameters.classes) if of == split else ():
                clip = _clip_path(split, number, label, parameters).relative_to(split).with_suffix("")
                (unfinished / clip).mkdir(parents=True)
                flow_THW2 = flow_of_film(_scene(split, number, parameters), label, frames=parameters.frames)
                write_flow_pictures(unfinished / clip, iter(as_bytes(flow_THW2)))


def _scene(split: str, number: int, parameters: MotionsParameters) -> "Scene":
    from bench.data.moving_objects import draw_scene

    return draw_scene((parameters.seed, parameters.version, SPLITS.index(split), number), size=parameters.size)


def _scenes(parameters: MotionsParameters) -> Iterator[tuple[str, int]]:
    """Yield split and number of every scene."""
    yield from (("train", number) for number in range(parameters.clips_per_class))
    yield from (("val", number) for number in range(parameters.val_clips_per_class))


def _write_annotation(folder: Path, split: str, parameters: MotionsParameters) -> None:
    with (folder / f"{split}.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["label", "youtube_id", "time_start", "time_end", "split"])
        for of, number in _scenes(parameters):
            if of == split:
                for label, name in enumerate(CLASSES[: parameters.classes]):
                    writer.writerow([name, _id(split, number, label), 0, _seconds(parameters), split])


def _id(split: str, scene: int, label: int) -> str:
    """Return an id of eleven characters, like those of Kinetics."""
    return f"{split[0]}{scene:06d}_{label:03d}"


def _clip_path(split: str, scene: int, label: int, parameters: MotionsParameters) -> Path:
    return Path(split, CLASSES[label], f"{_id(split, scene, label)}_{0:06d}_{_seconds(parameters):06d}.mp4")


def _seconds(parameters: MotionsParameters) -> int:
    return -(-parameters.frames // parameters.fps)


def _check(parameters: MotionsParameters) -> None:
    limits = {
        "seed": range(2**63),
        "clips_per_class": range(1, 1_000_000),
        "val_clips_per_class": range(1, 1_000_000),
        "frames": range(1, 10_000),
        "size": range(16, 1025, 2),
        "classes": range(2, len(CLASSES) + 1, 2),
        "fps": range(1, 241),
    }
    for name, allowed in limits.items():
        value = getattr(parameters, name)
        if value not in allowed:
            step = " in steps of 2" if allowed.step == 2 else ""
            raise InputError(f"motions: {name} is {value}; allowed: {allowed.start} to {allowed.stop - 1}{step}")


def _cached(parameters: MotionsParameters) -> Path:
    key = hashlib.sha256(json.dumps(asdict(parameters), sort_keys=True).encode()).hexdigest()[:12]
    return cache_folder() / "motions" / key


def _manifest(root: Path) -> dict[str, Any]:
    try:
        manifest: dict[str, Any] = json.loads((root / _MANIFEST).read_text(encoding="utf-8"))
        MotionsParameters(**manifest["parameters"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DatasetError(f"data set motions: {root} holds no readable {_MANIFEST}: {error}") from error
    return manifest


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""
