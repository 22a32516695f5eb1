"""What the author of a change reads: a toy repository with ten planted changes, its comment word for word."""

from collections.abc import Callable, Sequence

import pytest

from bench.comparison.comparing import compare
from bench.comparison.formats import as_markdown
from bench.core.schema import Metric, Record

Make = Callable[..., Record]
LAYERS = {
    "stem": (50_000_000, 400),
    "blocks.0": (100_000_000, 7_000),
    "blocks.1": (100_000_000, 7_000),
    "head": (2_000, 2_010),
}
QUIET, LOUD = (20.0, 20.06, 19.94, 20.02, 19.98), (20.0, 31.0, 15.0, 27.0, 22.0)
MIB = 2**20


def model(
    record: Make,
    name: str = "net",
    *,
    layers: dict[str, tuple[int, int]] = LAYERS,
    times_ms: Sequence[float] = QUIET,
    memory_mib: int = 100,
    top1: float = 80.0,
    status: str = "ok",
) -> list[Record]:
    """The records of one commit: counts, five timings with memory, and an accuracy."""
    tables: dict[str, dict[str, int]] = {}
    for table, place in (("macs_by_module", 0), ("params_by_module", 1)):
        found = {"": 0, "stem": 0, "blocks": 0}
        for path, costs in layers.items():
            for each in ("", *([path.partition(".")[0]] if "." in path else []), path):
                found[each] = found.get(each, 0) + costs[place]
        tables[table] = found
    exact = {"better": "lower", "is_exact": True}
    macs = Metric(name="macs.forward", value=tables["macs_by_module"][""], unit="MACs", **exact)
    params = Metric(name="params.total", value=tables["params_by_module"][""], unit="elements", **exact)
    accuracy = Metric(name="accuracy.top1", value=top1, unit="%", better="higher", interval=(top1 - 0.8, top1 + 0.8))
    counted = record(
        macs, params, model=name, measures={"macs": {}, "params": {}}, details={**tables, "model_source": "nets.py:19"}
    )
    timed = [
        record(
            *(
                Metric(name="latency.p50_ms", value=value, unit="ms", better="lower", samples=(value,)),
                Metric(name="memory.peak_allocated_bytes", value=memory_mib * MIB, unit="B", better="lower"),
            )
            if status == "ok"
            else (),
            model=name,
            run=run,
            status=status,
            measures={"latency": {}, "memory": {}},
        )
        for run, value in enumerate(times_ms)
    ]
    return [counted, *timed, record(accuracy, model=name, measures={"accuracy": {}})]


def head(record: Make, *given: object, **changes: object) -> list[Record]:
    """The records of a later commit."""
    return [each.model_copy(update={"freshness": "later"}) for each in model(record, *given, **changes)]  # type: ignore[arg-type]


SLOWER = [1.3 * value for value in QUIET[::-1]]
MORE = {**LAYERS, "blocks.2": (100_000_000, 7_000)}
WIDER = {**LAYERS, "head": (4_000, 4_020)}
SAME = "<details><summary>{} metrics are the same</summary>"
ANOTHER_REASON = (
    "- net has the same layers and counts as before: {} changed for another reason, such as an operator, a memory "
    "layout or a library"
)
NO_RESULTS = "base has results and head has none for this case (3 times)"

