"""What `vbench predict` prints."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from bench.cli.console import print_table, print_text

if TYPE_CHECKING:
    from bench.train.inference import Prediction


def show_predictions(found: "Sequence[Prediction]", *, per_view: bool) -> None:
    """Each video with its likeliest classes; `per_view` adds the first guess of every view."""
    for prediction in found:
        if prediction.error is not None:
            print_text(f"{prediction.video}: {prediction.error}")
            continue
        print_text(prediction.video)
        print_table(("", ""), [(f"{guess.probability:.1%}", guess.name) for guess in prediction.guesses], right=("",))
        if per_view:
            for number, view in enumerate(prediction.views, start=1):
                print_text(f"  view {number}: {view[0].name} ({view[0].probability:.1%})")


def predictions_as_dicts(found: "Sequence[Prediction]") -> list[dict[str, Any]]:
    """For machines."""
    return [asdict(prediction) for prediction in found]
