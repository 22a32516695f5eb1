"""The command `init`: inspects a model and a data set, writes a suite for them, and plans it."""

from pathlib import Path
from shlex import join
from typing import Annotated

import typer

from bench.cli.arguments import ModelArguments, check_writable, dataset_options, model_arguments
from bench.cli.console import print_text
from bench.cli.suite_commands import show_plan
from bench.core.errors import InputError

LISTS = (".csv", ".tsv", ".txt")


def init(
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="[MODEL]", help="A model's name, file.py or module:factory; else the one that a file here defines."
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Argument(metavar="[DATA]", help="A folder of videos, a list of paths and labels, or a data set's name."),
    ] = None,
    arg: ModelArguments = None,
    option: Annotated[
        list[str] | None, typer.Option("--option", metavar="NAME=VALUE", help="An option of the data set.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", help="The suite file; named after both if not given.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a suite file that exists.")] = False,
) -> None:
    """Inspect a model and a data set, write a commented suite for both, and plan it.

    The code of the model runs. Videos without splits get a list in which every fifth video of a class is evaluated.
    """
    from bench.catalog.catalog import Catalog
    from bench.drafting.found_model import find_model
    from bench.drafting.found_videos import find_videos, looks_like_videos, write_list
    from bench.drafting.suite_text import suite_name, suite_text
    from bench.runner.running import plan
    from bench.suite import read_suite

    if model is not None and data is None and (Path(model).is_dir() or Path(model).suffix.lower() in LISTS):
        model, data = None, model
    if data is None and option:
        raise InputError("--option is of a data set, and none is given; name it after the model")
    if data is None and looks_like_videos(Path()):
        data = "."
    arguments, options = model_arguments(arg), dataset_options(option)
    if out is not None:
        _check_new(out, force=force)
    found = find_model(model, Catalog(), arguments=arguments)
    name = suite_name(found.name, data) if out is None else suite_name(out.stem)
    file = out or Path(f"{name}.yaml")
    list_file = _check_new(file, force=force)
    videos = None if data is None else find_videos(data, list_file=list_file, options=options)
    # Printed once nothing is left that may be wrong, since a model above an error would look like a result.
    print_text(
        f"model: {found.name}" + (f" at {found.clip}, since {found.remark}" if found.remark else f" at {found.clip}")
    )
    given = [each for each in (model, data) if each is not None]
    text = suite_text(found, videos, name=name, command=join(["vbench", "init", *given]))
    if videos is not None and videos.new_list:
        print_text(f"list: {write_list(list_file, videos.new_list)}")
    file.write_text(text, encoding="utf-8")
    print_text(f"suite: {file}")
    show_plan(plan(read_suite(file)))
    print_text(f"next: vbench run {file}")


def _check_new(file: Path, *, force: bool) -> Path:
    """Return the list file of the suite `file`; raises InputError if one of them exists or cannot be written."""
    list_file = file.with_suffix(".videos.csv")
    for each in (file, list_file):
        if each.exists() and not force:
            raise InputError(f"{each} exists; name another file with --out, or replace it with --force")
    check_writable(file)
    return list_file
