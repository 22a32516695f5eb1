"""The frontier of cost and gain."""

from types import SimpleNamespace

from hypothesis import given
from hypothesis import strategies as st

from bench.reporting.results import collect
from bench.reporting.sections.trade_off import ChartPoint, frontier, weigh

NUMBER = st.integers(0, 8).map(float)
POINTS = st.lists(st.tuples(NUMBER, NUMBER), max_size=12)


def points_at(places: list[tuple[float, float]]) -> list[ChartPoint]:
    return [ChartPoint(label=str(i), cost=c, gain=g, low=g, high=g) for i, (c, g) in enumerate(places)]


def test_the_frontier_leaves_out_what_costs_more_and_gives_less() -> None:
    found = frontier(points_at([(1, 50), (2, 90), (3, 80), (4, 95), (4, 70)]))
    assert [(p.cost, p.gain) for p in found] == [(1, 50), (2, 90), (4, 95)]


@given(places=POINTS)
def test_the_frontier_is_what_no_other_point_beats(places: list[tuple[float, float]]) -> None:
    points = points_at(places)
    unbeaten = {
        p.label
        for p in points
        if not any((q.cost <= p.cost and q.gain >= p.gain) and (q.cost, q.gain) != (p.cost, p.gain) for q in points)
    }
    assert {p.label for p in frontier(points)} == unbeaten


def test_a_doubtful_gain_is_hollow_as_a_doubtful_cost_is(make: SimpleNamespace) -> None:
    """Without accuracies the gain is a throughput, which may be doubtful as any timing."""
    models = [("steady", 1, 20.0, "ok"), ("slow", 2, 30.0, "ok"), ("doubtful", 3, 1.0, "unsteady")]
    records = [
        record
        for name, macs, ms, status in models
        for record in (make.counts(name, macs=macs), make.timing(name, ms=ms, status=status))
    ]
    page = weigh(collect(records)) or ""
    assert "1 of 2 on the frontier. ①\N{NO-BREAK SPACE}steady. 1 point is hollow and not ranked." in page


def test_more_points_than_circled_numbers_are_numbered_all_the_same(make: SimpleNamespace) -> None:
    records = [r for n in range(1, 13) for r in (make.counts(f"net{n}", macs=n), make.accuracy(f"net{n}", top1=50 + n))]
    page = weigh(collect(records)) or ""
    assert "12 of 12 on the frontier. 1:\N{NO-BREAK SPACE}net1, " in page
    assert " and 12:\N{NO-BREAK SPACE}net12." in page


def test_an_accuracy_lent_to_another_precision_is_hollow(make: SimpleNamespace) -> None:
    args = {"num_classes": 8}
    timings = [make.timing(ms=ms, precision=p, args=args) for p, ms in (("fp32", 30.0), ("bf16", 10.0))]
    page = weigh(collect([make.accuracy(top1=76.1, args=args), *timings])) or ""
    assert (
        "Top-1 against Latency: 1 of 1 on the frontier. ①\N{NO-BREAK SPACE}c3d num_classes=8 (fp32). 1 point is hollow"
        in page
    )


def test_points_that_are_not_drawn_are_counted(make: SimpleNamespace) -> None:
    """Of 405 models the cheapest is the best; 400 of the other 404 are drawn."""
    records = [
        record for n in range(405) for record in (make.counts(f"net{n}", macs=1 + n), make.timing(f"net{n}", ms=10 + n))
    ]
    page = weigh(collect(records)) or ""
    assert "1 of 405 on the frontier" in page
    assert "4 more points are not drawn." in page


def test_the_points_of_a_chart_stand_in_a_table_below_it(make: SimpleNamespace) -> None:
    """A chart names all but the best points only under the mouse."""
    models = [("small", 1, 60.5), ("good", 2, 80.0), ("beaten", 3, 70.0)]
    args = {"num_classes": 8}
    records = [
        record
        for name, macs, top1 in models
        for record in (make.counts(name, macs=macs, args=args), make.accuracy(name, top1=top1, args=args))
    ]
    page = weigh(collect([*records, make.counts("without an accuracy", macs=9)])) or ""
    found = make.page(page)
    (table,) = found.tables
    assert [text.partition("|")[0] for text in found.column(table, "Model")] == ["good", "beaten", "small"]
    assert [text[:4] for text in found.column(table, "Top-1")] == ["80.0", "70.0", "60.5"]
    assert [text[:1] for text in found.column(table, "MACs")] == ["2", "3", "1"]
    assert page.index("</figure>") < page.index("<details>") < page.index(f'id="{table}"')


def test_charts_beyond_the_first_are_counted(make: SimpleNamespace) -> None:
    """MACs and parameters give one chart each, latency and memory one per machine: six, of which four are drawn."""
    records = []
    for name, scale in (("a", 1), ("b", 2)):
        records += [make.accuracy(name, top1=50 + scale), make.counts(name, macs=scale, params=scale)]
        for host in (make.host, make.gpu_host):
            memory = make.metric("memory.peak_allocated_bytes", float(scale), "B")
            time = make.metric("latency.p50_ms", float(scale), "ms")
            records.append(make.record(name, time, memory, precision="fp32", environment=host))
    page = weigh(collect(records)) or ""
    assert page.count('class="plot"') == 4
    assert "2 more charts of this gain are not drawn" in page
