"""
Cost of every model on one page
===============================

MACs of one clip at the default input of each registered model, by family. Counts need no weights and no GPU: a model is
built without storage and one clip of shapes runs through it.
"""

# %%
# The catalog knows the models and keeps their counts, so that only models whose code has changed are counted here.
from collections import defaultdict
from statistics import median, quantiles

import plotly.graph_objects as go

from bench import Point
from bench.catalog.catalog import Catalog

catalog = Catalog()
models = list(catalog.models.values())
counts = catalog.check_models([Point(model=model.name, clip=model.clip) for model in models])
gmacs_of_family: dict[str, list[float]] = defaultdict(list)
for model, counted in zip(models, counts, strict=True):
    if counted.macs is not None:
        gmacs_of_family[model.family].append(counted.macs / 1e9)
print(f"{sum(map(len, gmacs_of_family.values()))} of {len(models)} models in {len(gmacs_of_family)} families")

# %%
# A box spans the middle half of a family, its line is the median, and the whiskers reach the cheapest and the dearest
# variant. The axis is logarithmic: medians of families lie more than two orders of magnitude apart.
families = sorted(gmacs_of_family, key=lambda family: median(gmacs_of_family[family]))
quarters = [
    quantiles(gmacs, n=4, method="inclusive") if len(gmacs) > 1 else gmacs * 3
    for gmacs in map(gmacs_of_family.__getitem__, families)
]
figure = go.Figure(
    go.Box(
        y=[f"{family} ({len(gmacs_of_family[family])})" for family in families],
        lowerfence=[min(gmacs_of_family[family]) for family in families],
        q1=[quarter[0] for quarter in quarters],
        median=[quarter[1] for quarter in quarters],
        q3=[quarter[2] for quarter in quarters],
        upperfence=[max(gmacs_of_family[family]) for family in families],
        orientation="h",
    )
)
figure.update_xaxes(type="log", title="GMACs per clip")

# %%
# A clip is not a video: published accuracies average 1 to 30 views, and the price of a prediction is that many clips.
for family in (families[0], families[-1]):
    print(f"{family}: median {median(gmacs_of_family[family]):.1f} GMACs")
