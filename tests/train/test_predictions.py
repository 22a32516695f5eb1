from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.core.errors import InputError
from bench.core.input_protocol import InputProtocol
from bench.train.evaluating import evaluate
from bench.train.predictions import (
    Predictions,
    compare_predictions,
    fuse_predictions,
    read_predictions,
    write_predictions,
)


def predictions(scores, labels, *, videos=None, classes=("a", "b")):
    return Predictions(
        videos=tuple(videos or [f"v{i}" for i in range(len(labels))]),
        labels=np.array(labels),
        scores=np.array(scores, dtype=np.float32),
        classes=classes,
        protocol={},
    )


def test_predictions_come_back_from_the_file(tiny_net, val_videos, clip, tmp_path):
    seen = evaluate(tiny_net(), val_videos, clip=clip, views=(2, 1))
    path = write_predictions(tmp_path / "p.parquet", {"none": seen}, val_videos, protocol={"views": "2x1"})
    found = read_predictions(path)
    assert found.videos == tuple(video.id for video in val_videos.videos)
    np.testing.assert_array_equal(found.scores, seen.scores)
    assert (found.top(1), found.classes, found.protocol) == (seen.top(1), val_videos.classes, {"views": "2x1"})


@pytest.fixture
def many(val_videos):
    """The evaluation videos, every third of which has both labels."""
    videos = [replace(v, labels=(0, 1) if i % 3 == 0 else v.labels) for i, v in enumerate(val_videos.videos)]
    return replace(val_videos, videos=tuple(videos), is_multi_label=True)


def test_several_labels_a_video_come_back_from_the_file(tiny_net, many, clip, tmp_path):
    seen = evaluate(tiny_net(), many, clip=clip, protocol=InputProtocol(averaging="sigmoid"))
    path = write_predictions(tmp_path / "p.parquet", {"none": seen}, many, protocol={})
    names = [set(row) for row in pq.read_table(path)["label_name"].to_pylist()]
    assert names == [{many.classes[label] for label in video.labels} for video in many.videos]
    found = read_predictions(path)
    assert found.labels.dtype == np.bool_
    np.testing.assert_array_equal(found.labels, seen.labels)
    assert found.top(1) == seen.top(1)
    other = replace(found, labels=~found.labels)
    with pytest.raises(InputError, match="12 videos have another label"):
        compare_predictions(found, other)
    with pytest.raises(InputError, match="only one of the two predictions is of several labels"):
        compare_predictions(found, replace(found, labels=np.zeros(12, dtype=np.int64)))


def test_another_file_is_refused(tmp_path):
    (tmp_path / "p.parquet").write_text("text")
    with pytest.raises(InputError, match="not a file of predictions"):
        read_predictions(tmp_path / "p.parquet")


def test_agreement_counts_videos_whatever_their_order():
    a = predictions([[1, 0], [1, 0], [0, 1], [0, 1]], [0, 0, 0, 1])
    b = predictions([[0, 1], [1, 0], [0, 1], [1, 0]], [0, 0, 0, 1])
    shuffled = predictions(b.scores[::-1], b.labels[::-1], videos=b.videos[::-1])
    for other in (b, shuffled):
        found = compare_predictions(a, other)
        assert (found.both, found.only_a, found.only_b, found.neither) == (1, 2, 0, 1)
        assert found.p == pytest.approx(0.5)


def test_different_videos_or_labels_are_not_compared():
    a = predictions([[1, 0]], [0])
    with pytest.raises(InputError, match="different videos: 2 are in one only, such as other"):
        compare_predictions(a, predictions([[1, 0]], [0], videos=["other"]))
    with pytest.raises(InputError, match="1 videos have another label"):
        compare_predictions(a, predictions([[1, 0]], [1]))
    with pytest.raises(InputError, match="different classes"):
        compare_predictions(a, predictions([[1, 0]], [0], classes=("a", "c")))


def test_fusion_is_the_weighted_mean_of_scores():
    a, b = predictions([[0.9, 0.1]], [1]), predictions([[0.2, 0.8]], [1])
    np.testing.assert_allclose(fuse_predictions(a, b).scores, [[0.55, 0.45]], atol=1e-6)
    fused = fuse_predictions(a, b, weight_b=2)
    np.testing.assert_allclose(fused.scores, [[1.3 / 3, 1.7 / 3]], atol=1e-6)
    assert fused.top(1).value == 1.0


DRAWN = st.tuples(st.integers(1, 30), st.integers(2, 9), st.integers(0, 2**32 - 1))


def drawn(shape):
    """Two networks on the same videos."""
    rows, classes, seed = shape
    rng = np.random.default_rng(seed)
    names, labels = tuple(f"c{i}" for i in range(classes)), rng.integers(0, classes, rows)
    return [predictions(rng.dirichlet(np.ones(classes), rows), labels, classes=names) for _ in range(2)]


@given(DRAWN, st.floats(0, 1e300))
def test_a_model_fused_with_itself_is_unchanged(shape, weight):
    own, _ = drawn(shape)
    np.testing.assert_array_equal(fuse_predictions(own, own, weight_b=weight).scores, own.scores)


@given(DRAWN)
def test_swapping_two_models_mirrors_the_result(shape):
    a, b = drawn(shape)
    found, turned = compare_predictions(a, b), compare_predictions(b, a)
    assert (found.both, found.only_a, found.only_b) == (turned.both, turned.only_b, turned.only_a)
    assert found.p == turned.p
    assert found.difference.value == -turned.difference.value == pytest.approx(b.top(1).value - a.top(1).value)


def test_fused_scores_of_different_kinds_or_widths_are_refused():
    a = predictions([[0.9, 0.1]], [1])
    raw, wide = replace(a, protocol={"averaging": "score"}), predictions([[0.9, 0.05, 0.05]], [1])
    with pytest.raises(InputError, match=r"different kinds cannot be fused: the first do not say .*, the second are"):
        fuse_predictions(a, raw)
    with pytest.raises(InputError, match="2 and 3 classes"):
        fuse_predictions(a, wide)
    for weight in (-1.0, np.inf, np.nan):
        with pytest.raises(InputError, match="weight"):
            fuse_predictions(a, a, weight_b=weight)


def test_fused_protocols_keep_what_both_state():
    a, b = predictions([[0.9, 0.1]], [1]), predictions([[0.2, 0.8]], [1])
    a, b = replace(a, protocol={"split": "val", "views": "1x1"}), replace(b, protocol={"split": "val", "views": "3x1"})
    found = fuse_predictions(a, b, weight_b=2.0).protocol
    assert found == {"split": "val", "fused": [a.protocol, b.protocol], "weight_b": 2.0}


def test_labels_of_a_wider_head_are_compared_by_class():
    """Its further classes are none of the set; a label there is another label."""

    def several(width, labels):
        given = np.zeros((2, width), dtype=np.bool_)
        for row, own in zip(given, labels, strict=True):
            row[own] = True
        return predictions(np.arange(2 * width).reshape(2, width), given)

    assert compare_predictions(several(2, [[0], [0, 1]]), several(4, [[0], [0, 1]])).both == 0
    with pytest.raises(InputError, match="1 videos have another label"):
        compare_predictions(several(2, [[0], [0, 1]]), several(4, [[0], [0, 3]]))
