"""stills: one picture per video, of the objects that move in `motions`; the class is the number of objects.

It serves to pretrain for `motions`: weights learned here know how objects look, and nothing about motion. Files are
`<split>/<class>/<id>.mp4` of one frame, next to `stills.json`.
"""

import hashlib
import json
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.core.errors import DatasetError, InputError
from bench.core.files import atomic_folder, cache_folder
from bench.core.registry import register_dataset
from bench.core.schema import digest
from bench.data.collection import Video, VideoSet, video_set

if TYPE_CHECKING:
    from bench.data.moving_objects import Scene

VERSION = 1
CLASSES = ("3 objects", "4 objects", "5 objects")
SPLITS = ("train", "val")
FEWEST = 3
_MANIFEST = "stills.json"
_STREAM = 7  # part of the seed that keeps scenes apart from those of `motions`


@register_dataset(
    "stills", described_at="docs/data-lists.md: vbench writes it itself", num_classes=3, is_generated=True
)
def open_stills(
    root: Path | None,
    *,
    split: str,
    seed: int = 0,
    per_class: int = 512,
    val_per_class: int = 64,
    size: int = 64,
) -> VideoSet:
    """Open pictures of 3, 4 or 5 objects; written on first use, to `root` or to the user's cache."""
    given = {"seed": seed, "per_class": per_class, "val_per_class": val_per_class, "size": size, "version": VERSION}
    _check(given)
    folder = root or cache_folder() / "stills" / digest(given)
    if not (folder / _MANIFEST).is_file():
        _write(folder, given)
    return _read(folder, split, given)


def _check(given: dict[str, int]) -> None:
    limits = {"seed": range(2**63), "per_class": range(1, 100_000), "val_per_class": range(1, 100_000)}
    for name, allowed in limits.items():
        if given[name] not in allowed:
            raise InputError(f"stills: {name} is {given[name]}; allowed: {allowed.start} to {allowed.stop - 1}")
    if given["size"] not in range(16, 1025, 2):
        raise InputError(f"stills: size is {given['size']}; allowed: 16 to 1024 in steps of 2")


def _write(folder: Path, given: dict[str, int]) -> None:
    from bench.data.encode import HISTORY_FREE, write_mp4
    from bench.data.moving_objects import film

    if folder.is_dir() and any(folder.iterdir()):
        raise DatasetError(f"data set stills: {folder} holds something else; name a folder that is not there yet")
    files: dict[str, str] = {}
    with atomic_folder(folder) as unfinished:
        for split in SPLITS:
            for number, label, scene in _scenes(split, given):
                name = f"{split}/{CLASSES[label]}/{split[0]}{number:06d}.mp4"
                path = unfinished / name
                path.parent.mkdir(parents=True, exist_ok=True)
                write_mp4(path, film(scene, 0, frames=1), fps=1, options=HISTORY_FREE)
                files[name] = hashlib.sha256(path.read_bytes()).hexdigest()
        (unfinished / _MANIFEST).write_text(json.dumps({"parameters": given, "files": files}, indent=1))


def _scenes(split: str, given: dict[str, int]) -> "Iterator[tuple[int, int, Scene]]":
    """Yield number, class and scene of each picture, equally many of every class."""
    from bench.data.moving_objects import draw_scene

    wanted = given["per_class" if split == "train" else "val_per_class"]
    left = [wanted] * len(CLASSES)
    for number in count():
        scene = draw_scene((given["seed"], VERSION, SPLITS.index(split), number, _STREAM), size=given["size"])
        label = len(scene.objects) - FEWEST
        if left[label]:
            left[label] -= 1
            yield number, label, scene
        if not any(left):
            return


def _read(folder: Path, split: str, given: dict[str, int]) -> VideoSet:
    try:
        manifest: dict[str, Any] = json.loads((folder / _MANIFEST).read_text())
        found, files = manifest["parameters"], manifest["files"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DatasetError(f"data set stills: {folder} holds no readable {_MANIFEST}: {error}") from error
    if found != given:
        raise DatasetError(f"data set stills in {folder}: written with {found}, not {given}")
    videos = [
        Video(
            id=Path(name).stem,
            path=folder / name,
            labels=(CLASSES.index(Path(name).parent.name),),
            frames=1,
            sha256=sha256,
        )
        for name, sha256 in files.items()
        if name.startswith(f"{split}/")
    ]
    return video_set("stills", split, classes=CLASSES, videos=videos, root=folder)
