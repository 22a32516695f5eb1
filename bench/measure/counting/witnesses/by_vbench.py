"""Our own count as a witness hears it: for benchmarks beside the others, on a copy without weights."""

from torch import Tensor, nn

from bench.measure.counting.tally import count
from bench.measure.counting.witnesses.testimony import Line, Testimony


def testify_vbench(model: nn.Module, inputs: tuple[Tensor, ...]) -> Testimony:
    """What `bench.count` says of one forward pass."""
    counted = count(model, inputs)
    lines = tuple(
        Line(module=row.module, counted=row.operator, figure=row.macs, products=row.macs, true_products=row.macs)
        for row in counted.rows
        if row.macs
    )
    return Testimony(tool="vbench", version="", convention="MACs", printed=counted.macs, lines=lines)
