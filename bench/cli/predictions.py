"""The command that questions kept predictions. What `cli.py` says of imports holds here too."""

from pathlib import Path
from typing import Annotated

import typer

from bench.core.errors import InputError

CONFUSIONS = 10  # pairs of classes that are shown of a single network, unless another number is given


def predictions(
    a: Annotated[
        Path,
        typer.Argument(metavar="A", help="A predictions.parquet of train, eval or run, or a folder with one below it."),
    ],
    b: Annotated[
        Path | None,
        typer.Argument(metavar="[B]", help="Another one of the same videos: a rival, or the other stream."),
    ] = None,
    fuse: Annotated[
        Path | None,
        typer.Option("--fuse", metavar="FILE.parquet", help="Write the mean of both scores, as predictions again."),
    ] = None,
    weight: Annotated[
        float | None, typer.Option("--weight", min=0, help="Weight of B's scores where both are fused; A's is 1.")
    ] = None,
    confusions: Annotated[
        int | None,
        typer.Option("--confusions", min=0, help="Pairs of classes to show; 10 of one network, none of two."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for machines.")] = False,
) -> None:
    """Question kept predictions: accuracies, confused classes; of two networks which is better, and both fused."""
    from bench.cli.console import print_json
    from bench.cli.show_predictions import one_as_dict, pair_as_dict, show_one, show_pair
    from bench.train.predictions import open_predictions, pair_predictions

    _check_fusing(fuse, weight, is_pair=b is not None)
    if b is None:
        one, most = open_predictions(a), CONFUSIONS if confusions is None else confusions
        if as_json:
            print_json(one_as_dict(one, most=most))
        else:
            show_one(one, most=most)
        return
    both = pair_predictions(open_predictions(a), open_predictions(b), weight_b=weight, target=fuse)
    if as_json:
        print_json(pair_as_dict(both, most=confusions or 0, target=fuse))
    else:
        show_pair(both, most=confusions or 0, target=fuse)


def _check_fusing(fuse: Path | None, weight: float | None, *, is_pair: bool) -> None:
    """InputError where there is nothing to fuse, or no place for it."""
    from bench.cli.arguments import check_writable

    if not is_pair and (fuse is not None or weight is not None):
        raise InputError(f"{'--weight' if fuse is None else '--fuse'} is of two predictions, and only one is given")
    if fuse is not None:
        if fuse.suffix != ".parquet":
            raise InputError(f"{fuse} cannot be written: predictions are Parquet files, and end with .parquet")
        check_writable(fuse)
