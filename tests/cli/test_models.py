"""`vbench models`: the list, its filters and the sources."""

import json

import pytest

from bench.cli.app import run_command


def output(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert run_command(["models", *arguments]) == 0
    return capsys.readouterr().out


def listed(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[str]:
    return [row["name"] for row in json.loads(output(capsys, *arguments, "--json"))]


def test_the_whole_list_ends_with_the_sources_and_how_to_list_them(capsys: pytest.CaptureFixture[str]) -> None:
    lines = output(capsys).splitlines()
    assert any(line.startswith("slowfast_r50 ") for line in lines)
    ends = {line.split()[0]: line for line in lines[-5:] if line}
    assert "'torchvision:*'" in ends["torchvision"]
    assert "'timm:*vit*'" in ends["timm"]
    assert "'hf:*'" in ends["hf"]
    assert "file.py:factory" in lines[-1]


def test_a_pattern_names_matches_of_other_packages(capsys: pytest.CaptureFixture[str]) -> None:
    shown = output(capsys, "mvit*")
    assert "mvitv2_s_16x4" in shown
    assert "torchvision has 2 matches" in shown
    assert "vbench models 'torchvision:mvit*'" in shown


def test_filters(capsys: pytest.CaptureFixture[str]) -> None:
    assert listed(capsys, "--family", "c3d") == ["c3d"]
    assert "vjepa2_l_encoder" in listed(capsys, "--task", "features")
    assert set(listed(capsys, "*", "--year", "2014-2015")) >= {"c3d", "two_stream"}
    assert "slowfast_r50" not in listed(capsys, "--year", "-2018")
    assert "c3d_search" not in listed(capsys, "c3d*", "--has-weights")


def test_the_filter_by_cost_counts_when_asked(capsys: pytest.CaptureFixture[str]) -> None:
    assert listed(capsys, "x3d*", "--max-gmacs", "2", "--count") == ["x3d_s", "x3d_xs"]
    assert listed(capsys, "x3d*", "--max-params", "3.8", "--max-gmacs", "1", "--count") == ["x3d_xs"]


def test_uncounted_models_are_no_zero_and_are_named(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bench.catalog.catalog.Catalog.known_count", lambda self, point: None)
    assert listed(capsys, "x3d*", "--max-gmacs", "2") == []
    assert "5 models left out, not counted yet; --count counts them" in output(capsys, "x3d*", "--max-gmacs", "2")
    assert json.loads(output(capsys, "x3d*", "--json"))[0]["macs"] is None
    assert "--count counts the rest" in output(capsys, "x3d*")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--year", "21"), "is not a year"),
        (("--year", "2022-2019"), "2022 comes after 2019"),
        (("--task", "featurs"), "did you mean: features?"),
        (("slowfst_r50",), "did you mean: slowfast_r50"),
        (("torchvison:*",), "did you mean: torchvision?"),
        (("show",), "needs the name of a model"),
    ],
)
def test_wrong_words_are_one_clear_line(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], message: str
) -> None:
    assert run_command(["models", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_a_model_is_shown_with_task_and_weights(capsys: pytest.CaptureFixture[str]) -> None:
    shown = output(capsys, "show", "x3d_xs")
    assert "published weights" in shown
    assert "3,794,274" in shown
    assert json.loads(output(capsys, "show", "x3d_xs", "--json"))["macs"] is not None


def test_published_speeds_of_a_model_are_shown_with_their_conditions(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bench.catalog.listing.with_counts", lambda models, catalog: list(models))
    shown = output(capsys, "show", "hiera_base_16x224")
    assert "published speed: 133.6 clips/s (A100, fp16, batch not stated, 16x4x224, without decoding)" in shown
