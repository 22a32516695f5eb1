"""Ablations: the effect of each level of a factor, in pairs that are equal in everything else."""

from collections.abc import Mapping, Sequence
from typing import Any

from bench.core.registry import register_section
from bench.core.schema import Json
from bench.core.units import DASH, Scale, format_exact, plural
from bench.reporting.ablation import UNSET, Ablation, Effect, level_text
from bench.reporting.board import Column
from bench.reporting.findings import ablation_findings, difference_text, interval_text
from bench.reporting.level_charts import level_charts
from bench.reporting.metric_table import column_heading, scale_of_column
from bench.reporting.metric_text import axis_name, settings_text
from bench.reporting.rendering import render
from bench.reporting.results import Results
from bench.reporting.table import ColumnHead, Table, TableCell, TableRow

MOST_CONTEXTS = 24
MOST_CHARACTERS = 2_000_000  # of all tables
MANY_COMPARISONS = 10
MOST_FINDINGS = 5
TEMPLATE = """
{% for each in ablations %}
<h3>{{ each.title }}</h3>
{% for finding in each.findings %}
<p{% if loop.first %} class="finding"{% endif %}>{{ finding }}</p>
{% endfor %}
{% if each.not_listed %}<p>The table has {{ each.not_listed }} more levels.</p>{% endif %}
<div class="charts">
{% for chart in each.charts %}
{{ chart }}
{% endfor %}
</div>
{{ each.table }}
<p class="muted">{{ each.note }}</p>
{% if each.contexts %}
<details><summary>The same under each setting of the rest ({{ each.shown }})</summary>
{% for context in each.contexts %}
{{ context }}
{% endfor %}
{% if each.left_out %}<p>{{ each.left_out }} more settings are left out here.</p>{% endif %}
</details>
{% endif %}
{% endfor %}
"""
NOTE = (
    "A pair is the level and the baseline with the same seed and run, and with everything else equal. “No difference "
    "seen” means that the 95 % interval contains no difference (0, or ×1), not that there is none."
)

ONE_TRAINING = (
    "Levels that were trained once are compared on the videos that both evaluated (score interval of paired shares, "
    "Tango, 1998). That holds for these weights; how much trainings differ needs several seeds."
)


