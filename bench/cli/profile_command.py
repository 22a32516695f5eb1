"""The command `profile`: counts one model at once, and prints what it costs."""

from collections.abc import Sequence
from csv import DictWriter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench.cli.arguments import AsJson, Entry, Model, ModelArguments, check_writable, model_arguments
from bench.cli.console import print_json, print_note, print_table, print_text
from bench.core.doubts import value_text
from bench.core.errors import UnknownNameError
from bench.core.schema import Json
from bench.core.units import format_value

if TYPE_CHECKING:
    from bench.profiling import Profile


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
        bool, typer.Option("--speed", help="Also measure latency, throughput and memory here, in some 20 seconds.")
    ] = False,
    as_json: AsJson = False,
    csv: Annotated[Path | None, typer.Option("--csv", help="Write the table of modules to this file.")] = None,
    html: Annotated[Path | None, typer.Option("--html", help="Write the modules as a page into this folder.")] = None,
) -> None:
    """Count one model: parameters, MACs, memory."""
    from bench.profiling import profile as profile_model

    if csv is not None:
        check_writable(csv)
    found = profile_model(
        model,
        shape,
        num_classes=num_classes,
        arguments=model_arguments(arg),
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
        _show_profile(found, with_layers=layers)
    _write_layers(found, csv=csv, html=html)


def _counters(text: str) -> list[str]:
    known = ["torch", "fvcore", "thop", "ptflops"]
    if text == "all":
        return known
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if name not in known:
            raise UnknownNameError("counter", name, [*known, "all"])
    return names


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
