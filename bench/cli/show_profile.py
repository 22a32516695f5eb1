"""The output of `vbench profile`."""

from collections.abc import Sequence

from bench.cli.console import print_table, print_text
from bench.core.schema import Json
from bench.core.units import format_value
from bench.profiling import Profile


def show_profile(found: Profile, *, with_layers: bool) -> None:
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


def _rows(found: Profile) -> Sequence[tuple[str, str | None, str | None]]:
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
        (metric.key, "", format_value(metric.value, metric.unit)) for metric in found.speed if metric.value is not None
    ]
    return rows


def _show_counters(found: Profile) -> None:
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


def _show_published(found: Profile) -> None:
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


def _show_layers(found: Profile) -> None:
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
