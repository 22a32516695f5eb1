"""
Accuracy against latency, with the Pareto frontier
==================================================

A model is on the frontier if no other one is at least as accurate for less time. The records are those of a run of
``quickstart`` on a CPU.
"""

# %%
# Latency and accuracy are metrics of different cases, which are joined by the arguments of the model.
import plotly.graph_objects as go

from bench import load_records

records = load_records("../../reports/quickstart")
axes = ["model", "kernel_depth", "depth"]
wanted = records[records["metric"].isin(["accuracy.top1", "latency.p50_ms"])]
models = wanted.pivot_table(index=axes, columns="metric", values="value", aggfunc="mean", dropna=False)
models = models.dropna().reset_index().sort_values(["latency.p50_ms", "accuracy.top1"], ascending=[True, False])
names = [
    f"{row.model}, depth {row.depth:g}" if row.depth == row.depth else f"{row.model}, kernel depth {row.kernel_depth}"
    for row in models.itertuples()
]
models.insert(0, "name", names)
models.insert(0, "number", [str(number) for number in range(1, 1 + len(models))])
print(models[["number", "name", "latency.p50_ms", "accuracy.top1"]].round(2).to_string(index=False))

# %%
# Sorted by cost, the frontier is every model that is more accurate than all cheaper ones. Numbers are
# those of the table.
best_before = models["accuracy.top1"].cummax().shift(fill_value=-1)
frontier = models[models["accuracy.top1"] > best_before]
steps = frontier.loc[frontier.index.repeat(2)]  # to the right at the old accuracy, then up
figure = go.Figure(
    [
        go.Scatter(x=models["latency.p50_ms"], y=models["accuracy.top1"], text=models["number"], mode="markers+text"),
        go.Scatter(x=frontier["latency.p50_ms"], y=frontier["accuracy.top1"], mode="markers"),
        go.Scatter(x=steps["latency.p50_ms"], y=steps["accuracy.top1"].shift(), mode="lines"),
    ]
)
figure.update_xaxes(title="median latency of one clip in ms")
figure.update_yaxes(title="top-1 in %")

# %%
# Accuracies of one test set have intervals. If they overlap, the order of two models is open; the report draws them,
# and ``vbench compare`` and ``vbench predictions A B`` decide.
intervals = records[records["metric"] == "accuracy.top1"].groupby(axes, dropna=False)[["low", "value", "high"]].mean()
print(intervals.round(1))
