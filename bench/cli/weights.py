"""The commands `weights …`: inspect a checkpoint file, export it, find published ones, download one."""

import shlex
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from bench.cli.arguments import AsJson, Entry, check_folder, check_writable
from bench.cli.console import errors, print_json, print_table, print_text
from bench.core.errors import InputError
from bench.core.units import format_value

if TYPE_CHECKING:
    from bench.models.weights.download import DownloadedFile
    from bench.models.weights.identification import CheckpointFacts, Fit
    from bench.reference.zoo_files import PublishedAccuracy, ZooFile

weights_app = typer.Typer(name="weights", no_args_is_help=True, help="Checkpoint files.")


@weights_app.command("inspect")
def weights_inspect(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A checkpoint: .pth, .pt, .pyth, .safetensors.")],
    entry: Entry = None,
    as_json: AsJson = False,
) -> None:
    """Say what a checkpoint file is, and which model it fits."""
    from bench.models.weights.identification import identify

    found = identify(file, entry=entry)
    if as_json:
        print_json(_checkpoint_as_dict(found))
    else:
        _show_checkpoint(found)


@weights_app.command("export")
def weights_export(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A checkpoint, or the state of an unfinished training.")],
    to: Annotated[str, typer.Option("--to", help="3d-resnets, torchvision, mmaction2 or safetensors.")],
    out: Annotated[Path | None, typer.Option("--out", help="The file to write; next to FILE if not given.")] = None,
    entry: Entry = None,
    as_json: AsJson = False,
) -> None:
    """Write a checkpoint in the format of another code base, to continue a training there."""
    from bench.train.exporting import export_weights

    if out is not None:
        check_writable(out)
    found = export_weights(file, to=to, out=out, entry=entry)
    if as_json:
        print_json({**asdict(found), "path": str(found.path), "notes": list(found.notes)})
        return
    epoch = "" if found.epoch is None else f" of epoch {found.epoch}"
    print_text(f"{found.path}: {found.tensors} tensors of {found.model}{epoch}, for {found.target}")
    for note in found.notes:
        print_text(note.replace("FILE", str(found.path)))


@weights_app.command("find")
def weights_find(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="A model, or a pattern of ids, sources and models: '*slowfast*'.")
    ],
    as_json: AsJson = False,
) -> None:
    """List published checkpoint files of a model, with the accuracies that their publishers print."""
    from bench.catalog.catalog import Catalog
    from bench.reference.zoo_files import find_zoo_files

    found = find_zoo_files(model, families={each.name: each.family for each in Catalog().models.values()})
    if as_json:
        print_json([_zoo_file_as_dict(file) for file in found])
    else:
        _show_zoo_files(found, wanted=model)


