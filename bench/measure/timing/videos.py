"""The video files that a timed case reads."""

from collections.abc import Mapping
from typing import Any

from bench.core.errors import InputError
from bench.core.registry import DATASETS
from bench.data.collection import VideoSet, open_dataset
from bench.data.split_names import evaluated_split
from bench.measure.context import CaseContext


def videos_of(case: CaseContext, *, what: str, root: str | None, options: Mapping[str, Any] | None) -> VideoSet:
    """The videos that the case would be evaluated on; InputError where it names no data set."""
    point = case.point
    if point.dataset is None:
        raise InputError(
            f"{what} needs video files; name a data set in the suite, such as `{what}: {{dataset: ucf101}}`"
        )
    split = evaluated_split(point.split, known=DATASETS.get(point.dataset).splits, dataset=point.dataset)
    case.progress(f"opening {point.dataset} {split}")
    return open_dataset(point.dataset, root=root, split=split, **(options or {}))
