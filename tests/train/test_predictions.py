import json
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq

from bench.train.evaluating import evaluate
from bench.train.predictions import write_predictions


def test_a_row_a_video_says_what_was_scored_of_it(tiny_net, val_videos, clip, tmp_path):
    seen = evaluate(tiny_net(), val_videos, clip=clip, views=(2, 1))
    found = pq.read_table(write_predictions(tmp_path / "p.parquet", seen, val_videos, protocol={"views": "2x1"}))
    assert found["video"].to_pylist() == [video.id for video in val_videos.videos]
    assert found["label"].to_pylist() == [video.labels[0] for video in val_videos.videos]
    np.testing.assert_array_equal(np.array(found["scores"].to_pylist(), dtype=np.float32), seen.scores)
    np.testing.assert_array_equal(found["predicted"], seen.scores.argmax(axis=1))
    assert (np.array(found["rank"]) == 0).mean() == seen.top(1).value
    about = {key.decode(): json.loads(value) for key, value in found.schema.metadata.items()}
    assert about == {"protocol": {"views": "2x1"}, "classes": list(val_videos.classes)}


def test_several_labels_a_video_are_a_list(tiny_net, val_videos, clip, tmp_path):
    """Here every third video has both labels."""
    given = [replace(v, labels=(0, 1) if i % 3 == 0 else v.labels) for i, v in enumerate(val_videos.videos)]
    many = replace(val_videos, videos=tuple(given), is_multi_label=True)
    seen = evaluate(tiny_net(), many, clip=clip, averaging="sigmoid")
    found = pq.read_table(write_predictions(tmp_path / "p.parquet", seen, many, protocol={}))
    assert found["label"].to_pylist() == [list(video.labels) for video in given]
    names = [set(row) for row in found["label_name"].to_pylist()]
    assert names == [{many.classes[label] for label in video.labels} for video in given]
    assert (np.array(found["rank"]) == 0).mean() == seen.top(1).value
