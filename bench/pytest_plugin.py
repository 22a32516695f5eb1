"""The gate inside pytest: the fixture `vbench` measures a model in fresh processes and compares it with a baseline.

    def test_my_model_stays_fast(vbench):
        vbench.gate("throughput", "my_package.models:small", "1x3x16x112x112", limit="3%")

`pytest --vbench-update` keeps the measured records as the baseline, one per kind of machine if a metric depends on the
machine. A gate without a baseline fails, because it has compared nothing. `pytest --vbench-compare main` needs no
baseline: it measures the commit and the working folder alternately, as `vbench ab main .` does. Models are named by
text, so a test may be parametrised with them. Gates on timings need the machine to themselves, so they fail if
pytest-xdist runs several workers.

The model that a test names is trusted, like the test. Home folders and host names are replaced in records, which
are meant for git; `--vbench-identify` keeps them.

    .vbench/baseline/<case>[-<options>]/<machine>/records.jsonl
"""

import math
import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import pytest

if TYPE_CHECKING:
    from bench.comparison.verdicts import Comparison, MetricVerdict
    from bench.core.schema import Case, Record

BASELINE = ".vbench/baseline"
SUITE = "pytest"
GAPS = ("Missing in head", "Failed", "Gated but not measured")  # titles of `sections`


def pytest_addoption(parser: pytest.Parser) -> None:
    """Options of the gate, in a group of their own."""
    group = parser.getgroup("vbench")
    group.addoption("--vbench-update", action="store_true", help="keep what vbench gates measure as their baseline")
    group.addoption("--vbench-compare", metavar="REF", help="measure this commit too, and compare with it")
    group.addoption(
        "--vbench-budget",
        metavar="SECONDS",
        type=float,
        default=300.0,
        help="for --vbench-compare (default: 300 a gate)",
    )
    group.addoption("--vbench-baseline", metavar="FOLDER", help=f"where baselines are kept (default: {BASELINE})")
    group.addoption("--vbench-identify", action="store_true", help="keep home folders and host names in baselines")
    group.addoption("--vbench-across", action="store_true", help="compare with baselines of other machines too")


def pytest_configure(config: pytest.Config) -> None:
    """Raise UsageError if options exclude each other or allow no time."""
    if config.getoption("--vbench-compare") is not None and config.getoption("--vbench-update"):
        raise pytest.UsageError("--vbench-compare reads and writes no baseline; give it without --vbench-update")
    budget_s = config.getoption("--vbench-budget")
    if not 0 < budget_s < math.inf:
        raise pytest.UsageError(f"--vbench-budget {budget_s:g} is not a time in seconds; give one above 0, such as 300")


@pytest.fixture
def vbench(request: pytest.FixtureRequest, tmp_path: Path) -> "Gate":
    """Return the gate of this test. Verdicts become properties of the test in JUnit XML."""
    config = request.config
    folder = Path(config.getoption("--vbench-baseline") or config.rootpath / BASELINE)
    return Gate(
        baseline=folder,
        work=tmp_path,
        does_update=bool(config.getoption("--vbench-update")),
        is_across=bool(config.getoption("--vbench-across")),
        identify=bool(config.getoption("--vbench-identify")),
        compare_with=config.getoption("--vbench-compare"),
        budget_s=config.getoption("--vbench-budget"),
        properties=request.node.user_properties,  # the fixture record_property warns about xunit2, the default
    )


