"""The command `profile`: counts one or more models and prints their costs."""

import sys
from collections.abc import Mapping, Sequence
from csv import DictWriter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from bench.cli.arguments import (
    AsJson,
    Entry,
    ModelArguments,
    WaitIdle,
    check_entry,
    check_writable,
    model_arguments,
    wait_idle_seconds,
)
from bench.cli.console import console, print_json, print_note, print_table, print_text, progress_bar
from bench.cli.profile_table import (
    TableFormat,
    as_csv,
    as_latex,
    as_markdown,
    check_sort,
    sorted_profiles,
    terminal_table,
)
from bench.core.doubts import value_text
from bench.core.errors import InputError, UnknownNameError
from bench.core.files import require_writable_folder
from bench.core.schema import Json
from bench.core.units import format_value

if TYPE_CHECKING:
    from bench.profiling import Profile


def profile(
    model: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL...",
            help="Names from `vbench models`, source:name or file.py:factory. Several give one table.",
        ),
    ],
    shape: Annotated[
        str | None,
        typer.Option("--input", metavar="BxCxTxHxW", help="Input shape, such as 1x3x16x112x112; several by commas."),
    ] = None,
    num_classes: Annotated[int | None, typer.Option(help="Classes; the model's own default if not given.")] = None,
    arg: ModelArguments = None,
    layout: Annotated[
        Literal["BCTHW", "BTCHW"] | None,
        typer.Option(help="Order of a model's own input; --input is BxCxTxHxW in both cases."),
    ] = None,
    weights: Annotated[Path | None, typer.Option(help="A checkpoint to load.")] = None,
    entry: Entry = None,
    device: Annotated[
        str | None, typer.Option(help="Device of the counted model: meta (default), cpu or cuda.")
    ] = None,
    counters: Annotated[
        str, typer.Option(help="Counters to compare: all, or a list of torch, fvcore, thop, ptflops.")
    ] = "torch",
    views: Annotated[
        str, typer.Option("--views", help="Views of one video that are counted together, such as 10x3.")
    ] = "1x1",
    layers: Annotated[bool, typer.Option("--layers", help="Also a table of the model's modules.")] = False,
    speed: Annotated[
        bool,
        typer.Option(
            "--speed", help="Also measure latency, throughput and memory here, about 20 seconds for each model."
        ),
    ] = False,
    wait_idle: WaitIdle = None,
    sort: Annotated[
        str | None,
        typer.Option(
            "--sort",
            metavar="COLUMN",
            help="Order of several models, best first: model, params, macs, memory, training_memory, activations, "
            "train_step; with --speed latency, throughput. -COLUMN reverses it.",
        ),
    ] = None,
    form: Annotated[
        TableFormat | None, typer.Option("--format", help="Format of the table; table if not given.")
    ] = None,
    as_json: AsJson = False,
    csv: Annotated[Path | None, typer.Option("--csv", help="Write the table of modules to this file.")] = None,
    html: Annotated[Path | None, typer.Option("--html", help="Write the modules as a page into this folder.")] = None,
) -> None:
    """Count parameters, MACs and memory of one model, or of several in one table."""
    models = list(dict.fromkeys(model))
    if as_json and form not in (None, "json"):
        raise InputError(f"--json prints JSON and --format {form} does not; give one of them")
    wanted: TableFormat = "json" if as_json else form or "table"
    check_sort(sort, with_speed=speed)
    counted_by, arguments = _counters(counters), model_arguments(arg)
    if layout is not None:
        if "layout" in arguments:
            raise InputError(f"layout is given twice, as {layout} and {arguments['layout']!r}")
        arguments["layout"] = layout
    wait_idle_s = wait_idle_seconds(wait_idle)
    if len(models) > 1:
        per_model = {"--weights": weights, "--entry": entry, "--csv": csv, "--html": html}
        per_table = {"--layers": layers, "--counters": counted_by != ["torch"]}
        _require_one_model(models, {**per_model, **(per_table if wanted != "json" else {})})
    check_entry(entry, weights)
    if csv is not None:
        check_writable(csv)
    if html is not None:
        require_writable_folder(html)
    found = _count_models(
        models,
        shape,
        num_classes=num_classes,
        arguments=arguments,
        weights=weights,
        entry=entry,
        device=device,
        counters=counted_by,
        views=views,
        with_speed=speed,
        wait_idle_s=wait_idle_s,
        on_wait=print_note,
    )
    _show_profiles(sorted_profiles(found, sort), wanted=wanted, with_layers=layers)
    _write_layers(found[0], csv=csv, html=html)


