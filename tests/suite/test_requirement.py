"""What a suite requires of the machine: how it is written, and what a machine lacks."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from bench.core.errors import SuiteError
from bench.runner import devices
from bench.runner.devices import Lane
from bench.runner.running import plan
from bench.suite.requirement import Requirement

SUITE = """\
suite: needy
models: [{name: c3d_search, width: 0.05, num_classes: 4}]
matrix: {clip: [4x1x16]}
require: REQUIRE
measure: {params: {}, latency: {}}
"""


@pytest.mark.parametrize(
    ("needs", "gpus", "lacking"),
    [
        ({"gpu": "h200"}, ("NVIDIA H200",), None),
        ({"gpu": "H200", "gpus": 2}, ("NVIDIA H200", "NVIDIA H200"), None),
        (
            {"gpu": "H200", "gpus": 2},
            ("NVIDIA H200", "NVIDIA A100"),
            "needs 2 H200 GPUs; found NVIDIA H200, NVIDIA A100",
        ),
        ({"gpus": 1}, (), "needs 1 GPU; found no GPU"),
        ({"memory": "80GiB"}, (), None),
        ({"memory": "81GiB"}, (), "needs 81GiB of memory; found 80 GiB"),
    ],
)
def test_a_machine_of_80_gib_lacks_what_it_does_not_have(
    needs: dict[str, str | int], gpus: tuple[str, ...], lacking: str | None
) -> None:
    assert Requirement.model_validate(needs).unmet(gpus=gpus, memory_bytes=80 << 30) == lacking


@pytest.mark.parametrize(
    "needs", [{}, {"gpus": 0}, {"memory": "80"}, {"memory": "3%"}, {"memory": "0GiB"}, {"gpu": ""}]
)
def test_a_requirement_that_says_nothing_or_no_amount_is_refused(needs: dict[str, str | int]) -> None:
    with pytest.raises(ValidationError):
        Requirement.model_validate(needs)


def test_an_error_of_a_requirement_names_its_place(tmp_path: Path) -> None:
    (tmp_path / "needy.yaml").write_text(SUITE.replace("REQUIRE", "{gpu_name: H200}"))
    with pytest.raises(SuiteError, match=r"needy.yaml:4:\d+: .*gpu_name"):
        plan(tmp_path / "needy.yaml", out=tmp_path / "out")


def test_cases_that_this_machine_cannot_serve_are_not_pending_but_counts_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "needy.yaml").write_text(SUITE.replace("REQUIRE", "{gpus: 2}"))
    monkeypatch.setattr(devices, "gpu_names", lambda: ("NVIDIA H200",))
    planned = plan(tmp_path / "needy.yaml", out=tmp_path / "out")
    assert [list(case.measures) for case, _ in planned.pending] == [["params"]]
    assert [list(case.measures) for case, _ in planned.not_here] == [["latency"]]
    assert set(planned.unsupported.values()) == {"needs 2 GPUs; found NVIDIA H200"}


def test_a_case_on_a_lane_has_one_gpu_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "needy.yaml").write_text(SUITE.replace("REQUIRE", "{gpus: 2}"))
    monkeypatch.setattr(devices, "gpu_names", lambda: ("NVIDIA H200", "NVIDIA H200"))
    whole = plan(tmp_path / "needy.yaml", out=tmp_path / "out")
    on_lanes = plan(tmp_path / "needy.yaml", out=tmp_path / "out", lanes=[Lane(device="cuda:0"), Lane(device="cuda:1")])
    assert (len(whole.not_here), len(on_lanes.not_here)) == (0, 1)
