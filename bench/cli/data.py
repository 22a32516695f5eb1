"""The commands of `vbench data`: list, check and prepare data sets."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bench.cli.arguments import AsJson, dataset_options, finite
from bench.cli.console import print_json, print_table, print_text, progress_bar

if TYPE_CHECKING:
    from bench.data.collection import VideoSet
    from bench.data.parallel import Failed, OnProgress

data_app = typer.Typer(name="data", no_args_is_help=True, help="Data sets: list, check, prepare.")

Dataset = Annotated[str, typer.Argument(metavar="DATASET", help="A name from `vbench data list`.")]
Root = Annotated[Path | None, typer.Option(help="The folder of the data set; default: $VBENCH_DATA/<name>.")]
Options = Annotated[
    list[str] | None, typer.Option("--option", metavar="NAME=VALUE", help="An option of the data set, such as videos=…")
]
Split = Annotated[str, typer.Option(help="The split of the data set.")]
Source = Annotated[Path, typer.Argument(metavar="SOURCE", help="A folder of videos.")]
Target = Annotated[Path, typer.Argument(metavar="TARGET", help="The folder to write; a stopped run is continued.")]
Workers = Annotated[int, typer.Option(min=0, help="Worker processes; 0 works in this process.")]
ShortSide = Annotated[int | None, typer.Option(min=2, help="Pixels of the short side; default: as it is.")]


@data_app.command("list")
def list_datasets(as_json: AsJson = False) -> None:
    """List the data sets that vbench reads, with a page that describes each."""
    from bench.core.registry import DATASETS

    rows = [
        (d.name, d.num_classes, ", ".join(d.splits), ", ".join(o for o in d.options if o != "split"), d.described_at)
        for d in DATASETS
    ]
    if as_json:
        names = ("name", "classes", "splits", "options", "described_at")
        print_json([dict(zip(names, row, strict=True)) for row in rows])
    else:
        print_table(("data set", "classes", "splits", "options", "described at"), rows, right=("classes",))


@data_app.command("index")
def index(
    what: Annotated[str, typer.Argument(metavar="DATASET|FOLDER", help="A data set, or a folder that holds videos.")],
    root: Root = None,
    option: Options = None,
    workers: Workers = 0,
    again: Annotated[bool, typer.Option("--again", help="Decode files again that are in the index already.")] = False,
) -> None:
    """Decode every file once: frames, times, size, rotation, codec, damage, hash; a run that was stopped continues."""
    from bench.data.index import index_folder

    failed: tuple[Failed, ...] = ()
    for folder in _folders(what, root, option):
        with _progress_bar("files") as on_progress:
            found = index_folder(folder, workers=workers, again=again, on_progress=on_progress)
        counts = ", ".join(f"{count} {verdict}" for verdict, count in sorted(found.verdicts.items()))
        print_text(f"{found.path}: {found.files} files ({counts or 'none'}), {found.probed} of them decoded now")
        failed += found.failed
    _exit_if_failed(failed)


@data_app.command("verify")
def verify(dataset: Dataset, split: Split, root: Root = None, option: Options = None, as_json: AsJson = False) -> None:
    """Compare a split with its annotation: present, missing and damaged videos per class, and the hash of the set.

    Ends with exit code 3 and the reasons unless every video is present, indexed and undamaged.
    """
    from dataclasses import asdict

    from bench.data.verify import verify_videos

    found = verify_videos(_open(dataset, split, root, option))
    if as_json:
        print_json(asdict(found) | {"incomplete_because": found.shortcomings()})
    else:
        rows = [(each.name, each.present, each.missing, each.damaged) for each in found.classes]
        print_table(("name", "present", "missing", "damaged"), rows, right=("present", "missing", "damaged"))
        for note in found.notes:
            print_text(note)
        for video, what in found.damaged:
            print_text(f"damaged: {video}: {what}")
        print_text(
            f"{found.dataset} {found.split}: {found.present} present, {len(found.missing)} missing, "
            f"{len(found.damaged)} damaged, {found.unindexed} not indexed; hash {found.hash} of {found.hash_covers}"
        )
        if not found.is_complete:
            print_text(f"incomplete (exit code 3): {'; '.join(found.shortcomings())}")
    raise typer.Exit(0 if found.is_complete else 3)


@data_app.command("frames")
def frames(
    source: Source,
    target: Target,
    short_side: Annotated[int, typer.Option(help="Pixels of the short side.")] = 240,
    quality: Annotated[
        int, typer.Option(help="JPEG quality, 1 to 100. ffmpeg's default is like 30: 3.6 times smaller, less exact.")
    ] = 92,
    workers: Workers = 0,
) -> None:
    """Write videos as folders of JPEG frames, in the layout of 3D-ResNets (image_00001.jpg)."""
    from bench.data.prepare import prepare_frames

    _prepare(prepare_frames, source, target, short_side=short_side, quality=quality, workers=workers)


@data_app.command("reencode")
def reencode(source: Source, target: Target, short_side: ShortSide = None, workers: Workers = 0) -> None:
    """Write videos as H.264 with a keyframe every 8 frames, from which clips are read several times faster."""
    from bench.data.prepare import prepare_reencoded

    _prepare(prepare_reencoded, source, target, short_side=short_side, workers=workers)


@data_app.command("flow")
def flow(
    source: Source,
    target: Target,
    method: Annotated[str, typer.Option(help="dis, farneback or tvl1.")] = "dis",
    form: Annotated[str, typer.Option(help="jpeg or npz.")] = "jpeg",
    short_side: ShortSide = None,
    workers: Workers = 0,
) -> None:
    """Write the optical flow between neighbouring frames, clipped at 20 pixels."""
    from bench.data.prepare_flow import prepare_flow

    _prepare(prepare_flow, source, target, method=method, form=form, short_side=short_side, workers=workers)


@data_app.command("shard")
def shard(
    dataset: Dataset, target: Target, split: Split, root: Root = None, option: Options = None, workers: Workers = 0
) -> None:
    """Pack the videos of a split into WebDataset tar files."""
    from bench.data.prepare_shards import prepare_shards

    with _progress_bar("shards") as on_progress:
        found = prepare_shards(_open(dataset, split, root, option), target, workers=workers, on_progress=on_progress)
    print_text(f"{target}: {found.shards} shards written, {found.skipped} were there, {found.videos} videos")
    _exit_if_failed(found.failed)


@data_app.command("annotate")
def annotate(
    dataset: Annotated[str, typer.Argument(metavar="DATASET|FILE.json", help="A data set, or a 3D-ResNets JSON.")],
    target: Annotated[Path, typer.Argument(metavar="TARGET", help="The JSON file, or the folder of lists, to write.")],
    split: Annotated[list[str] | None, typer.Option(help="Splits of the data set; default: train and val.")] = None,
    root: Root = None,
    option: Options = None,
    workers: Workers = 0,
) -> None:
    """Write the annotation of a data set as one 3D-ResNets JSON file, or such a file as lists of paths and labels.

    The frames of videos that are not in an index are counted by decoding them.
    """
    from bench.core.errors import InputError
    from bench.data.annotate import subset_of, write_lists, write_resnets_json

    if dataset.endswith(".json"):
        for name, counts in write_lists(dataset, target).items():
            print_text(f"{name}: {counts.videos} videos, {counts.unlabelled} without a label left out")
        return
    subsets: dict[str, str] = {}
    for name in split or ["train", "val"]:
        if subsets.setdefault(subset_of(name), name) != name:
            raise InputError(
                f"splits {subsets[subset_of(name)]} and {name} are both {subset_of(name)}; write two files"
            )
    videos = {subset: _open(dataset, name, root, option) for subset, name in subsets.items()}
    with _progress_bar("videos") as on_progress:
        written = write_resnets_json(videos, target, workers=workers, on_progress=on_progress)
    print_text(f"{target}: {written.videos} videos")
    if written.without_segment:
        print_text(
            f"{len(written.without_segment)} of them have no segment, because their frames are unknown: the files are "
            "missing or damaged (listed below); 3D-ResNets cannot load those entries"
        )
    _exit_if_failed(written.without_segment)


@data_app.command("synth")
def synth(
    target: Annotated[Path, typer.Argument(metavar="TARGET", help="The folder to write.")],
    seed: Annotated[int, typer.Option(help="Seed of everything in it.")] = 0,
    clips_per_class: Annotated[int, typer.Option(help="Training clips of each class.")] = 96,
) -> None:
    """Write the synthetic data set `motions`: H.264 files whose classes differ only in their motion."""
    from bench.data.datasets.motions import MotionsParameters, write_motions

    print_text(f"written: {write_motions(target, MotionsParameters(seed=seed, clips_per_class=clips_per_class))}")


@data_app.command("bench")
def time_loading(
    dataset: Dataset,
    split: Split = "train",
    clip: Annotated[str, typer.Option(help="frames x stride x size.")] = "16x1x112",
    wanted: Annotated[
        float | None, typer.Option(min=0, callback=finite, help="Clips per second that training needs.")
    ] = None,
    root: Root = None,
    option: Options = None,
) -> None:
    """Time decoding, transforms, collating and copying separately, and compute how many workers a rate needs."""
    from bench.core.schema import clip_from_text
    from bench.data.loading_stages import time_stages
    from bench.data.transforms import Augmentation

    size = clip_from_text(clip)
    found = time_stages(
        _open(dataset, split, root, option), clip=size, augmentation=Augmentation(), wanted_clips_per_s=wanted
    )
    rows = [(stage, None if ms is None else f"{ms:.2f}") for stage, ms in found.ms.items()]
    print_table(("stage", "ms per clip"), rows, right=("ms per clip",))
    print_text(f"one worker gives {found.clips_per_s:.1f} clips/s, measured over {found.clips} clips")
    if found.workers_for_wanted is not None:
        print_text(f"{wanted:g} clips/s need {found.workers_for_wanted} workers")
    _exit_if_failed(found.failed)


def _open(dataset: str, split: str, root: Path | None, option: list[str] | None) -> "VideoSet":
    from bench.data.collection import open_dataset

    return open_dataset(dataset, root=root, split=split, **dataset_options(option))


def _folders(what: str, root: Path | None, option: list[str] | None) -> tuple[Path, ...]:
    """Return the folders of the data set `what`, or the folder `what` if it exists and no option names a data set."""
    from bench.core.errors import InputError, suggest
    from bench.core.files import path_hint
    from bench.core.registry import DATASETS
    from bench.data.collection import folders_of_dataset

    if root is not None or option:
        return folders_of_dataset(what, root=root, **dataset_options(option))
    if Path(what).is_dir():
        return (Path(what),)
    if what in DATASETS:
        return folders_of_dataset(what)
    hint = path_hint(what) or f"; {suggest(what, DATASETS.names())}"
    raise InputError(f"{what} is neither a folder nor a data set{hint}")


def _prepare(prepare: Callable[..., Any], source: Path, target: Path, **options: Any) -> None:
    """Run a preparing function with a progress bar and print its summary."""
    with _progress_bar("videos") as on_progress:
        found = prepare(source, target, on_progress=on_progress, **options)
    print_text(
        f"{found.written} written, {found.skipped} were there, {len(found.failed)} failed, in {found.seconds:.0f} s"
    )
    _exit_if_failed(found.failed)


def _exit_if_failed(failed: "tuple[Failed, ...]") -> None:
    """Print what failed and why, and end the command with exit code 3 if anything did."""
    for each in failed:
        print_text(f"failed: {each.what}: {each.reason}")
    if failed:
        raise typer.Exit(3)


@contextmanager
def _progress_bar(what: str) -> Iterator["OnProgress"]:
    """Show a bar on standard error while videos are processed; nothing on a pipe."""
    with progress_bar(what) as advance:
        yield lambda progress: advance(progress.done, progress.total) if advance else None