def _count_models(models: Sequence[str], shape: str | None, **options: Any) -> "list[Profile]":
    """Profile each model with the same options. With several, a bar shows the progress and errors name the model."""
    from bench.profiling import profile as profile_model

    if len(models) == 1:
        return [profile_model(models[0], shape, **options)]
    found = []
    with progress_bar("counting models") as advance:
        for number, model in enumerate(models):
            if advance is not None:
                advance(number, len(models))
            try:
                found.append(profile_model(model, shape, **options))
            except InputError as error:
                raise InputError(str(error) if model in str(error) else f"{model}: {error}") from error
    return found


def _require_one_model(models: Sequence[str], options: Mapping[str, object]) -> None:
    """Raise InputError if an option that concerns a single model is given with several."""
    given = [name for name, value in options.items() if value]
    if given:
        needs = "needs" if len(given) == 1 else "need"
        raise InputError(f"{' and '.join(given)} {needs} a single model; found {len(models)}: {', '.join(models)}")


def _show_profiles(found: "Sequence[Profile]", *, wanted: TableFormat, with_layers: bool) -> None:
    """Print one model in detail or several as a table; other formats print the table for one model as well."""
    if wanted == "json":
        plain = [each.as_dict(with_layers=with_layers) for each in found]
        print_json(plain[0] if len(plain) == 1 else plain)
    elif wanted == "table" and len(found) == 1:
        _show_profile(found[0], with_layers=with_layers)
    elif wanted == "table":
        heads, rows, right = terminal_table(found, width=console.width if console.is_terminal else None)
        print_table(heads, rows, right=right)
        print_text(found[0].convention)
        for each in found:
            for note in (*each.notes, *each.speed_notes):
                print_text(f"{each.model}: {note}")
    else:
        sys.stdout.write({"md": as_markdown, "csv": as_csv, "latex": as_latex}[wanted](found))
    if wanted != "json" and (wanted != "table" or len(found) > 1):
        for each in found:
            if each.uncounted_operators:
                names = ", ".join(each.uncounted_operators)
                print_note(f"{each.model}: INCOMPLETE, a lower bound: no formula for {names}")


def _counters(text: str) -> list[str]:
    known = ["torch", "fvcore", "thop", "ptflops"]
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if name not in (*known, "all"):
            raise UnknownNameError("counter", name, [*known, "all"])
    return known if "all" in names else names


def _show_profile(found: "Profile", *, with_layers: bool) -> None:
    """Print the values of one model, their convention, and what to know about them."""
    print_text(f"{found.model} at {', '.join('x'.join(map(str, shape)) for shape in found.inputs)}")
    print_table(("", "", ""), list(_rows(found)), right=("",))
    print_text(found.convention)
    for note in (*found.notes, *found.speed_notes):
        print_text(f"note: {note}")
    if found.uncounted_operators:
        names = ", ".join(f"{name} ({calls} calls)" for name, calls in found.uncounted_operators.items())
        print_text(f"INCOMPLETE, a lower bound: no formula for {names}")
    if found.never_called:
        print_text(f"parameters that no operator read: {', '.join(found.never_called)}")
    if found.published:
        _show_published(found)
    if found.counter_reports:
        _show_counters(found)
    if with_layers:
        print_text("")
        _show_layers(found)