# What is planted: how head's records differ, the exit code, and the lines of the comment.
PLANTED = {
    "slower operator": (
        {"times_ms": SLOWER},
        1,
        [
            "1 worse, 4 same.",
            "| 🔴 | worse | `net 16x1x112` | `latency.p50_ms` | 20 ms | 26 ms | +30.0 % "
            "| +30.0 % (+29.6 % to +30.4 %), p &lt; 0.0001; 3% is allowed |",
            SAME.format(4),
            "**Notes**",
            ANOTHER_REASON.format(r"latency.p50\_ms"),
        ],
    ),
    "extra layer": (
        {"layers": MORE, "times_ms": [1.4 * value for value in QUIET[::-1]]},
        1,
        [
            "3 worse, 2 same.",
            "- 🔴 **worse**: net: blocks.2 added: +100 MMACs, +7 k parameters (nets.py:19)",
            "  - net 16x1x112: macs.forward +40.0 %, params.total +42.7 %, "
            r"latency.p50\_ms +40.0 % (+39.5 % to +40.5 %)",
        ],
    ),
    "wider head": (
        {"layers": WIDER},
        1,
        [
            "2 worse, 3 same.",
            "- 🔴 **worse**: net: head changed: +2 kMACs, +2.01 k parameters (nets.py:19)",
            "  - net 16x1x112: macs.forward +2 kMACs, params.total +12.2 %",
            SAME.format(3),
        ],
    ),
    "more memory": (
        {"memory_mib": 150},
        1,
        [
            "1 worse, 4 same.",
            "| 🔴 | worse | `net 16x1x112` | `memory.peak_allocated_bytes` | 100 MiB | 150 MiB | +50.0 % "
            "| +50.0 % (+50.0 % to +50.0 %), p &lt; 0.0001; 3% is allowed |",
            SAME.format(4),
            "**Notes**",
            ANOTHER_REASON.format(r"memory.peak\_allocated\_bytes"),
        ],
    ),
    "accuracy drop": (
        {"top1": 70.0},
        1,
        [
            "1 worse, 4 same.",
            "| 🔴 | worse | `net 16x1x112` | `accuracy.top1` | 80 % | 70 % | -12.5 % | -10.00 pt (-11.13 pt to "
            "-8.87 pt) by the intervals over videos, one model a side, p &lt; 0.0001; 3% is allowed |",
            SAME.format(4),
        ],
    ),
    "rename": (
        {"name": "mesh"},
        3,
        [
            "nothing was compared; 3 missing, 3 added.",
            "**Missing in head**",
            f"- net 16x1x112: {NO_RESULTS}",
            "**Added in head**",
            "- mesh 16x1x112: is not in base (3 times)",
            "**Notes**",
            "- net is gone and mesh is new, with the same layers and counts: if it was renamed, add `renamed: {mesh: "
            "net}` to the suite, which compares them and keeps the history",
        ],
    ),
    "failing case": (
        {"status": "oom"},
        3,
        [
            "3 same; 5 failed.",
            "**Failed**",
            "- net 16x1x112 in head: a run of 5 ended as oom: RuntimeError: no (5 times)",
        ],
    ),
    "noisy case": (
        {"times_ms": LOUD},
        4,
        [
            "1 inconclusive, 4 same.",
            "| 🟡 | inconclusive | `net 16x1x112` | `latency.p50_ms` | 20 ms | 22 ms | +10.0 % | +10.0 % (-21.8 % to "
            "+52.0 %); 3% is allowed; it may be noise (p 0.9; below 0.01 is required); a quieter machine is needed, "
            "or a wider limit |",
            SAME.format(4),
        ],
    ),
}


def lines(base: list[Record], new: list[Record]) -> list[str]:
    """The comment without its title, the table headers and the rows of metrics that are the same."""
    text = as_markdown(compare(base, new))
    return [
        line
        for line in text.splitlines()[2:]
        if line and not line.startswith(("| ⚪", "| |", "|---", "Base `", "</details>"))
    ]


@pytest.mark.parametrize("planted", PLANTED)
def test_the_author_of_a_planted_change_reads(record: Make, planted: str) -> None:
    changes, code, expected = PLANTED[planted]
    base, new = model(record), head(record, **changes)
    assert lines(base, new) == expected
    assert compare(base, new).exit_code() == code


def test_a_new_case_passes_and_is_named(record: Make) -> None:
    base, new = model(record), [*head(record), *head(record, "other")]
    assert lines(base, new) == ["5 same; 3 added.", "**Added in head**", "- other 16x1x112: is not in base (3 times)"]
    assert compare(base, new).exit_code() == 0


def test_a_removed_case_is_incomplete_and_named(record: Make) -> None:
    """Its structure is that of no new model, so nobody calls it a rename."""
    base, new = [*model(record), *model(record, "other")], head(record)
    assert lines(base, new) == ["5 same; 3 missing.", "**Missing in head**", f"- other 16x1x112: {NO_RESULTS}"]
    assert compare(base, new).exit_code() == 3
