"""Counters in their own processes: what breaks there affects nothing else, and is never a zero."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from bench.core.errors import UnknownNameError
from bench.measure.counting.counters.agreement import judge
from bench.measure.counting.counters.counter_report import CounterReport as Said
from bench.measure.counting.counters.counter_report import ReportPart
from bench.measure.counting.counters.run_counters import ModelByName, ModelCopy, backends_of, run_counters
from bench.measure.counting.model_count import count


def test_names_of_counters() -> None:
    assert backends_of(["torch"]) == []
    assert backends_of(["ptflops", "thop"]) == ["ptflops-pytorch", "ptflops-aten", "thop"]
    assert backends_of(["all"]) == ["fvcore", "thop", "ptflops-pytorch", "ptflops-aten"]
    with pytest.raises(UnknownNameError, match="fvcore"):
        backends_of(["fvcor"])


def test_without_other_counters_nothing_runs() -> None:
    assert run_counters(lambda: pytest.fail("built"), [(1, 3, 8, 8)], counters=["torch"]) == ()


class Local(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x


def test_a_counter_whose_model_cannot_be_sent_has_failed() -> None:
    [verdict] = run_counters(lambda: Local(), [(1, 4)], counters=["thop"])
    assert (verdict.verdict, verdict.printed, verdict.comparable) == ("failed", None, None)
    assert "cannot be sent" in verdict.why


@pytest.mark.slow
def test_all_counters_agree_and_leave_the_model_unchanged() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2))
    keys = list(model.state_dict())
    verdicts = run_counters(ModelCopy(model=model), [(4, 3, 8, 8)], counters=["all"])
    assert [verdict.verdict for verdict in verdicts] == ["agrees"] * 4
    assert {verdict.ours for verdict in verdicts} == {36 * 4 * 27 + 288}
    assert list(model.state_dict()) == keys


class Dies:
    """Pickles well, and ends its process when it builds."""

    def __reduce__(self) -> tuple[object, tuple[int]]:
        return os._exit, (7,)

    def __call__(self) -> nn.Module:
        return Local()


@pytest.mark.slow
def test_a_counter_that_crashes_has_failed_and_affects_nothing_else() -> None:
    [verdict] = run_counters(Dies(), [(1, 4)], counters=["thop"])
    assert (verdict.verdict, verdict.printed) == ("failed", None)
    assert "exit code 7" in verdict.why


@pytest.mark.slow
def test_a_counter_that_takes_too_long_has_failed() -> None:
    [verdict] = run_counters(ModelByName(model="c3d"), [(1, 3, 16, 112, 112)], counters=["thop"], timeout_s=0.05)
    assert (verdict.verdict, verdict.printed) == ("failed", None)
    assert "did not answer within 0.05 s" in verdict.why


BROKEN = {
    "raises": ("raise ImportError('half installed')", "ImportError: half installed"),
    "exits": ("import sys; sys.exit('goodbye')", "exit code 1"),
    "lacks its function": ("", "cannot import name 'profile'"),
    "crashes": ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "exit code -11"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_counter_costs_only_its_own_column(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, reason = BROKEN[kind]
    (tmp_path / "thop.py").write_text(source)
    monkeypatch.syspath_prepend(str(tmp_path))
    [fvcore, thop] = run_counters(ModelCopy(model=nn.Linear(4, 2)), [(1, 4)], counters=["fvcore", "thop"])
    assert (fvcore.verdict, fvcore.printed, fvcore.ours) == ("agrees", 8, 8)
    assert (thop.verdict, thop.printed, thop.comparable, thop.ours) == ("failed", None, None, 8)
    assert reason in thop.why


def test_other_counters_are_never_imported_unless_requested(tmp_path: Path) -> None:
    code = (
        "import sys, bench; bench.profile('c3d'); bench.list_models();"
        "print([name for name in ('thop', 'fvcore', 'ptflops') if name in sys.modules])"
    )
    alone = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env=alone, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def said(*lines: ReportPart, printed: int, **blind: str) -> Said:
    return Said(
        tool="t",
        version="1",
        convention="",
        printed=printed,
        lines=lines,
        blind={path.strip("_"): why for path, why in blind.items()},
    )


def line(module: str, macs: int) -> ReportPart:
    return ReportPart(module=module, counted="x", value=macs, products=macs, true_products=macs)


MODEL = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 2, bias=False))


def test_a_difference_without_a_reason_is_unexplained() -> None:
    counted = count(MODEL, torch.randn(1, 4))
    assert judge(counted, said(line("0", 16), line("1", 8), printed=24)).verdict == "agrees"
    assert judge(counted, said(line("0", 16), printed=16)).verdict == "unexplained"
    assert judge(counted, said(line("0", 16), printed=16, _1="no rule")).verdict == "explained"
    assert judge(counted, said(line("0", 16), line("1", 9), printed=25)).verdict == "unexplained"


def test_a_parent_that_is_not_seen_does_not_explain_its_children() -> None:
    counted = count(MODEL, torch.randn(1, 4))
    assert judge(counted, said(line("0", 16), printed=16, _="no rule")).verdict == "unexplained"


class Blind(nn.Module):
    """Products of its own and in a child."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.w = nn.Linear(4, 4, bias=False), nn.Parameter(torch.ones(4, 2))

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x) @ self.w


def test_missing_products_of_a_child_are_not_lost_in_a_parent_that_is_not_seen() -> None:
    counted = count(nn.Sequential(Blind()), torch.randn(1, 4))
    parent_alone = judge(counted, said(line("0.fc", 16), printed=16, _0="no rule"))
    assert (parent_alone.verdict, parent_alone.difference) == ("explained", -8)
    both = judge(counted, said(printed=0, _0="no rule"))
    assert both.verdict == "unexplained"
    assert sum(reason.macs for reason in both.reasons) == both.difference == -24


def test_a_module_that_is_not_seen_explains_missing_products_and_never_additional_ones() -> None:
    counted = count(MODEL, torch.randn(1, 4))
    verdict = judge(counted, said(line("0", 16), line("1", 9), printed=25, _1="no rule"))
    assert (verdict.verdict, verdict.difference) == ("unexplained", 1)


def test_parts_that_do_not_add_up_are_unexplained() -> None:
    counted = count(MODEL, torch.randn(1, 4))
    verdict = judge(counted, said(line("0", 16), line("1", 8), printed=99))
    assert (verdict.verdict, verdict.error) == ("unexplained", "its parts do not add up to what it prints")


def test_totals_that_agree_by_two_errors_are_not_agreement() -> None:
    counted = count(MODEL, torch.randn(1, 4))
    wrong = ReportPart(module="0", counted="x", value=24, products=24, true_products=16, cause="counted by its output")
    verdict = judge(counted, said(wrong, printed=24, _1="no rule"))
    assert verdict.difference == 0
    assert verdict.verdict == "explained"
    assert sorted(reason.macs for reason in verdict.reasons) == [-8, 8]