def _rows(found: "Profile") -> Sequence[tuple[str, str | None, str | None]]:
    rows = [
        ("params", _number(found.params), None if found.params is None else format_value(found.params, "elements")),
        ("MACs, forward", f"{found.macs:,}", f"{found.macs / 1e9:.3f} GMACs"),
        ("FLOPs, forward", f"{found.flops:,}", f"{found.flops / 1e9:.3f} GFLOPs"),
    ]
    if found.views != "1x1":
        rows.append(
            (
                f"MACs, video of {found.views} views",
                f"{found.macs_per_video:,}",
                f"{found.macs_per_video / 1e9:.3f} GMACs",
            )
        )
    if found.macs_train_step is not None:
        rows.append(("MACs, train step", f"{found.macs_train_step:,}", f"{found.macs_train_step / 1e9:.3f} GMACs"))
    memory = (("inference", found.memory_inference_bytes), ("training", found.memory_training_bytes))
    for what, size in memory:
        if size is not None:
            rows.append((f"peak memory, {what} (at least)", f"{size:,}", format_value(size, "B")))
    rows.append(("activations written", f"{found.activation_bytes:,}", format_value(found.activation_bytes, "B")))
    rows += [
        (metric.key, "", value_text(metric, doubts=found.speed_doubts.get(metric.key, ()), interval=metric.interval))
        for metric in found.speed
        if metric.value is not None
    ]
    return rows


def _show_counters(found: "Profile") -> None:
    """Print what each counter reports, the part that should equal ours, and why it differs."""
    print_text("")
    rows = [
        (
            w["tool"],
            w["version"],
            _number(w["printed"]),
            _number(w["comparable"]),
            _number(w["difference"]),
            w["verdict"],
        )
        for w in found.counter_reports
    ]
    columns = ("counter", "version", "prints", "of which products", "minus ours", "verdict")
    print_table(columns, rows, right=columns[2:5])
    for report in found.counter_reports:
        print_text(f"{report['tool']} counts {report['convention']}")
        if report["verdict"] == "unexplained":
            print_text(f"  UNEXPLAINED, do not quote either value until it is: {report['why']}")
        elif report["why"]:
            print_text(f"  {report['verdict']}: {report['why']}")


def _show_published(found: "Profile") -> None:
    """Print published costs of this model and our count at the publisher's clip, each value once."""
    print_text("")
    rows = {
        (
            row["source"] if row["status"] == "published" else f"{row['source']} ({row['status']})",
            row["clip"],
            f"{row['printed']:g}",
            f"{row['counted']:.3f}",
            f"{row['relative_difference']:+.1%}",
            "agrees" if row["agrees"] else "explained" if row["explanation"] else "not explained",
        ): row["explanation"]
        for row in found.published
    }
    columns = ("published by", "at clip", "GMACs printed", "counted here", "difference", "")
    print_table(columns, list(rows), right=columns[2:5])
    for (source, clip, printed, *_), why in rows.items():
        if why:
            print_text(f"{printed} of {source} at {clip}: {why}")


def _number(value: Json) -> str | None:
    return f"{value:,}" if isinstance(value, int | float) else None


def _show_layers(found: "Profile") -> None:
    rows = [
        (
            "  " * layer.path.count(".") * bool(layer.path) + (layer.path.rsplit(".", 1)[-1] or found.model),
            layer.type,
            f"{layer.macs / 1e6:.2f}",
            f"{layer.share:.1%}",
            f"{layer.params:,}",
            f"{layer.activation_bytes:,}",
            "–" if layer.flops_per_byte is None else f"{layer.flops_per_byte:.1f}",
        )
        for layer in found.layers
    ]
    columns = ("module", "type", "MMACs", "share", "params", "bytes written", "FLOPs/byte")
    print_table(columns, rows, right=columns[2:])


def _write_layers(found: "Profile", *, csv: Path | None, html: Path | None) -> None:
    """Write the table of modules as a CSV file and as a page, if they are asked for."""
    rows = [layer.model_dump() for layer in found.layers]
    if csv is not None:
        with csv.open("w", newline="", encoding="utf-8") as file:
            writer = DictWriter(file, fieldnames=list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    if html is not None:
        from bench.reporting.layer_page import write_layer_page

        inputs = ", ".join("x".join(map(str, shape)) for shape in found.inputs)
        page = write_layer_page(rows, out=html, model=found.model, inputs=inputs, convention=found.convention)
        print_note(f"page: {page}")