@weights_app.command("get")
def weights_get(
    id_: Annotated[str, typer.Argument(metavar="ID", help="An id from `vbench weights find`.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for the file.")] = Path("weights"),
    address: Annotated[
        str | None, typer.Option("--from", metavar="URL", help="Another address of the same file, such as a mirror.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Download a published checkpoint file, going on where an earlier download stopped, and check its printed hash."""
    from bench.models.weights.download import download
    from bench.reference.zoo_files import zoo_file

    if address is not None and not address.startswith(("http://", "https://")):
        raise InputError(f"--from {address!r} is not an address that begins with http:// or https://")
    check_folder(out)
    file = zoo_file(id_)
    with _download_progress(file.file_name) as on_progress:
        found = download(file, out, url=address, on_progress=on_progress)
    if as_json:
        print_json(_download_as_dict(file, found))
    else:
        _show_download(file, found)


def _show_checkpoint(found: "CheckpointFacts") -> None:
    """Print what a file is, how to load it, and how to choose if several models have its weights."""
    from bench.models.weights.identification import HOW_TO_CHOOSE

    facts = _checkpoint_as_dict(found)
    rows = [
        (name.replace("_", " "), value)
        for name, value in facts.items()
        if name not in ("fits", "undecided", "facts", "input_protocol")
    ]
    rows += [(name, value) for name, value in found.facts.items()]
    print_table(("", ""), [(name, _shown(name, value)) for name, value in rows if value not in (None, "", [])])
    if not found.fits:
        print_text("no model here has these weights")
    for fit in found.fits:
        print_text(f"fits {fit.model}: vbench profile {fit.model}{_flags(fit)} --weights {found.path}")
        # What differs between the fits has a line of its own below.
        for name in (name for name in fit.assumed if name not in facts["undecided"]):
            usual = fit.settings[name]
            print_text(
                f"weights do not show {name} of {fit.model}: {usual} is usual, give another by --arg {name}=VALUE"
            )
    for name, values in facts["undecided"].items():
        listed = ", ".join(f"{value} in {model}" for model, value in values.items())
        how = HOW_TO_CHOOSE.get(name, "take the model that was trained")
        print_text(f"weights do not show {name}, which is {listed}; {how}")


def _checkpoint_as_dict(found: "CheckpointFacts") -> dict[str, Any]:
    """Return the facts as plain data, for `--json`."""
    from bench.models.weights.identification import undecided

    return {
        "path": str(found.path),
        "sha256": found.sha256,
        "bytes": found.n_bytes,
        "container": found.container,
        "prefix": found.prefix,
        "weights": found.n_weights,
        "parameters": found.parameters,
        "dtypes": list(found.dtypes),
        "num_classes": found.num_classes,
        "facts": dict(found.facts),
        "ignored": list(found.ignored),
        "entry": found.entry,
        "other_entries": list(found.other_entries),
        "problem": found.problem,
        "input_protocol": found.input_protocol.as_detail(),
        "fits": [
            {
                "model": fit.model,
                "family": fit.family,
                "arguments": dict(fit.arguments),
                "has_head": fit.has_head,
                "assumed": list(fit.assumed),
            }
            for fit in found.fits
        ],
        "undecided": undecided(found.fits),
    }


def _shown(name: str, value: Any) -> str:
    if name == "bytes":
        return format_value(value, "B")
    return f"{value:,}" if isinstance(value, int) else ", ".join(value) if isinstance(value, list) else str(value)


def _flags(fit: "Fit") -> str:
    """The arguments of a fit as flags of `vbench profile`."""
    flags = [
        f" --num-classes {value}" if k == "num_classes" else f" --arg {shlex.quote(f'{k}={value}')}"
        for k, value in fit.arguments.items()
    ]
    return "".join(flags)


def _show_zoo_files(found: "Sequence[ZooFile]", *, wanted: str) -> None:
    """Print published files: id, model, training data, hash and the first published accuracy."""
    if not found:
        print_text(f"no published file of {wanted} is known")
        return
    rows = [
        (
            file.id,
            file.model or None,
            file.trained_on,
            file.num_classes,
            file.printed_hash[:8] or None,
            *_accuracy(file),
        )
        for file in found
    ]
    columns = ("id", "model", "trained on", "classes", "hash", "top-1 %", "top-5 %", "on", "clip, views")
    print_table(columns, rows, right=("classes", "top-1 %", "top-5 %"))
    print_text("download one: vbench weights get ID")


def _accuracy(file: "ZooFile") -> tuple[float | None, float | None, str | None, str | None]:
    """The printed accuracy on the data set that the file was trained on, else the first one; None if there is none."""
    printed = file.accuracies
    own: PublishedAccuracy | None = next(
        (each for each in printed if file.trained_on.startswith(each.dataset)), printed[0] if printed else None
    )
    if own is None:
        return None, None, None, None
    return own.top1, own.top5, own.dataset, ", ".join(part for part in (own.clip, own.views) if part)


def _zoo_file_as_dict(file: "ZooFile") -> dict[str, Any]:
    """Return a published file as plain data; `accuracies` is null if none is printed for it."""
    plain = {**asdict(file), "num_classes": file.num_classes}
    empty_as_null = {name: value if value != "" else None for name, value in plain.items()}
    accuracies = [asdict(each) for each in file.accuracies]
    return {**empty_as_null, "accuracies": accuracies or None, "needs_browser": bool(file.needs_browser)}


@contextmanager
def _download_progress(name: str) -> "Iterator[Callable[[int, int | None], None]]":
    """Show bytes, rate and remaining time of a download on standard error, if that is a terminal."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=errors, transient=True, disable=not errors.is_terminal) as bar:
        task = bar.add_task(name, total=None)

        def show(received: int, total: int | None) -> None:
            bar.update(task, completed=received, total=total)

        yield show


def _show_download(file: "ZooFile", found: "DownloadedFile") -> None:
    """Print where the file is, whether it is the published one, and what to do with it."""
    print_text(f"{found.path}{' was there already' if found.was_there else ''}: {format_value(found.n_bytes, 'B')}")
    print_text(f"sha256 {found.sha256}: {found.verification}")
    if file.note:
        print_text(f"note: {file.note}")
    print_text(f"show its contents: vbench weights inspect {found.path}")


def _download_as_dict(file: "ZooFile", found: "DownloadedFile") -> dict[str, Any]:
    """Return the same as plain data."""
    return {"id": file.id, "model": file.model or None, **asdict(found), "path": str(found.path)}
