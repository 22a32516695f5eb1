"""The command `models`: lists models of vbench and of other packages with counted costs, or shows one."""

import fnmatch
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, get_args

import typer

from bench.cli.arguments import AsJson, finite
from bench.cli.console import print_json, print_table, print_text, progress_bar
from bench.core.errors import InputError, UnknownNameError
from bench.core.schema import Task
from bench.core.units import plural

if TYPE_CHECKING:
    from bench.catalog.listing import ListedModel, ModelFilter

FIRST_YEAR, LAST_YEAR = 1900, 2999


def models(
    pattern: Annotated[
        str,
        typer.Argument(
            metavar="[PATTERN|show]", help="A pattern such as 'resnet3d*', 'timm:*vit*' or 'torchvision:*'."
        ),
    ] = "*",
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="With show: the model.")] = None,
    family: Annotated[str | None, typer.Option(help="Only this family, or a pattern of families.")] = None,
    task: Annotated[str | None, typer.Option(help=f"Only models for: {', '.join(get_args(Task))}.")] = None,
    max_gmacs: Annotated[
        float | None, typer.Option(min=0, callback=finite, help="Only models of at most so many 1e9 MACs a clip.")
    ] = None,
    max_params: Annotated[
        float | None, typer.Option(min=0, callback=finite, help="Only models of at most so many million parameters.")
    ] = None,
    year: Annotated[
        str | None, typer.Option(metavar="YEARS", help="Only models of papers from 2021, 2019-2022, 2021- or -2018.")
    ] = None,
    has_weights: Annotated[
        bool, typer.Option("--has-weights", help="Only models of which published weights are known.")
    ] = False,
    count: Annotated[bool, typer.Option("--count", help="Count the models that have not been counted yet.")] = False,
    as_json: AsJson = False,
) -> None:
    """List models with counted parameters and MACs; `vbench models show NAME` shows one in full.

    A pattern with a source, such as 'timm:*vit*', lists models of other packages; without it, those of vbench.
    """
    from bench.catalog.catalog import Catalog
    from bench.catalog.listing import WILDCARDS, ModelFilter, matching_models, with_counts, with_known_facts
    from bench.catalog.listing import with_weights_known as with_weights

    if pattern == "show" and name is None:
        raise typer.BadParameter("`vbench models show` needs the name of a model")
    is_shown = pattern == "show" and name is not None
    if task is not None and task not in get_args(Task):
        raise UnknownNameError("task", task, get_args(Task))
    wanted = ModelFilter(
        family=family,
        task=next((each for each in get_args(Task) if each == task), None),
        max_macs=None if max_gmacs is None else 1e9 * max_gmacs,
        max_params=None if max_params is None else 1e6 * max_params,
        years=None if year is None else _years(year),
        has_weights=has_weights,
    )
    with progress_bar("counting models") as advance:
        catalog = Catalog(on_progress=advance)
        what = name if is_shown and name is not None else pattern
        found = matching_models(what, catalog)
        is_exact = is_shown or not WILDCARDS.search(what)
        found = with_counts(found, catalog) if count or is_exact else with_known_facts(found, catalog)
        found = with_weights(found, catalog) if has_weights or as_json or is_shown else found
    if is_shown:
        print_json(found[0].as_dict()) if as_json else _show_model(found[0])
        return
    families = {model.family for model in found}
    if family is not None and not fnmatch.filter(families, family):
        raise UnknownNameError("family", family, families)
    rows = [model for model in found if wanted.accepts(model)]
    if as_json:
        print_json([model.as_dict() for model in rows])
    else:
        _show_models(rows, found, wanted)
        _show_sources(pattern, rows)


def _years(text: str) -> tuple[int, int]:
    """The first and the last year of `2021`, `2019-2022`, `2021-` or `-2018`; raises InputError for anything else."""
    match = re.fullmatch(r"(\d{4})?(-)?(\d{4})?", text.strip())
    if match is None or not (match[1] or match[3]) or (match[1] and match[3] and not match[2]):
        raise InputError(f"--year {text!r} is not a year or a range of years, such as 2021, 2019-2022, 2021- or -2018")
    first = int(match[1]) if match[1] else FIRST_YEAR
    last = int(match[3]) if match[3] else LAST_YEAR if match[2] else first
    if first > last:
        raise InputError(f"--year {text!r}: {first} comes after {last}")
    return first, last


def _show_models(rows: "Sequence[ListedModel]", found: "Sequence[ListedModel]", wanted: "ModelFilter") -> None:
    """Print a table of models with their counts, and why some were not counted."""
    print_table(
        ("model", "family", "clip", "params M", "GMACs", "paper"),
        [
            (model.name, model.family, model.clip, _scaled(model.params, 1e6), _scaled(model.macs, 1e9), model.paper)
            for model in rows
        ],
        right=("params M", "GMACs"),
    )
    counts = "Counts: batch 1, at the clip shown (frames x stride x size); 1 MAC = 2 FLOPs."
    print_text(f"{plural(len(rows), 'model')}. {counts}")
    for model in rows:
        if model.count is not None and (why := model.count.problem or model.count.note):
            print_text(f"  {model.name} was not counted: {why}")
    uncounted = sum(model.count is None for model in found)
    if uncounted and wanted.needs_counts:
        print_text(f"{plural(uncounted, 'model')} left out, not counted yet; --count counts them")
    elif any(model.count is None for model in rows):
        print_text("A dash means not counted yet; --count counts the rest.")


def _show_sources(pattern: str, rows: "Sequence[ListedModel]") -> None:
    """Print the packages with more models: all of them after a full list, else those with a matching name."""
    from bench.catalog.listing import matches_elsewhere
    from bench.catalog.model_sources import model_sources

    if pattern == "*":
        print_text("")
        print_table(
            ("source", "installed", "models", "list them with", "what"),
            [
                (each.name, each.version or "no", len(each.families), f"vbench models '{each.pattern}'", each.about)
                for each in model_sources().values()
            ],
            right=("models",),
        )
        print_text("Your own code: package.module:factory, file.py:factory or file.py, wherever a model is named.")
    elif ":" not in pattern and not any(model.source for model in rows):
        for source, names in matches_elsewhere(pattern).items():
            some = ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
            print_text(
                f"{source} has {plural(len(names), 'match', 'matches')}: {some} (vbench models '{source}:{pattern}')"
            )


def _show_model(model: "ListedModel") -> None:
    """Print everything that is known of one model."""
    from bench.reference.published_speeds import speeds_of

    summary = model.info.summary if model.info is not None else ""
    print_text(f"{model.name}: {summary}")
    facts = {
        "family": model.family,
        "task": model.task,
        "paper": model.paper or None,
        "published weights": "yes" if model.has_weights else "none known",
        "default clip": model.clip,
        "params": None if model.params is None else f"{model.params:,}",
        "MACs": None if model.macs is None else f"{model.macs:,} (forward, batch 1, at the default clip)",
    }
    print_table(("", ""), list(facts.items()))
    for speed in speeds_of(model.name):
        print_text(f"published speed: {speed.printed} ({speed.conditions}), {speed.url}")
    if model.info is not None:
        print_text("arguments:")
        print_table(("name", "default"), [(name, repr(default)) for name, default in model.info.arguments.items()])
    if model.count is not None and (why := model.count.problem or model.count.note):
        print_text(f"not counted: {why}")


def _scaled(value: int | None, unit: float) -> str | None:
    return None if value is None else f"{value / unit:.2f}"
