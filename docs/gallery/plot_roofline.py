"""
What can limit a model: a roofline from data sheets
===================================================

FLOPs per byte of a forward pass, counted, under the roof of an H100. Left of the ridge, memory limits a model even at
best; right of it, arithmetic does. This needs no GPU; the measure ``limits`` measures both the roof and the model.
"""

# %%
# ``profile`` counts without weights: MACs, and the bytes that every operator reads and writes in fp32.
import plotly.graph_objects as go

from bench import profile
from bench.reference.peaks import read_peaks

profiles = {name: profile(name) for name in ("c3d", "resnet3d_50", "slowfast_r50", "x3d_m", "mvitv2_s_16x4")}
flops_per_byte = {name: found.layers[0].flops_per_byte for name, found in profiles.items()}
for number, (name, ratio) in enumerate(flops_per_byte.items(), start=1):
    print(f"{number} {name:16}{profiles[name].macs / 1e9:8.1f} GMACs {ratio:8.1f} FLOPs per byte")

# %%
# The roof is the lower of two data-sheet rates: bytes per second times FLOPs per byte, and FLOP/s in fp32. A model is
# drawn on the roof, with its number in the list. Run operator by operator it cannot be faster; a compiler that fuses
# operators saves bytes.
peak = read_peaks()["NVIDIA H100 80GB HBM3"]
arithmetic = peak.flops_per_s["fp32"]
ridge = arithmetic / peak.bytes_per_s


def roof(ratio: float) -> float:
    return min(arithmetic, ratio * peak.bytes_per_s) / 1e12


ratios = sorted([ridge / 10, ridge, max(flops_per_byte.values()) * 2])
figure = go.Figure(
    [
        go.Scatter(x=ratios, y=[roof(ratio) for ratio in ratios], mode="lines"),
        go.Scatter(
            x=list(flops_per_byte.values()),
            y=[roof(ratio) for ratio in flops_per_byte.values()],
            text=[str(number) for number in range(1, 1 + len(flops_per_byte))],
            mode="markers+text",
        ),
    ]
)
figure.update_xaxes(type="log", title="FLOPs per byte")
figure.update_yaxes(type="log", title="TFLOP/s in fp32 at most")
print(f"ridge of an H100 in fp32: {ridge:.1f} FLOPs per byte; source: {peak.source}")
