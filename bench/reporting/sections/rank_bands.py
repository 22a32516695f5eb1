"""Ranks by accuracy as bands: models that a paired test on the same videos cannot separate share them."""

from collections import defaultdict
from typing import TYPE_CHECKING

from bench.core.errors import InputError
from bench.core.registry import register_section
from bench.core.units import DASH, plural
from bench.reporting.rendering import render
from bench.reporting.results import Results
from bench.reporting.table import ColumnHead, Table, TableCell, TableRow

if TYPE_CHECKING:
    from bench.reporting.case_results import CaseResult
    from bench.train.predictions import Predictions
    from bench.train.rank_bands import Ranking

MOST_MODELS = 60  # of one table: the pairs grow with the square
HEADS = (
    ColumnHead(name="Case"),
    ColumnHead(name="Rank", is_number=True, meaning="one more than the number of models that are surely better"),
    ColumnHead(name="Top-1", unit="%", is_number=True, meaning="with its 95 % interval"),
)
TEMPLATE = """
<p>Every pair of trained models is compared on the same videos by McNemar's exact test, corrected by Holm for the number
of pairs. Models that cannot be told apart share their ranks. This is about these trained models: another training of
the same recipe may differ as much.</p>
{% for table in tables %}{{ table }}{% endfor %}
{% if left_out %}<p class="muted">{{ left_out }} more cases have predictions; compare them with
<code>vbench predictions A B C</code>.</p>{% endif %}
"""


@register_section("rank-bands", title="Ranks by accuracy", order=14, page="board")
def show_ranks(results: Results) -> str | None:
    """A table of ranks for each set of videos that several cases were evaluated on."""
    groups, left_out = _groups(results)
    tables = []
    for number, (videos, members) in enumerate(groups):
        ranking = _ranking([found for _, found in members])
        if ranking is not None:
            cases = [(case.case.title, results.links.page(results.case_names[id(case)])) for case, _ in members]
            tables.append(_table(ranking, cases, name=f"rank-bands-{number}", caption=videos).html())
    return render(TEMPLATE, tables=tables, left_out=left_out) if tables else None


def _groups(results: Results) -> "tuple[list[tuple[str, list[tuple[CaseResult, Predictions]]]], int]":
    """Cases with their predictions by the videos they were evaluated on, if there are several; and those left out."""
    from bench.train.predictions import read_predictions

    by_videos: dict[tuple[str, str], list[CaseResult]] = defaultdict(list)
    for case in results.cases:
        protocol = case.runs[-1].details.get("protocol") if case.runs else None
        if isinstance(protocol, dict) and results.artifact(case.runs[-1], "predictions") is not None:
            name = f"{protocol.get('dataset')} {protocol.get('split')}"
            by_videos[name, str(protocol.get("videos_hash"))].append(case)
    groups, left_out = [], 0
    for (name, _), cases in by_videos.items():
        members = []
        for case in cases[:MOST_MODELS] if len(cases) > 1 else []:
            file = results.artifact(case.runs[-1], "predictions")
            try:
                found = None if file is None else read_predictions(file)
            except InputError:  # another version of vbench may have written it
                continue
            if found is not None:
                members.append((case, found))
        if len(members) > 1:
            groups.append((f"{plural(len(members), 'model')} on {name}", members))
            left_out += len(cases[MOST_MODELS:])
    return groups, left_out


def _ranking(found: "list[Predictions]") -> "Ranking | None":
    """None if the models did not score the same videos, such as when one could not read some."""
    from bench.train.rank_bands import rank_models

    try:
        return rank_models(found)
    except InputError:
        return None


def _table(ranking: "Ranking", cases: list[tuple[str, str]], *, name: str, caption: str) -> Table:
    """`cases` are titles, and the addresses of their pages."""
    rows = []
    for band in ranking.bands:
        value, low, high = (100 * each for each in (band.top1.value, band.top1.low, band.top1.high))
        title, page = cases[band.place]
        cells = (
            TableCell(text=title, href=page),
            TableCell(text=band.text, sort=band.best),
            TableCell(text=f"{value:.1f}", sort=value, below=f"{low:.1f}{DASH}{high:.1f}", low=low, high=high),
        )
        rows.append(TableRow(cells=cells))
    return Table(name=name, caption=caption, heads=HEADS, rows=tuple(rows))
