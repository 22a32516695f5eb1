"""The quickstart's own training, from its file: a network that sees motion against one that sees frames."""

from pathlib import Path

import pytest
import torch

import bench
from bench.core.schema import Record
from bench.core.yaml_tree import Tree
from bench.data.collection import open_dataset
from bench.data.decode import read_frames
from bench.suite import read_suite
from bench.train.checkpointing import read_weights

SUITE = Path(__file__).parents[1] / "suites" / "quickstart.yaml"
OPPOSITE = (1, 0, 3, 2, 5, 4, 7, 6)


def accuracy_of_depths_1_and_3() -> Tree:
    """The quickstart without its other networks, measures and seeds."""
    data = read_suite(SUITE).data
    search = next(model for model in data["models"] if model["name"] == "c3d_search")
    return Tree.of(
        {
            **data,
            "models": [{**search, "kernel_depth": [1, 3]}],
            "measure": {"accuracy": {**data["measure"]["accuracy"], "seeds": [0]}},
        },
        name=str(SUITE),
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[int, Record]]:
    """The results folder, and one record for each temporal depth."""
    out = tmp_path_factory.mktemp("quickstart")
    summary = bench.run(accuracy_of_depths_1_and_3(), out=out)
    assert summary.exit_code == 0
    page = bench.report(out, out=out / "report").read_text()
    assert "kernel_depth" in page
    return out, {int(record.case.point.args["kernel_depth"]): record for record in summary.finished}


def top1(record: Record) -> tuple[float, float, float]:
    metric = next(metric for metric in record.metrics if metric.name == "accuracy.top1")
    assert metric.value is not None
    assert metric.interval is not None
    return metric.interval[0], metric.value, metric.interval[1]


@pytest.mark.slow
def test_kernels_of_depth_one_cannot_separate_directions(trained: tuple[Path, dict[int, Record]]) -> None:
    _, records = trained
    (_, one, one_at_most), (three_at_least, three, _) = top1(records[1]), top1(records[3])
    assert one_at_most < three_at_least
    assert one <= 60
    assert three >= 90


@pytest.mark.slow
def test_a_reversed_clip_is_called_by_the_opposite_class(trained: tuple[Path, dict[int, Record]]) -> None:
    out, records = trained
    record, videos = records[3], open_dataset("motions", split="val").videos[:64]
    model = bench.create_model("c3d_search", **record.case.point.args).eval()
    model.load_state_dict(read_weights(out / record.artifacts["weights"])["state_dict"])
    clips = [torch.from_numpy(read_frames(video.path, range(16), size=32)).permute(3, 0, 1, 2) for video in videos]
    clips_BCTHW = (torch.stack(clips).float() / 255 - torch.tensor(model.mean).view(3, 1, 1, 1)) / torch.tensor(
        model.std
    ).view(3, 1, 1, 1)
    with torch.no_grad():
        forward = model(clips_BCTHW).argmax(1).tolist()
        backward = model(clips_BCTHW.flip(2)).argmax(1).tolist()
    assert len(set(forward)) == len(OPPOSITE)
    agreed = sum(OPPOSITE[label] == other for label, other in zip(forward, backward, strict=True))
    assert agreed >= 0.9 * len(videos)
