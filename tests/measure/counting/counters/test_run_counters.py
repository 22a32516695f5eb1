"""Witnesses in processes of their own: what breaks there breaks nothing here, and is never a zero."""

import os

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


def test_asking_nobody_runs_nothing() -> None:
    assert run_counters(lambda: pytest.fail("built"), [(1, 3, 8, 8)], counters=["torch"]) == ()


class Local(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x


def test_a_network_that_cannot_be_sent_has_failed_and_is_not_zero() -> None:
    [verdict] = run_counters(lambda: Local(), [(1, 4)], counters=["thop"])
    assert (verdict.verdict, verdict.printed, verdict.comparable) == ("failed", None, None)
    assert "cannot be sent" in verdict.why


@pytest.mark.slow
def test_a_real_process_gives_a_verdict_and_leaves_the_network_alone() -> None:
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
    assert "no answer" in verdict.why


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


def test_what_nobody_can_explain_is_unexplained() -> None:
    counted = count(MODEL, torch.randn(1, 4))
    assert judge(counted, said(line("0", 16), line("1", 8), printed=24)).verdict == "agrees"
    assert judge(counted, said(line("0", 16), printed=16)).verdict == "unexplained"
    assert judge(counted, said(line("0", 16), printed=16, _1="no rule")).verdict == "explained"
    assert judge(counted, said(line("0", 16), line("1", 9), printed=25)).verdict == "unexplained"


def test_a_blind_parent_does_not_excuse_its_children() -> None:
    counted = count(MODEL, torch.randn(1, 4))
    assert judge(counted, said(line("0", 16), printed=16, _="no rule")).verdict == "unexplained"


class Blind(nn.Module):
    """Products of its own and in a child."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.w = nn.Linear(4, 4, bias=False), nn.Parameter(torch.ones(4, 2))

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x) @ self.w


def test_what_a_child_lacks_is_not_lost_in_a_blind_parent() -> None:
    counted = count(nn.Sequential(Blind()), torch.randn(1, 4))
    parent_alone = judge(counted, said(line("0.fc", 16), printed=16, _0="no rule"))
    assert (parent_alone.verdict, parent_alone.difference) == ("explained", -8)
    both = judge(counted, said(printed=0, _0="no rule"))
    assert both.verdict == "unexplained"
    assert sum(reason.macs for reason in both.reasons) == both.difference == -24


def test_blindness_excuses_too_little_and_never_too_much() -> None:
    counted = count(MODEL, torch.randn(1, 4))
    verdict = judge(counted, said(line("0", 16), line("1", 9), printed=25, _1="no rule"))
    assert (verdict.verdict, verdict.difference) == ("unexplained", 1)


def test_figures_that_do_not_add_up_are_unexplained() -> None:
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
