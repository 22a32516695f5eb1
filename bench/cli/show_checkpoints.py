"""What `vbench weights inspect` prints."""

from typing import TYPE_CHECKING, Any

from bench.cli.console import print_table, print_text
from bench.core.units import format_value

if TYPE_CHECKING:
    from bench.models.weights.identification import CheckpointFacts, Fit


def show_checkpoint(found: "CheckpointFacts") -> None:
    """Print what a file is, and how to load it."""
    facts = checkpoint_as_dict(found)
    rows = [
        (name.replace("_", " "), value)
        for name, value in facts.items()
        if name not in ("fits", "facts", "input_protocol")
    ]
    rows += [(name, value) for name, value in found.facts.items()]
    print_table(("", ""), [(name, _shown(name, value)) for name, value in rows if value not in (None, "", [])])
    if not found.fits:
        print_text("no model here has these weights")
    for fit in found.fits:
        print_text(f"fits {fit.model}: vbench profile {fit.model}{_flags(fit)} --weights {found.path}")


def checkpoint_as_dict(found: "CheckpointFacts") -> dict[str, Any]:
    """Return the facts as plain data, for `--json`."""
    return {
        "path": str(found.path),
        "sha256": found.sha256,
        "bytes": found.n_bytes,
        "container": found.container,
        "prefix": found.prefix,
        "weights": found.n_weights,
        "parameters": found.parameters,
        "dtypes": list(found.dtypes),
        "num_classes": found.num_classes,
        "facts": dict(found.facts),
        "ignored": list(found.ignored),
        "entry": found.entry,
        "other_entries": list(found.other_entries),
        "problem": found.problem,
        "input_protocol": found.input_protocol.as_detail(),
        "fits": [
            {"model": fit.model, "family": fit.family, "arguments": dict(fit.arguments), "has_head": fit.has_head}
            for fit in found.fits
        ],
    }


def _shown(name: str, value: Any) -> str:
    if name == "bytes":
        return format_value(value, "B")
    return f"{value:,}" if isinstance(value, int) else ", ".join(value) if isinstance(value, list) else str(value)


def _flags(fit: "Fit") -> str:
    """The arguments of a fit as flags of `vbench profile`."""
    flags = [
        f" --num-classes {value}" if k == "num_classes" else f" --arg {k}={value}" for k, value in fit.arguments.items()
    ]
    return "".join(flags)