class Gate:
    """Measures, and fails the test on a regression, on an inconclusive verdict, and if nothing could be compared."""

    def __init__(
        self,
        *,
        baseline: Path,
        work: Path,
        does_update: bool,
        is_across: bool,
        identify: bool = False,
        compare_with: str | None = None,
        budget_s: float = 300.0,
        properties: list[tuple[str, object]] | None = None,
    ) -> None:
        self.baseline, self.work = baseline, work
        self.does_update, self.is_across, self.identify = does_update, is_across, identify
        self.compare_with, self.budget_s, self._properties = compare_with, budget_s, properties

    def gate(
        self,
        metric: str,
        model: str,
        input: str,  # noqa: A002  # as `vbench profile --input`
        *,
        limit: str | None = None,
        runs: int = 5,
        device: str | None = None,
        arguments: Mapping[str, Any] | None = None,
        options: Mapping[str, Any] | None = None,
        timeout_s: float = 600.0,
    ) -> "Comparison | None":
        """Compare `metric`, a measure such as `throughput` or one metric of it, with the baseline.

        `model` is a name as for `create_model`, `input` a shape `BxCxTxHxW`, `limit` the allowed change for the worse
        (3 % by default, 0 for counts), `options` are those of the measure. Returns None if it updates the baseline.
        Raises InputError for a shape that cannot be read or that the model does not accept.
        """
        __tracebackhide__ = True
        from bench.core.errors import BenchError

        try:
            case = _case(metric, model, input, device=device, arguments=arguments, options=options, timeout_s=timeout_s)
            return self._judge(case.model_copy(update={"runs": runs}), metric, limit, shape=input)
        except BenchError as error:
            raise error.with_traceback(None) from None  # pytest then shows the line of the test alone

    def _judge(self, case: "Case", metric: str, limit: str | None, *, shape: str) -> "Comparison | None":
        """Measure, and compare with the baseline or the commit; keep the baseline instead if it is to be updated."""
        from bench.comparison.baselines import fingerprint_of
        from bench.comparison.comparing import compare
        from bench.core.privacy import without_identity
        from bench.store import RECORDS, RecordStore

        _refuse_xdist_workers(case)
        if self.compare_with is not None:
            comparison = self._compare_commit(case, metric, limit)
            self._conclude(comparison, metric, is_gated=True)
            return comparison
        name = _name(case)
        kept = self.baseline / name
        if not self.does_update and not any(kept.rglob(RECORDS)):
            _fail(f"no baseline of {case.title} in {self.baseline}; keep one with: pytest --vbench-update")
        records = _measure(case, RecordStore(self.work / name), shape=shape)
        if not self.identify:
            records = [without_identity(record) for record in records]
        if self.does_update:
            _keep(records, RecordStore(kept / fingerprint_of(records[0])))
            return None
        allowed = _limits(records, metric, limit)
        comparison = compare(_baseline(kept, records[0]), records, gate=allowed, across=self.is_across)
        self._conclude(comparison, metric, is_gated=bool(allowed))
        return comparison

    def _compare_commit(self, case: "Case", metric: str, limit: str | None) -> "Comparison":
        """Measure the commit and the working folder alternately, as `vbench ab` does."""
        from bench.ab.gate import ab
        from bench.comparison.allowed_changes import DEFAULT, EXACTLY
        from bench.core.registry import MEASURES
        from bench.core.yaml_tree import Tree

        assert self.compare_with is not None
        point, [(measure, options)] = case.point, case.measures.items()
        clip = point.clip
        axes = {
            name: [value] for name in ("batch", "device", "precision") if (value := getattr(point, name)) is not None
        }
        suite = {
            "suite": SUITE,
            "models": [{"name": point.model, **point.args}],
            "matrix": {"clip": [f"{clip.frames}x1x{clip.height}x{clip.width}"], **axes},
            "measure": {measure: options},
            "timeout_s": case.timeout_s,
        }
        default = EXACTLY if MEASURES.get(measure).is_count else DEFAULT
        gates = {metric: limit or str(default)} if "." in metric else {f"{measure}.*": limit} if limit else {}
        return ab(
            self.compare_with,
            ".",
            Tree.of(suite, name="the test"),
            budget_s=self.budget_s,
            out=self.work / "ab",
            identify=self.identify,
            across=self.is_across,
            gate=gates,
        )

    def _conclude(self, comparison: "Comparison", metric: str, *, is_gated: bool) -> None:
        """Fail the test unless all deciding verdicts are good; its JUnit properties hold verdict and values."""
        __tracebackhide__ = True
        from bench.comparison.formats import sections

        rows = [row for row in comparison.rows if row.is_deciding and (is_gated or metric in _names(row.metric))]
        if self._properties is not None:
            self._properties += _properties(rows, known={name for name, _ in self._properties})
        bad = [row for row in rows if row.verdict in ("worse", "inconclusive")]
        verdicts = "\n".join(f"{row.verdict}: {row.metric} of {row.case}: {row.reason}" for row in bad)
        causes = "\n".join(map(str, comparison.causes))
        if not rows or comparison.exit_code(fail_on=["incomplete"]):
            gaps = [
                f"{title.lower()}: {line}" for title, lines in sections(comparison) for line in lines if title in GAPS
            ]
            what = "a part was not compared" if rows else "nothing was compared"
            _fail("\n".join([f"incomplete: {what}", *gaps, verdicts]).strip())
        if bad:
            _fail("\n".join(filter(None, [verdicts, causes])))


def _properties(rows: "Sequence[MetricVerdict]", *, known: Collection[str]) -> list[tuple[str, object]]:
    """Return verdict and known values of each row as properties of a test, in types that xdist and XML can hold.

    The name of a property contains the case if a gate of the same test has used the short name.
    """
    from bench.comparison.formats import UNPRINTABLE
    from bench.comparison.verdicts import one_line

    found: list[tuple[str, object]] = []
    for row in rows:
        title = UNPRINTABLE.sub("\ufffd", f"vbench {row.metric}")
        if f"{title} verdict" in known:
            title += UNPRINTABLE.sub("\ufffd", f" of {one_line(row.case)}")
        values = {"base": row.base, "head": row.head, "ratio": row.ratio}
        found.append((f"{title} verdict", row.verdict))
        for name, value in values.items():
            if value is not None:
                found.append((f"{title} {name}", float(value) if isinstance(value, float) else int(value)))
    return found


