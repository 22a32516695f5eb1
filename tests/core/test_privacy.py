"""What a record tells of a user and a machine."""

import hashlib
from pathlib import Path

import pytest

from bench.core import privacy
from bench.core.privacy import anonymous_text, host_alias, recorded_variables, without_identity
from bench.core.schema import Case, Environment, Failure, Point, Record, RecordWarning


@pytest.fixture(autouse=True)
def _machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/data/ada")
    monkeypatch.setattr("socket.gethostname", lambda: "gpu-node7.lab.example")
    for cached in (privacy._home, privacy._host):
        cached.cache_clear()


@pytest.mark.parametrize("name", ["NVIDIA_API_KEY", "TORCH_AUTH_TOKEN", "PYTORCH_PASSWORD", "HOME", "USER"])
def test_only_known_settings_are_recorded(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "hidden")
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    found = recorded_variables()
    assert name not in found
    assert found["OMP_NUM_THREADS"] == "3"


def test_no_name_on_the_list_looks_like_a_secret() -> None:
    assert not [name for name in privacy.RECORDED_VARIABLES if privacy.SECRET_NAME.search(name)]


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("/data/ada/nets/a.py:3", "~/nets/a.py:3"),
        ("'/home/bob' and /Users/eve/x", "'~' and ~/x"),
        ("/data/adam/x", "/data/adam/x"),
        ("/srv/home/bob/x", "/srv/home/bob/x"),
        ("no route to gpu-node7.lab.example:29500", f"no route to {host_alias('gpu-node7')}:29500"),
        ("GPU-Node7", host_alias("gpu-node7")),
        ("gpu-node71", "gpu-node71"),
    ],
)
def test_home_folders_and_the_host_are_replaced(text: str, clean: str) -> None:
    assert anonymous_text(text) == clean


def test_the_alias_of_a_host_is_stable_and_anonymous() -> None:
    assert host_alias("gpu-node7.lab.example") == f"host-{hashlib.sha256(b'gpu-node7').hexdigest()[:6]}"


def test_a_record_keeps_its_point_and_loses_the_rest() -> None:
    point = Point(model="c3d", clip="16x1x112", weights="/home/bob/a.pt")  # type: ignore[arg-type]
    case = Case(suite="s", point=point, measures={"params": {}})
    record = Record(
        case=case,
        case_id=case.id,
        run_index=0,
        freshness="f",
        status="error",
        started_at="2026-01-01T00:00:00+00:00",
        details={"weights": {"path": "/home/bob/a.pt"}, "list": ["gpu-node7", 3]},
        environment=Environment(state={"env.NVIDIA_API_KEY": "x", "container": "/data/ada"}),
        warnings=(RecordWarning(what="see /home/bob/log"),),
        error=Failure(type="E", message="in /home/bob/a.py", traceback='File "/data/ada/b.py"'),
    )
    clean = without_identity(record)
    assert clean.case == case
    assert clean.details == {"weights": {"path": "~/a.pt"}, "list": [host_alias("gpu-node7"), 3]}
    assert clean.environment.state == {"container": "~"}
    assert clean.warnings[0].what == "see ~/log"
    assert clean.error == Failure(type="E", message="in ~/a.py", traceback='File "~/b.py"')
    assert Path.home() == Path("/data/ada")
