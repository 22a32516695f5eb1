"""Records on their way to a tracker: a simulated one that works, fails or hangs, and a real MLflow server."""

import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

from bench.core.errors import InputError, MissingPackageError, UnknownNameError
from bench.core.schema import Case, Clip, Environment, Failure, Metric, Point, Record
from bench.runner import sending, sinks
from bench.runner.sending import Sink, known_metrics, open_sinks, parameters_of, sink_names

POINT = Point(model="c3d", args={"num_classes": 4}, clip=Clip.model_validate("16x1x112"), batch=8)
CASE = Case(suite="kernel_depth", point=POINT, measures={"throughput": {}})


def record_of(number: int = 0) -> Record:
    return Record(
        case=CASE,
        case_id=CASE.id,
        run_index=number,
        freshness="",
        started_at="2026-11-30T12:00:00+00:00",
        status="ok",
        metrics=(
            Metric(name="throughput.clips_per_s", value=50.5, unit="clips/s", labels={"batch": "8"}),
            Metric(name="energy.j_per_clip", value=None, unit="J", note="no counter"),
        ),
        environment=Environment(hardware={"cpu": "Epyc", "gpu": None}),
    )


@pytest.fixture
def tracker(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Callable[[Record], None]], Sink]]:
    """A tracker named `simulated`, whose `send` is the given function."""

    def make(send: Callable[[Record], None]) -> Sink:
        class Sender:
            def __init__(self, target: str, *, suite: str) -> None:
                assert (target, suite) == ("here", "kernel_depth")

            def send(self, record: Record) -> None:
                send(record)

            def close(self) -> None:
                closed.append(True)

        module = ModuleType("bench.runner.sinks.simulated")
        vars(module).update(PACKAGE="json", EXTRA="none", TARGET="a place", Sender=Sender)
        monkeypatch.setitem(sys.modules, module.__name__, module)
        monkeypatch.setattr(sending, "sink_names", lambda: ["simulated"])
        sink = Sink("simulated:here")
        sink.start("kernel_depth")
        return sink

    closed: list[bool] = []
    return make  # type: ignore[return-value]


def test_each_record_is_sent_once_in_order(tracker: Callable[..., Sink]) -> None:
    seen: list[int] = []
    sink = tracker(lambda record: seen.append(record.run_index))
    assert [sink.add(record_of(number)) for number in range(3)] == [None, None, None]
    sink.close()
    assert seen == [0, 1, 2]


@pytest.mark.parametrize("error", [OSError("refused"), SystemExit(1), ValueError("a\nb")])
def test_a_tracker_that_fails_costs_one_warning_and_is_left_alone(
    tracker: Callable[..., Sink], error: BaseException
) -> None:
    calls: list[int] = []

    def fail(record: Record) -> None:
        calls.append(record.run_index)
        raise error

    sink = tracker(fail)
    warning = sink.add(record_of(0))
    assert warning is not None
    assert warning.startswith(f"--sink simulated: {type(error).__name__}: ")
    assert "\n" not in warning
    assert sink.add(record_of(1)) is None
    sink.close()
    assert calls == [0]


def test_a_tracker_that_hangs_costs_a_wait_and_one_warning(
    tracker: Callable[..., Sink], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sending, "CONNECT_S", 0.1)
    monkeypatch.setattr(sending, "SEND_S", 0.1)
    sink = tracker(lambda record: time.sleep(30))
    began = time.monotonic()
    assert "no answer within 0.1 s" in str(sink.add(record_of(0)))
    assert sink.add(record_of(1)) is None
    sink.close()
    assert time.monotonic() - began < 20


def test_an_unknown_tracker_gets_the_nearest_spelling() -> None:
    with pytest.raises(UnknownNameError, match="did you mean: mlflow"):
        open_sinks(["mflow:http://localhost"])


def test_a_tracker_without_a_target_is_refused_with_what_it_needs() -> None:
    with pytest.raises(InputError, match="needs the URI of a tracking server or database"):
        open_sinks(["mlflow"])


def test_a_package_that_is_not_installed_is_named_before_anything_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sending, "find_spec", lambda name: None)
    with pytest.raises(MissingPackageError, match=r"vbench-video\[wandb\]"):
        open_sinks(["wandb:videos"])


def test_every_file_of_the_folder_is_a_tracker() -> None:
    files = {file.stem for file in Path(sinks.__path__[0]).glob("*.py")} - {"__init__"}
    assert set(sink_names()) == files == {"mlflow", "trackio", "wandb"}
    for name in files:
        module = importlib.import_module(f"bench.runner.sinks.{name}")
        assert module.PACKAGE
        assert module.EXTRA
        assert module.TARGET


def test_unknown_values_are_left_out_and_axes_are_parameters() -> None:
    assert known_metrics(record_of()) == {"throughput.clips_per_s{batch=8}": 50.5}
    assert parameters_of(record_of(2)) == {
        "model": "c3d", "clip": "16x1x112", "batch": 8, "num_classes": 4, "run": 2, "cpu": "Epyc",
    }  # fmt: skip


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """The address of an MLflow server on this machine."""
    if importlib.util.find_spec("mlflow") is None or importlib.util.find_spec("flask") is None:
        pytest.skip("mlflow is not installed")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", address.rpartition(":")[2]]
    places = [
        "--backend-store-uri",
        f"sqlite:///{tmp_path}/runs.db",
        "--artifacts-destination",
        str(tmp_path / "files"),
    ]
    with (tmp_path / "server.log").open("wb") as log:
        process = subprocess.Popen(
            [*command, *places, "--workers", "1"], stdout=log, stderr=log, start_new_session=True
        )
    try:
        deadline = time.monotonic() + 120
        while not _answers(f"http://{address}/health"):
            assert process.poll() is None, (tmp_path / "server.log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.3)
        yield f"http://{address}"
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_real_mlflow_server_shows_what_was_measured(server: str) -> None:
    sink = Sink(f"mlflow:{server}")
    sink.start("kernel_depth")
    broken = record_of(1).model_copy(update={"status": "error", "error": Failure(type="E", message="m", traceback="")})
    assert [sink.add(record) for record in (record_of(0), broken)] == [None, None]
    sink.close()
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=server)
    experiment = client.get_experiment_by_name("kernel_depth")
    runs = sorted(client.search_runs([experiment.experiment_id]), key=lambda run: run.data.params["run"])
    assert [run.info.status for run in runs] == ["FINISHED", "FAILED"]
    assert runs[0].info.run_name == CASE.title
    assert runs[0].data.metrics == {"throughput.clips_per_s/batch-8": 50.5}
    assert runs[0].data.params["num_classes"] == "4"
    assert runs[0].data.tags["vbench.case"] == CASE.id
    file = client.download_artifacts(runs[0].info.run_id, "record.json")
    assert Record.model_validate(json.loads(Path(file).read_text())) == record_of(0)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_server_that_is_gone_costs_one_warning() -> None:
    if importlib.util.find_spec("mlflow") is None:
        pytest.skip("mlflow is not installed")
    sink = Sink("mlflow:http://127.0.0.1:9")
    sink.start("kernel_depth")
    assert str(sink.add(record_of())).startswith("--sink mlflow: ")
    assert sink.add(record_of(1)) is None
    sink.close()