@register_section("ablation", title="Ablation", order=20, page="ablations")
def compare_levels(results: Results) -> str | None:
    """For every factor that a suite ablates: findings in words, charts with intervals, and a table of all levels."""
    if not results.ablations:
        return None
    names_suite = len(results.suites) > 1
    tables = sum(1 + min(MOST_CONTEXTS, len(ablation.contexts)) for ablation in results.ablations)
    shown = [
        _shown(a, f"factor-{i}", names_suite=names_suite, most_characters=MOST_CHARACTERS // tables)
        for i, a in enumerate(results.ablations, start=1)
    ]
    return render(TEMPLATE, ablations=shown)


def _shown(ablation: Ablation, name: str, *, names_suite: bool, most_characters: int) -> dict[str, Any]:
    contexts, factor = ablation.contexts, axis_name(ablation.factor)
    title = f"{factor}, against {ablation.baseline_text}"
    findings = ablation_findings(ablation)
    caption = f"Every level of {factor}, with its difference to the baseline"
    return {
        "title": f"{ablation.suite}: {title}" if names_suite else title,
        "findings": findings[:MOST_FINDINGS],
        "not_listed": max(0, len(findings) - MOST_FINDINGS),
        "charts": [chart.html() for chart in level_charts(ablation, name)],
        "table": ablation_table(ablation, name, caption=caption, has_means=not contexts).html(
            most_characters=most_characters
        ),
        "note": _note(ablation),
        "contexts": [
            _table_within(ablation, c, f"{name}-{i}").html(most_characters=most_characters)
            for i, c in enumerate(contexts[:MOST_CONTEXTS], start=1)
        ],
        "shown": f"{MOST_CONTEXTS} of {len(contexts)}" if len(contexts) > MOST_CONTEXTS else len(contexts),
        "left_out": max(0, len(contexts) - MOST_CONTEXTS),
    }


def _table_within(ablation: Ablation, context: Mapping[str, Json], name: str) -> Table:
    caption = f"{axis_name(ablation.factor)} at {settings_text(_differing_settings(context, ablation.contexts))}"
    return ablation_table(ablation.within(context), name, caption=caption, has_means=True)


def _differing_settings(context: Mapping[str, Json], contexts: Sequence[Mapping[str, Json]]) -> dict[str, Json]:
    """The model, and the settings that differ between the contexts of that model."""
    same_model = [other for other in contexts if other.get("model") == context.get("model")]
    return {k: v for k, v in context.items() if k == "model" or any(other.get(k, UNSET) != v for other in same_model)}


def ablation_table(ablation: Ablation, name: str, *, caption: str, has_means: bool) -> Table:
    """All levels in all metrics; only differences if the values of a level would mix settings."""
    scales = {column: _scale(ablation, column) if has_means else None for column in ablation.columns}
    shown = [level for level in ablation.levels if has_means or level != ablation.baseline]
    heads = [column_heading(column, scale) for column, scale in scales.items()]
    return Table(
        name=f"{name}-table",
        caption=caption,
        heads=(ColumnHead(name=axis_name(ablation.factor)), *heads),
        rows=tuple(TableRow(cells=_cells(ablation, level, scales)) for level in shown),
    )


def _scale(ablation: Ablation, column: Column) -> Scale:
    return scale_of_column(column, [e.summary.value for (_, c), e in ablation.effects.items() if c == column])


def _cells(ablation: Ablation, level: str, scales: Mapping[Column, Scale | None]) -> tuple[TableCell, ...]:
    below = "baseline" if level == ablation.baseline else ""
    effects = [(ablation.effects.get((level, column)), scale) for column, scale in scales.items()]
    return TableCell(text=level_text(ablation.levels[level]), below=below), *(_cell(e, scale) for e, scale in effects)


def _cell(effect: Effect | None, scale: Scale | None) -> TableCell:
    """The value of a level with its change below; without a scale, the change with the verdict below."""
    if effect is None:
        return TableCell(title="not measured at this level")
    change, verdict, summary = difference_text(effect), effect.verdict or "", effect.summary
    if scale is None:
        difference = effect.difference.value if effect.difference else None
        return TableCell(
            text=change or DASH,
            sort=difference,
            below=verdict,
            title=_difference_with_interval(effect) or "nothing to pair with",
        )
    title = [format_exact(summary.value, summary.unit), summary.how, _difference_with_interval(effect)]
    return TableCell(
        text=scale.text(summary.value),
        sort=summary.value,
        below="\n".join(word for word in (change, verdict) if word),
        chips=(*summary.doubts, *summary.remarks),
        title="; ".join(word for word in title if word),
    )


def _difference_with_interval(effect: Effect) -> str:
    """The difference with its interval and the number of pairs."""
    if effect.difference is None:
        return ""
    interval = interval_text(effect)
    ends = f", 95 % interval {interval}" if interval else ""
    over = "the same videos, each level trained once" if effect.is_of_weights else plural(effect.pairs, "pair")
    return f"{difference_text(effect)} compared with the baseline over {over}{ends}"


def _note(ablation: Ablation) -> str:
    """Explains pairs, the number of settings, and how many differences chance alone would show."""
    words = [NOTE]
    if ablation.contexts:
        words.append(f"Pairs come from {plural(len(ablation.contexts), 'setting')} of the other axes.")
    if any(effect.is_of_weights for effect in ablation.effects.values()):
        words.append(ONE_TRAINING)
    sampled = [effect for effect in ablation.effects.values() if effect.pairs > 1 and not effect.is_exact]
    if len(sampled) >= MANY_COMPARISONS:
        by_chance = max(1, round(len(sampled) / 20))
        words.append(f"Of {len(sampled)} such comparisons about {by_chance} would show a difference by chance alone.")
    return " ".join(words)
