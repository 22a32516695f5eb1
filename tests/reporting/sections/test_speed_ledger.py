"""Published speeds and the measured ones, from records made by hand."""

from types import SimpleNamespace

from bench.core.schema import Record
from bench.reporting.results import collect


def measured(make: SimpleNamespace, gpu: str | None, **axes: object) -> Record:
    metrics = [
        make.metric("throughput.clips_per_s", v, "clips/s", labels={"batch": b}) for b, v in (("1", 60.0), ("8", 200.4))
    ]
    record = make.record("hiera_base_16x224", *metrics, clip="16x4x224", **axes)
    hardware = {} if gpu is None else {"gpu": gpu}
    return record.model_copy(update={"environment": record.environment.model_copy(update={"hardware": hardware})})


def table_of(make: SimpleNamespace, record: Record) -> list[list[str]]:
    page = make.page(make.report(collect([record])))
    return page.tables["published-speeds-table"][1:]


def test_on_the_same_kind_of_device_the_fastest_batch_is_compared(make: SimpleNamespace) -> None:
    [row] = table_of(make, measured(make, "NVIDIA A100-SXM4-40GB", precision="fp16"))
    assert row[3:] == ["133.6", "200.4", "1.50", "–"]


def test_on_another_device_there_is_no_ratio_and_the_difference_is_named(make: SimpleNamespace) -> None:
    [row] = table_of(make, measured(make, "NVIDIA H200", precision="fp16"))
    assert row[3:] == ["133.6", "200.4", "–", "A100 v NVIDIA H200"]
    [row] = table_of(make, measured(make, None, precision="bf16"))
    assert row[5:] == ["–", "A100 v CPU; fp16 v bf16"]
