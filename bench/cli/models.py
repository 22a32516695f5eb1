"""The commands about models: count one, list them, inspect a checkpoint."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bench.cli.arguments import Entry

if TYPE_CHECKING:
    from bench.profiling import Profile

Model = Annotated[str, typer.Argument(metavar="MODEL", help="A name from `vbench models`, or source:name.")]
ModelArguments = Annotated[list[str] | None, typer.Option("--arg", metavar="NAME=VALUE", help="A model argument.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]

weights_app = typer.Typer(no_args_is_help=True, help="Checkpoint files.")


def profile(
    model: Model,
    shape: Annotated[
        str | None,
        typer.Option("--input", metavar="BxCxTxHxW", help="Input shape, such as 1x3x16x112x112; several by commas."),
    ] = None,
    num_classes: Annotated[int | None, typer.Option(help="Classes; the model's own default if not given.")] = None,
    arg: ModelArguments = None,
    weights: Annotated[Path | None, typer.Option(help="A checkpoint to load.")] = None,
    entry: Entry = None,
    device: Annotated[str | None, typer.Option(help="Where to count: meta (default), or cpu, cuda.")] = None,
    counters: Annotated[
        str, typer.Option(help="torch, or all, or a list of torch, fvcore, thop, ptflops: who counts.")
    ] = "torch",
    views: Annotated[
        str, typer.Option("--views", help="Views of one video that are counted together, such as 10x3.")
    ] = "1x1",
    layers: Annotated[bool, typer.Option("--layers", help="Also a table of the model's modules.")] = False,
    speed: Annotated[
        bool, typer.Option("--speed", help="Also measure latency, throughput and memory here, in some 20 seconds.")
    ] = False,
    as_json: AsJson = False,
    csv: Annotated[Path | None, typer.Option("--csv", help="Write the table of modules to this file.")] = None,
    html: Annotated[Path | None, typer.Option("--html", help="Write the modules as a page into this folder.")] = None,
) -> None:
    """Count one model: parameters, MACs, memory."""
    from bench.cli.arguments import check_writable
    from bench.cli.console import print_json
    from bench.profiling import profile as profile_model

    if csv is not None:
        check_writable(csv)
    found = profile_model(
        model,
        shape,
        num_classes=num_classes,
        arguments=_arguments(arg or []),
        weights=weights,
        entry=entry,
        device=device,
        counters=_counters(counters),
        views=views,
        with_speed=speed,
    )
    if as_json:
        print_json(found.as_dict(with_layers=layers))
    else:
        from bench.cli.show_profile import show_profile

        show_profile(found, with_layers=layers)
    _write_layers(found, csv=csv, html=html)


def models(
    pattern: Annotated[str, typer.Argument(metavar="[PATTERN|show]", help="A pattern such as 'resnet3d*'.")] = "*",
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="With show: the model.")] = None,
    as_json: AsJson = False,
) -> None:
    """List models with counted parameters and MACs; `vbench models show NAME` tells all of one."""
    from bench.catalog.catalog import Catalog, model_as_dict, model_rows
    from bench.cli.console import print_json
    from bench.cli.show_models import counting_progress, show_model, show_models

    if pattern == "show" and name is None:
        raise typer.BadParameter("`vbench models show` needs the name of a model")
    wanted = name if pattern == "show" and name is not None else pattern
    with counting_progress() as advance:
        rows = model_rows(wanted, Catalog(on_progress=advance))
    if as_json:
        found = [model_as_dict(model, probe) for model, probe in rows]
        print_json(found[0] if pattern == "show" else found)
    elif pattern == "show":
        show_model(*rows[0])
    else:
        show_models(rows)


@weights_app.command("inspect")
def weights_inspect(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A checkpoint: .pth, .pt, .pyth, .safetensors.")],
    entry: Entry = None,
    as_json: AsJson = False,
) -> None:
    """Say what a checkpoint file is, and which model it fits."""
    from bench.cli.console import print_json
    from bench.cli.show_checkpoints import checkpoint_as_dict, show_checkpoint
    from bench.models.weights.identification import identify

    found = identify(file, entry=entry)
    if as_json:
        print_json(checkpoint_as_dict(found))
    else:
        show_checkpoint(found)


@weights_app.command("find")
def weights_find(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="A model, or a pattern of ids, sources and models: '*slowfast*'.")
    ],
    as_json: AsJson = False,
) -> None:
    """List published checkpoint files of a model, with the accuracies that their publishers print."""
    from bench.catalog.catalog import Catalog
    from bench.cli.console import print_json
    from bench.cli.show_checkpoints import show_zoo_files, zoo_file_as_dict
    from bench.reference.zoo_files import find_zoo_files

    found = find_zoo_files(model, families={each.name: each.family for each in Catalog().models.values()})
    if as_json:
        print_json([zoo_file_as_dict(file) for file in found])
    else:
        show_zoo_files(found, wanted=model)


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
    from bench.cli.console import print_json
    from bench.cli.show_checkpoints import download_as_dict, download_progress, show_download
    from bench.core.errors import InputError
    from bench.models.weights.download import download
    from bench.reference.zoo_files import zoo_file

    if address is not None and not address.startswith(("http://", "https://")):
        raise InputError(f"--from {address!r} is not an address that begins with http:// or https://")
    file = zoo_file(id_)
    with download_progress(file.file_name) as on_progress:
        found = download(file, out, url=address, on_progress=on_progress)
    if as_json:
        print_json(download_as_dict(file, found))
    else:
        show_download(file, found)


def _arguments(given: list[str]) -> dict[str, Any]:
    """The arguments of a model."""
    from bench.cli.arguments import named_values

    return named_values(given, flag="--arg", example="depth=50")


def _counters(text: str) -> list[str]:
    known = ["torch", "fvcore", "thop", "ptflops"]
    if text == "all":
        return known
    from bench.core.errors import UnknownNameError

    names = [name.strip() for name in text.split(",")]
    for name in names:
        if name not in known:
            raise UnknownNameError("counter", name, [*known, "all"])
    return names


def _write_layers(found: "Profile", *, csv: Path | None, html: Path | None) -> None:
    """The table of modules as a file, and as a page to look at."""
    from csv import DictWriter

    rows = [layer.model_dump() for layer in found.layers]
    if csv is not None:
        with csv.open("w", newline="", encoding="utf-8") as file:
            writer = DictWriter(file, fieldnames=list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    if html is not None:
        from bench.cli.console import print_note
        from bench.reporting.layer_page import write_layer_page

        inputs = ", ".join("x".join(map(str, shape)) for shape in found.inputs)
        page = write_layer_page(rows, out=html, model=found.model, inputs=inputs, convention=found.convention)
        print_note(f"page: {page}")
