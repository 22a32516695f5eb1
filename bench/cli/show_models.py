"""What `vbench models` prints."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from bench.cli.console import errors, print_table, print_text
from bench.core.schema import ModelCheck, ModelInfo


@contextmanager
def counting_progress(what: str = "counting models") -> Iterator[Callable[[int, int], None] | None]:
    """A bar on standard error while `what` goes on; nothing on a pipe."""
    if not errors.is_terminal:
        yield None
        return
    bar = Progress(TextColumn(what), BarColumn(), MofNCompleteColumn(), console=errors, transient=True)
    with bar:
        task = bar.add_task("", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def show_models(rows: Sequence[tuple[ModelInfo, ModelCheck]]) -> None:
    """The table of `vbench models`."""
    print_table(
        ("model", "family", "clip", "params M", "GMACs", "paper"),
        [
            (model.name, model.family, model.clip, _scaled(probe.params, 1e6), _scaled(probe.macs, 1e9), model.paper)
            for model, probe in rows
        ],
        right=("params M", "GMACs"),
    )
    print_text(f"{len(rows)} models. Counts: batch 1, at the clip shown (frames x stride x size); 1 MAC = 2 FLOPs.")
    for model, probe in rows:
        if probe.problem or probe.note:
            print_text(f"  {model.name} was not counted: {probe.problem or probe.note}")


def show_model(model: ModelInfo, probe: ModelCheck) -> None:
    """All that is known of one model."""
    print_text(f"{model.name}: {model.summary}")
    facts = {
        "family": model.family,
        "paper": model.paper or None,
        "default clip": model.clip,
        "params": None if probe.params is None else f"{probe.params:,}",
        "MACs": None if probe.macs is None else f"{probe.macs:,} (forward, batch 1, at the default clip)",
    }
    print_table(("", ""), list(facts.items()))
    print_text("arguments:")
    print_table(("name", "default"), [(name, repr(default)) for name, default in model.arguments.items()])
    if probe.problem or probe.note:
        print_text(f"not counted: {probe.problem or probe.note}")


def _scaled(value: int | None, unit: float) -> str | None:
    return None if value is None else f"{value / unit:.2f}"
