"""
How deep in time should a 3D kernel be?
=======================================

C3D's question, asked again on a small scale: the same model with kernels of 1, 3 and 5 frames, trained from scratch
with three seeds on a set of eight motions. A kernel of 1 frame sees no motion.
"""

# %%
# ``load_records`` gives a pandas frame with a row for each metric of each run; the axes of the suite are columns.
import plotly.graph_objects as go

from bench import load_records

records = load_records("../../reports/findings")
searched = records[records["model"] == "c3d_search"]
accuracy = searched[(searched["metric"] == "accuracy.top1") & (searched["views"] == "3x1")]
macs = searched[searched["metric"] == "macs.forward"].set_index("kernel_depth")["value"] / 1e6
print(accuracy.groupby("kernel_depth")["value"].agg(["mean", "min", "max", "count"]).round(2))

# %%
# Each point is one training. Depth 3 costs more than depth 1 and gains nearly everything; depth 5 costs more again and
# gains nothing that this set could show, because depth 3 is right on almost every video already.
means = accuracy.groupby("kernel_depth")["value"].mean()
figure = go.Figure(
    [
        go.Scatter(x=macs[accuracy["kernel_depth"]], y=accuracy["value"], mode="markers", name="one seed"),
        go.Scatter(
            x=macs[means.index],
            y=means,
            mode="lines+markers+text",
            text=[f"depth {depth:g}" for depth in means.index],
            name="mean of the seeds",
        ),
    ]
)
figure.update_xaxes(title="MMACs per clip")
figure.update_yaxes(title="top-1 in %")

# %%
# The records say on what: 16 frames of 32 x 32 pixels, a width of 1/8. They answer whether the trainer can tell the
# depths apart, and not which depth is best on Kinetics.
print(accuracy[["clip", "width", "num_classes", "dataset", "recipe"]].drop_duplicates().to_string(index=False))
