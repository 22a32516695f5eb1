"""Records made by hand: small enough to work every number out, shaped as the measures shape them."""

import math
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bench.core.schema import Case, Environment, Failure, Metric, Point, Record, RecordWarning
from bench.reporting.results import Results
from bench.reporting.site import build_site
from bench.store import RecordStore

HOST = Environment(
    hardware={"cpu": "AMD EPYC 9B14", "cpu_threads": 2, "ram_bytes": 24 * 2**30},
    software={"torch": "2.15.0", "python": "3.11.2", "cuda": None},
    state={"load_1min": 0.7, "commit": "49f983f"},
)
GPU_HOST = Environment(
    hardware={"cpu": "Xeon 8481C", "cpu_threads": 16, "gpu": "NVIDIA H100 80GB HBM3", "gpu_driver": "570.10"},
    software={"torch": "2.15.0", "python": "3.11.2", "cuda": "12.8"},
    state={"load_1min": 1.5, "commit": "49f983f"},
)
TIMING = {"precision": "fp32", "memory_format": "contiguous", "compile": "off"}
CLOCK: Iterator[int] = iter(range(10**9))


def make_metric(name: str, value: float | None, unit: str = "", **rest: Any) -> Metric:
    """A metric; counts are exact, throughput and accuracies are better when higher."""
    is_higher = name.startswith(("throughput", "accuracy"))
    kind = {"better": "higher" if is_higher else "lower", "is_exact": name.startswith(("params", "macs"))}
    return Metric(**{"name": name, "value": value, "unit": unit, **kind, **rest})


def make_record(model: str = "c3d", *metrics: Metric, **rest: Any) -> Record:
    """A record of one case; keywords are axes of the point, arguments (`args=`), or fields of the record."""
    axes = {k: rest.pop(k) for k in list(rest) if k in Point.model_fields}
    point = Point(**{"model": model, "clip": "16x1x112", **axes})
    suite = rest.pop("suite", "demo")
    measures = rest.pop("measures", {m.name.partition(".")[0]: {} for m in metrics} or {"latency": {}})
    case = Case(suite=suite, point=point, measures=measures)
    tick = next(CLOCK)
    fields = {
        "case": case,
        "case_id": case.id,
        "run_index": 0,
        "freshness": "f",
        "status": "ok",
        "metrics": metrics,
        "environment": HOST,
        "started_at": (datetime(2025, 3, 1, tzinfo=UTC) + timedelta(seconds=tick)).isoformat(),
    }
    return Record(**{**fields, **rest})


def count_record(model: str = "c3d", *, params: int = 78_409_573, macs: int = 38_547_423_232, **rest: Any) -> Record:
    """Parameters and MACs of one model."""
    return make_record(
        model, make_metric("params.total", params, "elements"), make_metric("macs.forward", macs, "MACs"), **rest
    )


def timing_record(model: str = "c3d", *, ms: float = 20.0, n: int = 40, **rest: Any) -> Record:
    """Latency with samples around `ms`, throughput at two batches, memory that only the process knows."""
    samples = tuple(ms * (1 + 0.02 * math.sin(12.9898 * i) + (0.15 if i % 17 == 16 else 0)) for i in range(n))
    ordered = sorted(samples)
    details = {
        "drift": {},
        **rest.pop("details", {}),
    }  # tested for drift, so the interval stays
    return make_record(
        model,
        make_metric(
            "latency.p50_ms",
            ms,
            "ms",
            samples=samples,
            interval=(0.995 * ms, 1.006 * ms),
            stopped_because="precise enough",
        ),
        make_metric("latency.p99_ms", ordered[int(0.99 * n)], "ms"),
        make_metric("throughput.clips_per_s", 1000 / ms, "clips/s", labels={"batch": "1"}),
        make_metric("throughput.clips_per_s", 1500 / ms, "clips/s", labels={"batch": "8"}),
        make_metric("memory.peak_allocated_bytes", None, "B", note="torch does not count on a CPU"),
        make_metric("memory.peak_rss_bytes", 900e6 + 1e6 * ms, "B"),
        make_metric("energy.j_per_clip", None, "J", note="no energy counter"),
        **{**TIMING, **rest, "details": details},
    )


def accuracy_record(model: str = "c3d", *, top1: float = 90.0, n: int = 400, seed: int = 0, **rest: Any) -> Record:
    """Top-1 and top-5 in percent with an interval of test videos, and their protocol."""
    half = 196 * math.sqrt(top1 / 100 * (1 - top1 / 100) / n + 1e-6)
    top5 = min(100.0, top1 + 8)
    axes = {"dataset": "motions", "recipe": "quick", "views": "1x1", "seed": seed}
    protocol = {"dataset": "motions", "resize": "to cover the crop", "videos": n, "unread": 0, "averaging": "softmax"}
    details = {"protocol": protocol, "training": {"recipe": "quick", "epochs": 12, "steps": 600, "checkpoint": "last"}}
    return make_record(
        model,
        make_metric("accuracy.top1", top1, "%", interval=(max(0, top1 - half), min(100, top1 + half))),
        make_metric("accuracy.top5", top5, "%", interval=(top5 - 1, min(100, top5 + 1))),
        **{**axes, "details": details, **rest},
    )


