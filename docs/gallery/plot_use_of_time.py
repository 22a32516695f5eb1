"""
Does a model use time?
======================

The same videos with their frames shuffled, reversed, frozen or lost: a model that looks at motion must lose, one that
looks at single pictures does not notice. The model here needs no training: it estimates the global motion of a clip.
"""

# %%
# The eight classes of the set ``motions`` are directions. One least-squares fit of brightness constancy over a whole
# clip (Lucas and Kanade, 1981) gives its velocity; scores are the similarities with the directions.
import numpy as np
import plotly.graph_objects as go

from bench import open_dataset, read_frames
from bench.core.input_change import UNCHANGED, read_changes
from bench.data.frame_sampling import Part
from bench.train.change_effects import change_effects
from bench.train.predictions import Predictions

videos = open_dataset("motions", split="val")
STEPS = {"right": (1, 0), "left": (-1, 0), "down": (0, 1), "up": (0, -1)}
directions = np.array(
    [np.sum([STEPS[word] for word in name.split()[1:]], axis=0) for name in videos.classes], dtype=float
)
directions /= np.linalg.norm(directions, axis=1, keepdims=True)


def scores_of(clip_THW: np.ndarray) -> np.ndarray:
    """Score each direction by its similarity with the motion of the clip; all alike for a clip that stands still."""
    over_t, over_y, over_x = np.gradient(clip_THW)
    slopes = np.stack([over_x.ravel(), over_y.ravel()], axis=1)
    velocity = np.linalg.solve(slopes.T @ slopes, -slopes.T @ over_t.ravel())
    return directions @ velocity / max(np.linalg.norm(velocity), 1e-6)


# %%
# Each change of the order of frames is a function from frame numbers to frame numbers. ``vbench eval --change`` and the
# suite key ``change`` apply the same ones while a clip is read.
changes = read_changes(
    [UNCHANGED, "reversed", "shuffled", "single_frame", *(f"drop_frames:{share}" for share in (0.1, 0.3, 0.5, 0.7))]
)
scores: dict[str, list[np.ndarray]] = {str(change): [] for change in changes}
random = np.random.default_rng(0)
for video in videos.videos:
    grey = read_frames(video.path, range(video.frames)).mean(axis=-1, dtype=np.float32) / 255
    order, part = tuple(range(video.frames)), Part(frames=video.frames)
    for change in changes:
        shown = (
            order
            if change.entry is None
            else change.entry.function(order, part=part, value=change.value, random=random)
        )
        scores[str(change)].append(scores_of(grey[list(shown)]))

# %%
# The effects are paired, video by video, with the interval of the difference and McNemar's exact test.
predictions = {
    name: Predictions(
        videos=tuple(video.id for video in videos.videos),
        labels=np.array([video.labels[0] for video in videos.videos]),
        scores=np.array(found, dtype=np.float32),
        classes=videos.classes,
        protocol={},
    )
    for name, found in scores.items()
}
effects = change_effects(predictions)
print(f"unchanged {100 * effects.unchanged.value:.1f} %")
for effect in effects.effects:
    low, high = 100 * effect.difference.low, 100 * effect.difference.high
    print(f"{effect.name:16}{100 * effect.top1.value:6.1f} %  difference {low:+.1f} to {high:+.1f}, p {effect.p:.1g}")
for sentence in effects.use_of_time.sentences:
    print(sentence)

# %%
# Played backwards, every motion has the opposite direction, so that hardly any video is right; in random order most of
# the direction is gone. Lost frames hurt gradually.
(curve,) = effects.curves
figure = go.Figure(
    go.Scatter(
        x=[0, *(100 * share for share, _ in curve.points)],
        y=[100 * effects.unchanged.value, *(100 * top1.value for _, top1 in curve.points)],
        mode="lines+markers",
    )
)
figure.update_xaxes(title="share of lost frames in %")
figure.update_yaxes(title="top-1 in %")
