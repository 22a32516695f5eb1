"""Our own count in the form of a counter report, for benchmarks that run it like the others."""

from torch import Tensor, nn

from bench.measure.counting.counters.counter_report import CounterReport, ReportPart
from bench.measure.counting.model_count import count


def count_with_vbench(model: nn.Module, inputs: tuple[Tensor, ...]) -> CounterReport:
    """Return the count of `bench.count` for one forward pass."""
    counted = count(model, inputs)
    lines = tuple(
        ReportPart(module=row.module, counted=row.operator, value=row.macs, products=row.macs, true_products=row.macs)
        for row in counted.rows
        if row.macs
    )
    return CounterReport(tool="vbench", version="", convention="MACs", printed=counted.macs, lines=lines)
