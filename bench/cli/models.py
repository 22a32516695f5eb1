"""The command `models`: lists models with counted costs, or shows one."""

from collections.abc import Sequence
from typing import Annotated

import typer

from bench.cli.arguments import AsJson
from bench.cli.console import print_json, print_table, print_text, progress_bar
from bench.core.schema import ModelCheck, ModelInfo


def models(
    pattern: Annotated[str, typer.Argument(metavar="[PATTERN|show]", help="A pattern such as 'resnet3d*'.")] = "*",
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="With show: the model.")] = None,
    as_json: AsJson = False,
) -> None:
    """List models with counted parameters and MACs; `vbench models show NAME` shows one in full."""
    from bench.catalog.catalog import Catalog, model_as_dict, model_rows

    if pattern == "show" and name is None:
        raise typer.BadParameter("`vbench models show` needs the name of a model")
    wanted = name if pattern == "show" and name is not None else pattern
    with progress_bar("counting models") as advance:
        rows = model_rows(wanted, Catalog(on_progress=advance))
    if as_json:
        found = [model_as_dict(model, probe) for model, probe in rows]
        print_json(found[0] if pattern == "show" else found)
    elif pattern == "show":
        _show_model(*rows[0])
    else:
        _show_models(rows)


def _show_models(rows: Sequence[tuple[ModelInfo, ModelCheck]]) -> None:
    """Print a table of models with their counts, and why some were not counted."""
    print_table(
        ("model", "family", "clip", "params M", "GMACs", "paper"),
        [
            (model.name, model.family, model.clip, _scaled(probe.params, 1e6), _scaled(probe.macs, 1e9), model.paper)
            for model, probe in rows
        ],
        right=("params M", "GMACs"),
    )
    print_text(f"{len(rows)} models. Counts: batch 1, at the clip shown (frames x stride x size); 1 MAC = 2 FLOPs.")
    for model, probe in rows:
        if probe.problem or probe.note:
            print_text(f"  {model.name} was not counted: {probe.problem or probe.note}")


def _show_model(model: ModelInfo, probe: ModelCheck) -> None:
    """Print everything that is known of one model."""
    print_text(f"{model.name}: {model.summary}")
    facts = {
        "family": model.family,
        "paper": model.paper or None,
        "default clip": model.clip,
        "params": None if probe.params is None else f"{probe.params:,}",
        "MACs": None if probe.macs is None else f"{probe.macs:,} (forward, batch 1, at the default clip)",
    }
    print_table(("", ""), list(facts.items()))
    print_text("arguments:")
    print_table(("name", "default"), [(name, repr(default)) for name, default in model.arguments.items()])
    if probe.problem or probe.note:
        print_text(f"not counted: {probe.problem or probe.note}")


def _scaled(value: int | None, unit: float) -> str | None:
    return None if value is None else f"{value / unit:.2f}"
