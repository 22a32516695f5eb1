"""Changed input on `motions`, whose answers are known: a clip backwards is a clip of the opposite class of its pair."""

from pathlib import Path

import numpy as np
import pytest
import torch

from bench.core.input_change import read_changes
from bench.core.schema import Clip
from bench.data.collection import open_dataset
from bench.models.factory import create_model
from bench.train.evaluating import evaluate_changes
from bench.train.fitting import fit
from bench.train.recipe import read_recipe

pytestmark = pytest.mark.slow
RECIPE = Path(__file__).parents[2] / "suites" / "recipes" / "quick.yaml"
CLIP = Clip.model_validate("16x1x32")
NAMES = ["reversed", "shuffled", "single_frame"]
CHANCE = 1 / 8


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory):
    """Evaluations of a trained network by its kernel depth in time: 1 sees single frames, 3 sees motion."""
    root = tmp_path_factory.mktemp("data") / "motions"
    train, val = (open_dataset("motions", root=root, split=split, clips_per_class=64) for split in ("train", "val"))
    recipe = read_recipe(RECIPE)
    found = {}
    for depth in (1, 3):
        torch.manual_seed(0)
        model = create_model("c3d_search", kernel_depth=depth, width=0.125, num_classes=8)
        fit(model, recipe, train, val=val, clip=CLIP, seed=0, folder=tmp_path_factory.mktemp(f"depth{depth}"))
        found[depth] = evaluate_changes(model, val, changes=read_changes(NAMES), clip=CLIP, batch=32)
    return found


def test_a_model_that_sees_motion_answers_a_reversed_clip_by_the_opposite_class(evaluated):
    plain, backwards = evaluated[3]["none"], evaluated[3]["reversed"]
    assert plain.top(1).value > 0.8
    assert backwards.top(1).value < 0.1
    opposite = backwards.labels ^ 1  # classes 2k and 2k + 1 are a pair
    assert (backwards.scores.argmax(axis=1) == opposite).mean() == pytest.approx(plain.top(1).value, abs=0.05)


def test_it_falls_to_what_one_frame_tells(evaluated):
    """A single frame of `motions` has the same distribution for every class."""
    single = evaluated[3]["single_frame"].top(1)
    assert single.low < CHANCE + 0.05
    assert evaluated[3]["shuffled"].top(1).value < 0.5


def test_a_model_that_sees_single_frames_moves_far_less(evaluated):
    moved = {
        depth: [abs(found[name].top(1).value - found["none"].top(1).value) for name in NAMES]
        for depth, found in evaluated.items()
    }
    assert np.max(moved[1]) < 0.3 * np.min(moved[3])