def quickstart_records() -> list[Record]:
    """What the quickstart gives: three kernel depths and a ResNet, two seeds, one failure, one warning."""
    made: list[Record] = []
    models: list[tuple[str, dict[str, Any], int, int, float, tuple[float, float]]] = [
        ("c3d_search", {"kernel_depth": 1, "width": 0.125, "num_classes": 8}, 530_112, 101_842_000, 5.2, (49.5, 50.75)),
        ("c3d_search", {"kernel_depth": 3, "width": 0.125, "num_classes": 8}, 610_344, 286_421_000, 9.7, (96.25, 97.5)),
        (
            "c3d_search",
            {"kernel_depth": "increasing", "width": 0.125, "num_classes": 8},
            701_232,
            352_421_000,
            11.9,
            (96.75, 96.5),
        ),
        ("resnet3d", {"depth": 10, "widen_factor": 0.25, "num_classes": 8}, 921_768, 402_133_000, 14.1, (98.0, 97.25)),
    ]
    for model, args, params, macs, ms, accuracies in models:
        common = {"args": args, "suite": "quickstart", "clip": "16x1x48"}
        made.append(count_record(model, params=params, macs=macs, **common))
        made.append(timing_record(model, ms=ms, **common))
        made += [accuracy_record(model, top1=top1, seed=seed, **common) for seed, top1 in enumerate(accuracies)]
    made[5] = made[5].model_copy(update={"status": "unsteady"})
    made[1] = made[1].model_copy(
        update={"warnings": (RecordWarning(what="latency did not become steady", remedy="see `vbench doctor`"),)}
    )
    failure = Failure(
        type="OutOfMemoryError", message="CUDA out of memory", traceback="Traceback\n  line 1\nOutOfMemory"
    )
    made.append(
        make_record("c3d", suite="quickstart", status="oom", error=failure, artifacts={"log": "logs/1.log"}, batch=4096)
    )
    return made


QUICKSTART_FACTS = {
    "name": "quickstart",
    "title": "Does a model need kernels that reach through time to see motion?",
    "description": "A data set that vbench writes itself shows small textures moving in eight directions.",
    "text": "suite: quickstart\nmodels:\n  - {name: c3d_search, kernel_depth: [1, 3, increasing]}\n",
    "ablate": {"baseline": {"kernel_depth": 3}, "factors": ["kernel_depth"]},
}


class _Page(HTMLParser):
    """Tables by id as rows of cell texts, the titles of their cells, and all text outside scripts."""

    def __init__(self) -> None:
        super().__init__()
        self.tables: dict[str, list[list[str]]] = {}
        self.titles: dict[str, list[list[str]]] = {}
        self.best: dict[str, list[tuple[int, int]]] = {}
        self.text = ""
        self.scripts: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self._table = ""
        self._in_cell = self._in_script = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.tags.append((tag, given))
        if tag == "table" and given.get("id"):
            self._table = str(given["id"])
            self.tables[self._table], self.titles[self._table], self.best[self._table] = [], [], []
        elif tag == "tr":
            self.tables[self._table].append([])
            self.titles[self._table].append([])
        elif tag in ("td", "th"):
            self._in_cell = True
            self.tables[self._table][-1].append("")
            self.titles[self._table][-1].append(given.get("title") or "")
            if given.get("class") == "best":
                rows = self.tables[self._table]
                self.best[self._table].append((len(rows) - 2, len(rows[-1]) - 1))
        elif tag == "small" and self._in_cell:
            self.tables[self._table][-1][-1] += "|"
        elif tag == "script":
            self._in_script = True
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        self._in_cell = self._in_cell and tag not in ("td", "th")
        self._in_script = self._in_script and tag != "script"

    def handle_data(self, data: str) -> None:
        if self._in_script:
            self.scripts[-1] += data
            return
        self.text += data
        if self._in_cell:
            self.tables[self._table][-1][-1] += data.replace("\N{NARROW NO-BREAK SPACE}", " ")

    def column(self, table: str, head: str) -> list[str]:
        """The cells below the heading that starts with `head`."""
        heads, *rows = self.tables[table]
        place = next(i for i, text in enumerate(heads) if text.startswith(head))
        return [row[place] for row in rows]


def parse_page(html: str) -> _Page:
    page = _Page()
    page.feed(html)
    return page


def whole_report(results: Results, *, title: str | None = None) -> str:
    """All pages of a report in one HTML text, without styles, scripts and data."""
    return build_site(results, title=title, single_file=True).single_html(inline=False)


@pytest.fixture(scope="session")
def make() -> SimpleNamespace:
    """What makes records, and what reads a page."""
    return SimpleNamespace(
        metric=make_metric,
        record=make_record,
        counts=count_record,
        timing=timing_record,
        accuracy=accuracy_record,
        quickstart=quickstart_records,
        quickstart_facts=QUICKSTART_FACTS,
        host=HOST,
        gpu_host=GPU_HOST,
        page=parse_page,
        report=whole_report,
    )


@pytest.fixture(scope="session")
def results_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The quickstart's results as the store keeps them."""
    folder = tmp_path_factory.mktemp("results") / "quickstart"
    store = RecordStore(folder)
    for record in quickstart_records():
        store.append(record)
    store.write_suite(QUICKSTART_FACTS)
    return folder
