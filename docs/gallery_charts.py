"""Saves the plotly figures of the gallery's examples as SVG, which needs neither a browser nor a script."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

STYLE = """<style>
.static-chart { background: #fff; font: 11px sans-serif; }
line { stroke: #ddd; }
text { fill: #555; }
polyline { fill: none; stroke: #b04a2f; stroke-width: 1.3; }
.even { fill: #777; }
.accent { fill: #b04a2f; }
.box { fill: #ddd; stroke: #222; }
.whisker, .median { stroke: #222; }
</style>"""


def save_figures(block: tuple[Any, ...], block_vars: dict[str, Any], gallery_conf: dict[str, Any]) -> str:
    """Save the figure that a block of an example made, once; returns the reStructuredText of the picture."""
    from sphinx_gallery.scrapers import figure_rst

    figure = block_vars["example_globals"].pop("figure", None)
    if figure is None:
        return ""
    path = Path(next(block_vars["image_path_iterator"])).with_suffix(".svg")
    path.write_text(svg(figure), encoding="utf-8")
    return str(figure_rst([str(path)], gallery_conf["src_dir"]))


def svg(figure: Any) -> str:
    """A plotly figure of points, lines or boxes as the text of an SVG file; raises ValueError for other figures."""
    from bench.reporting.static_chart import static_chart

    traces = [_plain_trace(trace, is_first=number == 0) for number, trace in enumerate(figure.data)]
    axes = {name: figure.layout[name].to_plotly_json() for name in ("xaxis", "yaxis")}
    titles = [str(axis.get("title", {}).get("text", "")) for axis in axes.values()]
    drawn = str(static_chart(traces, axes, alt=" against ".join(title for title in reversed(titles) if title)))
    if not drawn:
        raise ValueError("this figure has traces that cannot be drawn without plotly's script")
    head, _, rest = drawn.strip().partition(">")
    return f'{head} xmlns="http://www.w3.org/2000/svg">{STYLE}{rest}\n'


def _plain_trace(trace: Any, *, is_first: bool) -> dict[str, Any]:
    """A trace with lists instead of arrays. The first one has the quiet colour, because later ones explain it."""
    plain = dict(trace.to_plotly_json())
    for name in ("x", "y", "lowerfence", "q1", "median", "q3", "upperfence"):
        values = getattr(trace, name, None)
        if isinstance(values, Sequence) or hasattr(values, "tolist"):
            plain[name] = values.tolist() if hasattr(values, "tolist") else list(values)
    plain["text"] = [str(text) for text in trace.text] if trace.type == "scatter" and trace.text is not None else []
    plain.setdefault("mode", "markers" if plain["type"] == "scatter" else "")
    return plain | {"marker": {"color": "" if is_first else "accent"}}