def _case(
    metric: str,
    model: str,
    shape: str,
    *,
    device: str | None,
    arguments: Mapping[str, Any] | None,
    options: Mapping[str, Any] | None,
    timeout_s: float,
) -> "Case":
    from bench.core.errors import InputError
    from bench.core.registry import MEASURES
    from bench.core.schema import Case, Clip, Point

    parts = shape.lower().split("x")
    if len(parts) != 5 or not all(part.isdecimal() and int(part) for part in parts):
        raise InputError(f"input {shape!r} is not a shape BxCxTxHxW, such as 1x3x16x112x112")
    batch, _, frames, height, width = map(int, parts)
    measure = MEASURES.get(metric.partition(".")[0])
    axes: dict[str, Any] = {"batch": batch, "device": device, "precision": "fp32"}
    point = Point(
        model=model,
        args=dict(arguments or {}),
        clip=Clip(frames=frames, height=height, width=width),
        **{axis: value for axis, value in axes.items() if axis in measure.depends_on},
    )
    return Case(suite=SUITE, point=point, measures={measure.name: dict(options or {})}, timeout_s=timeout_s)


def _name(case: "Case") -> str:
    """Return the folder of a case's baselines; it adds the measure's options, which the case id does not cover."""
    from bench.core.schema import digest

    options = {name: given for name, given in case.measures.items() if given}
    return f"{case.id}-{digest(options)}" if options else case.id


def _baseline(kept: Path, record: "Record") -> Path:
    """Return the baseline of machines like the one of `record`; else the newest, which `compare` may refuse."""
    from bench.comparison.baselines import fingerprint_of
    from bench.store import RECORDS, read_records

    own = kept / fingerprint_of(record) / RECORDS
    if own.is_file():
        return own
    return max(kept.rglob(RECORDS), key=lambda file: max((each.started_at for each in read_records(file)), default=""))


def _refuse_xdist_workers(case: "Case") -> None:
    """Fail the test if other pytest workers would disturb a timing."""
    from bench.core.registry import MEASURES

    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT") or 1)
    measured = [name for name in case.measures if MEASURES.get(name).is_repeated]
    if workers > 1 and measured:
        _fail(
            f"{measured[0]} of {case.title} cannot be measured next to {workers - 1} other workers; run gates with -n 0"
        )


def _refuse_channels(record: "Record", shape: str) -> None:
    """Raise InputError if `shape` has other channels than the model takes, which were measured instead."""
    from bench.core.errors import InputError
    from bench.core.units import plural

    taken, given = record.details.get("input_channels"), int(shape.lower().split("x")[1])
    if isinstance(taken, list) and given not in taken:
        channels = " and ".join(map(str, taken))
        raise InputError(
            f"input {shape!r} has {plural(given, 'channel')}, but {record.case.point.model} takes {channels}"
        )


def _measure(case: "Case", store: Any, *, shape: str) -> "list[Record]":
    """Return one record per run, each in a fresh process; fails the test at the first run without a result."""
    from bench.runner import local

    records = []
    for index in range(case.runs):
        record = local.run_case(case, store, run_index=index, freshness="")
        if not record.is_good:
            why = f"{record.error.type}: {record.error.message}" if record.error else record.status
            _fail(f"{case.title} could not be measured ({record.status}): {why}")
        _refuse_channels(record, shape)
        records.append(record)
        if all(metric.is_count for metric in record.metrics):
            break
    return records


def _keep(records: "Sequence[Record]", store: Any) -> None:
    """Replace the baseline by `records`."""
    store.file.unlink(missing_ok=True)
    for record in records:
        store.append(record)


def _limits(records: "Sequence[Record]", metric: str, limit: str | None) -> dict[str, str]:
    """Return limits for what `metric` names; empty for a measure without a limit, whose default metrics decide."""
    from bench.comparison.allowed_changes import DEFAULT, EXACTLY

    if limit is None and "." in metric:
        named = [m for m in records[0].metrics if metric in _names(m.key)]
        limit = str(EXACTLY if named and all(m.is_count for m in named) else DEFAULT)
    return {} if limit is None else dict.fromkeys(_headlines(records, metric), limit)


def _headlines(records: "Sequence[Record]", metric: str) -> list[str]:
    """Return `metric`, or for a measure its metrics with samples, else all with a better direction."""
    if "." in metric:
        return [metric]
    directed = [m for m in records[0].metrics if m.better is not None]
    return [m.key for m in directed if m.samples] or [m.key for m in directed]


def _names(key: str) -> tuple[str, str, str]:
    """Return the three names of a metric: its measure, its name, and its key with labels."""
    return key.partition(".")[0], key.partition("{")[0], key


def _fail(message: str) -> NoReturn:
    """Fail the test with these lines alone, without a traceback through this file."""
    pytest.fail(message, pytrace=False)
