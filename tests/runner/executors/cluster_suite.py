"""A suite of 40 cases for tests of clusters: 38 take a second, one fails and one hangs."""

PLUGIN = '''
"""A measure that takes a second, and never ends, or fails, for some models."""

import time

from bench import COUNT_AXES, CaseContext, Metric, MetricSpec, register_measure

TURNS = MetricSpec("turn.count", "1", "lower", title="Turns", meaning="turns taken", headline=True)


@register_measure("turn", depends_on=COUNT_AXES, version=1, metrics=[TURNS], duration_s=1)
def turn(case: CaseContext) -> list[Metric]:
    if case.point.args["width"] == 1.5:
        raise ZeroDivisionError("this case always fails")
    time.sleep(3600 if case.point.args["width"] == 2.0 else 1)
    return [TURNS.metric(1, is_exact=True)]
'''
NUMBERS = 38
WIDTHS = [*(round(0.1 + number / 50, 2) for number in range(NUMBERS)), 1.5, 2.0]
SUITE = f"""
suite: cluster
timeout_s: 60
plugins: [turns]
models:
  - {{name: c3d_search, width: {WIDTHS}, num_classes: 3}}
matrix: {{clip: [1x1x32]}}
measure: {{turn: {{}}}}
"""
