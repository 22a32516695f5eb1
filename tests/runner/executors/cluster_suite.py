"""A suite of 40 cases for tests of clusters: 36 take a second, two train a model, one fails and one hangs."""

import subprocess
from collections.abc import Sequence
from pathlib import Path

from bench.data.collection import open_dataset

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
HEAD = """
suite: cluster
timeout_s: 60
plugins: [turns]
"""


def turns_suite(widths: Sequence[float]) -> str:
    """Return a suite with a case of a second for each width; 1.5 fails and 2.0 hangs."""
    models = f"models: [{{name: c3d_search, width: {list(widths)}, num_classes: 3}}]"
    return f"{HEAD}{models}\nmatrix: {{clip: [1x1x32]}}\nmeasure: {{turn: {{}}}}\n"


GOOD = 38
WIDTHS = [round(0.1 + number / 50, 2) for number in range(GOOD - 4)]
TRAINED = [0.0625, 0.075]  # each with a turn, too
SUITE = f"""{HEAD}
models:
  - {{name: c3d_search, width: {[*WIDTHS, 1.5, 2.0]}, num_classes: 3}}
  - {{name: c3d_search, width: {TRAINED}, num_classes: 2}}
matrix:
  clip: [4x1x32]
  exclude: [{{num_classes: 3, dataset: motions}}]
measure:
  turn: {{}}
  accuracy: {{dataset: motions, root: few, recipe: tiny.yaml, views: 1x1}}
"""
RECIPE = """
recipe: tiny
source: a test
epochs: 2
batch: 4
optimizer: {name: sgd, lr: 0.05}
dropout: 0.0
"""


def commit_all(folder: Path) -> str:
    """Make a repository of a folder with one commit, and return its hash."""
    identity = ("-c", "user.name=a", "-c", "user.email=a@b")
    for command in (("init", "--quiet"), ("add", "."), (*identity, "commit", "--quiet", "--message", "start")):
        subprocess.run(["git", *command], cwd=folder, check=True)
    return subprocess.check_output(["git", "rev-parse", "HEAD"], cwd=folder, text=True).strip()


def write_suite(folder: Path) -> None:
    """Write the suite of 40 cases as `suite.yaml`, with its plug-in, its recipe and a small data set."""
    for name, text in (("turns.py", PLUGIN), ("suite.yaml", SUITE), ("tiny.yaml", RECIPE)):
        (folder / name).write_text(text)
    sizes = {"clips_per_class": 4, "val_clips_per_class": 3, "frames": 8, "size": 32, "classes": 2}
    open_dataset("motions", root=folder / "few", split="train", **sizes)
