"""What is refused before a video is looked at."""

from pathlib import Path

import pytest
import torch

from bench.core.errors import InputError
from bench.models.c3d_search import c3d_search
from bench.train.inference import predict_videos


def test_weights_without_the_head_name_no_classes(tmp_path: Path) -> None:
    file = tmp_path / "four.pt"
    torch.save(c3d_search(num_classes=4, width=0.0625).state_dict(), file)
    given = {"width": 0.0625, "num_classes": 3}
    with pytest.raises(InputError, match=r"four.pt has 4 classes and the model 3: .* train before evaluating"):
        predict_videos("c3d_search", [tmp_path / "x.mp4"], weights=file, arguments=given)
    found = predict_videos("c3d_search", [tmp_path / "x.mp4"], weights=file, arguments={"width": 0.0625})
    assert [prediction.error is None for prediction in found.predictions] == [False]
