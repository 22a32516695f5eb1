"""A page of one model's modules: MACs, parameters and bytes as zoomable charts and as a table."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.reporting.chart import Chart, escaped
from bench.reporting.rendering import DrawnSection, render
from bench.reporting.site import write_page
from bench.reporting.table import ColumnHead, Table, TableCell, TableRow

AMOUNTS = {
    "macs": ("MACs", "multiply-accumulates of the forward pass"),
    "params": ("parameters", "parameters; a shared one is counted at its first use"),
    "activation_bytes": ("bytes written", "bytes that the operators of the forward pass write"),
}
COLUMNS = ("macs", "params", "activation_bytes", "bytes_moved", "flops_per_byte")


def write_layer_page(
    layers: Sequence[Mapping[str, Any]], *, out: Path, model: str, inputs: str, convention: str
) -> Path:
    """Write a page of `layers` (module paths with their totals, the model first) and return its `index.html`."""
    charts = [_icicle(layers, amount) for amount in AMOUNTS if layers[0][amount]]
    sections = [
        DrawnSection(
            name="tree", title="Where it goes", html=render(_CHARTS, charts=[chart.html() for chart in charts])
        ),
        DrawnSection(name="modules", title="Every module", html=_table(layers).html()),
    ]
    return write_page(out, sections, title=model, description=f"At {inputs}. {convention}")


_CHARTS = "{% for chart in charts %}{{ chart }}{% endfor %}"


def _icicle(layers: Sequence[Mapping[str, Any]], amount: str) -> Chart:
    name, meaning = AMOUNTS[amount]
    shown = [layer for layer in layers if layer[amount]]
    trace = {
        "type": "icicle",
        "branchvalues": "total",
        "ids": [f"/{layer['path']}" for layer in shown],
        "parents": [_parent(layer["path"], shown) for layer in shown],
        "labels": [escaped(_label(layer)) for layer in shown],
        "values": [layer[amount] for layer in shown],
        "customdata": [escaped(layer["type"]) for layer in shown],
        "hovertemplate": "%{id}<br>%{customdata}<br>%{value:,} "
        + name
        + "<br>%{percentRoot:.1%} of all<extra></extra>",
        "textinfo": "label+percent root",
        "tiling": {"orientation": "v"},
    }
    caption = f"{name}: {meaning}. Click a module to zoom into it."
    return Chart(name=amount, traces=[trace], caption=caption, alt=caption, height_px=420)


def _label(layer: Mapping[str, Any]) -> str:
    """The module's name, with its type if the name is only a number."""
    name: str = layer["path"].rpartition(".")[2]
    return f"{name} {layer['type']}".strip() if name.isdigit() or not name else name


def _parent(path: str, shown: Sequence[Mapping[str, Any]]) -> str:
    """The id of the nearest module above `path` that is shown; none for the model itself."""
    if not path:
        return ""
    known = {layer["path"] for layer in shown}
    while path:
        path = path.rpartition(".")[0]
        if path in known:
            break
    return f"/{path}"


def _table(layers: Sequence[Mapping[str, Any]]) -> Table:
    heads = [ColumnHead(name="module"), ColumnHead(name="type")]
    heads += [ColumnHead(name=name.replace("_", " "), is_number=True, saved_as=name) for name in COLUMNS]
    lines = [
        TableRow(
            cells=(
                TableCell(text=layer["path"] or "(the model)"),
                TableCell(text=layer["type"]),
                *map(_number, _values(layer)),
            )
        )
        for layer in layers
    ]
    return Table(
        name="modules", caption="Totals of each module with all below it", heads=tuple(heads), rows=tuple(lines)
    )


def _values(layer: Mapping[str, Any]) -> list[Any]:
    return [layer[name] for name in COLUMNS]


def _number(value: float | None) -> TableCell:
    return (
        TableCell()
        if value is None
        else TableCell(text=f"{value:,.4g}" if isinstance(value, float) else f"{value:,}", sort=value)
    )
