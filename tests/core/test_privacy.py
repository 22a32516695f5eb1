"""What a record tells of a user and a machine."""

import hashlib
import time
from pathlib import Path

import pytest

from bench.core import privacy
from bench.core.privacy import (
    anonymous_text,
    clean_file,
    clean_record,
    host_alias,
    recorded_variables,
    without_identity,
    without_secret_values,
)
from bench.core.schema import Case, Environment, Failure, Metric, Point, Record, RecordWarning


@pytest.fixture(autouse=True)
def _machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/data/ada")
    monkeypatch.setattr("socket.gethostname", lambda: "gpu-node7.lab.example")
    monkeypatch.setenv("LAB_API_KEY", "lab-secret-1")
    monkeypatch.setenv("SHORT_KEY", "1")
    for cached in (privacy._home, privacy._host, privacy._secret_values):
        cached.cache_clear()


@pytest.mark.parametrize(
    "name",
    [
        *("NVIDIA_API_KEY", "TORCH_AUTH_TOKEN", "PYTORCH_PASSWORD", "HOME", "USER", "HF_HUB_TOKEN", "MYSQL_PWD"),
        *("aws_session_credentials", "HTTPS_PROXY", "CUDA_VISIBLE_DEVICES_KEY", "DATABASE_URL"),
    ],
)
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
        ("/srv/home/bob/x", "~/x"),
        ("/gpfs/fs1/home/bob", "~"),
        ("/root/.cache and /rootless", "~/.cache and /rootless"),
        ("a/home/bob and /home", "a/home/bob and /home"),
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


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("401 for lab-secret-1: no", "401 for ***: no"),
        ("HF_TOKEN=hf_abcdef", "HF_TOKEN=***"),
        ("{'HF_TOKEN': 'hf_abcdef', 'A': '1'}", "{'HF_TOKEN': '***', 'A': '1'}"),
        (r"{\"AWS_SECRET_ACCESS_KEY\": \"abcd/ef+g\"}", r"{\"AWS_SECRET_ACCESS_KEY\": \"***\"}"),
        ('"env.NVIDIA_API_KEY":"nvapi-7"', '"env.NVIDIA_API_KEY":"***"'),
        ("export WANDB_API_KEY = 0123456789", "export WANDB_API_KEY = ***"),
        ("key=value, tokens: 400 per clip, PASS: 12 tests", "key=value, tokens: 400 per clip, PASS: 12 tests"),
        ("step 1 of 1", "step 1 of 1"),
        ("KEYFRAMES 12, AUTHOR x", "KEYFRAMES 12, AUTHOR x"),
        ("MYSQL_PWD=geheim1 HF_HUB_TOKEN: abcd PWD=/srv/x", "MYSQL_PWD=*** HF_HUB_TOKEN: *** PWD=/srv/x"),
        ("origin https://ada:ghp_1@git.example/x.git", "origin https://***@git.example/x.git"),
        ("https://glpat1234@git.example/x", "https://***@git.example/x"),
        ("postgres://ada:p4ss@db:5432/x", "postgres://***@db:5432/x"),
        ("ssh://git@git.example/x and ada@lab.example", "ssh://git@git.example/x and ada@lab.example"),
        ("GET /a?size=3&X-Amz-Signature=0123ab&b=1", "GET /a?size=3&X-Amz-Signature=***&b=1"),
        ("Authorization: Bearer abc.def-123", "Authorization: Bearer ***"),
        (f"used hf_{'a1' * 17}, then", "used ***, then"),
        (f"ghp_{'Z9' * 18} AKIA{'A1' * 8}", "*** ***"),
        ("hf_hub_download of sk-learn, eyJ.x.y", "hf_hub_download of sk-learn, eyJ.x.y"),
    ],
)
def test_values_of_secret_variables_are_hidden(text: str, clean: str) -> None:
    assert without_secret_values(text) == clean
    assert without_secret_values(clean) == clean


@pytest.mark.parametrize("name", ["HF_HUB_TOKEN", "MYSQL_PWD", "aws_session_credentials", "LAB_COOKIE", "MyPassphrase"])
def test_a_value_of_any_variable_with_the_name_of_a_secret_is_hidden(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, "plain-word-7")
    privacy._secret_values.cache_clear()
    assert without_secret_values("no plain-word-7 here") == "no *** here"


@pytest.mark.parametrize(
    "part", ["KEY", "a.", "a", "?token", "://x", "/home", "/a", "eyJ.", "Bearer ", "hf_", "_", "x:"]
)
def test_no_text_takes_quadratic_time(part: str) -> None:
    started = time.process_time()
    for end in ("", "=", "@", " "):
        anonymous_text(part * 100_000 + end)
    assert time.process_time() - started < 10, "seconds, of which a quadratic pattern takes thousands"


def test_a_record_that_identifies_its_machine_holds_no_secret_either() -> None:
    point = Point(model="c3d", clip="16x1x112")  # type: ignore[arg-type]
    case = Case(suite="s", point=point, measures={"params": {}})
    record = Record(
        case=case,
        case_id=case.id,
        run_index=0,
        freshness="f",
        status="error",
        started_at="2026-01-01T00:00:00+00:00",
        details={"url": "https://lab-secret-1@host/home/bob"},
        error=Failure(type="E", message="lab-secret-1 in /home/bob/a.py"),
    )
    clean = clean_record(record, identify=True)
    assert clean.details == {"url": "https://***@host/home/bob"}
    assert clean.error == Failure(type="E", message="*** in /home/bob/a.py")


def test_a_file_is_cleaned_from_a_place_on_and_keeps_bytes_that_are_no_text(tmp_path: Path) -> None:
    file = tmp_path / "log"
    before = b"lab-secret-1\n"
    file.write_bytes(before + b"\xff lab-secret-1 /home/bob\n")
    assert clean_file(file, start=len(before), identify=True)
    assert file.read_bytes() == before + b"\xff *** /home/bob\n"
    assert clean_file(file)
    assert file.read_bytes() == b"***\n\xff *** ~\n"
    assert not clean_file(file)


def test_a_secret_that_begins_with_a_slash_is_hidden_and_a_path_is_not(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Base64 has a slash in one of 64 places."""
    (tmp_path / "token").touch()
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "/bPxRfiCYEXAMPLEKEYwJalrXUtnFEMI+K7M")
    monkeypatch.setenv("LAB_TOKEN_FILE", str(tmp_path / "token"))
    privacy._secret_values.cache_clear()
    text = f"signed with /bPxRfiCYEXAMPLEKEYwJalrXUtnFEMI+K7M, read from {tmp_path}/token"
    assert without_secret_values(text) == f"signed with ***, read from {tmp_path}/token"


def test_notes_of_metrics_and_names_of_details_are_cleaned() -> None:
    case = Case(suite="s", point=Point(model="c3d", clip="16x1x112"), measures={"macs": {}})  # type: ignore[arg-type]
    note = "thop failed: no file /home/bob/net.py, HF_TOKEN=hf_abcdef"
    record = Record(
        case=case,
        case_id=case.id,
        run_index=0,
        freshness="f",
        status="ok",
        started_at="2026-01-01T00:00:00+00:00",
        metrics=(Metric(name="macs.forward", value=None, unit="MACs", note=note),),
        details={"files": {"/home/bob/net.py": 3}},
    )
    clean = without_identity(record)
    assert clean.metrics[0].note == "thop failed: no file ~/net.py, HF_TOKEN=***"
    assert clean.details == {"files": {"~/net.py": 3}}
