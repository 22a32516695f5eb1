"""The open folders: clashes, variants, arguments, nearest spellings."""

from dataclasses import replace
from pathlib import Path

import pytest

from bench.core.errors import InputError, NameClashError, UnknownNameError, suggest
from bench.core.registry import (
    MEASURES,
    MODELS,
    ModelEntry,
    Registry,
    accepts_options_of,
    import_plugins,
    options_of,
    register_model,
)


def build(num_classes: int = 5, *, width: int = 8) -> None:
    """A factory."""


def other(num_classes: int = 5) -> None:
    """Another factory."""


def entry(name: str = "net") -> ModelEntry:
    return ModelEntry(name=name, family="net", function=build, clip="8x1x32", preset={"width": 16})


def empty() -> Registry[ModelEntry]:
    registry: Registry[ModelEntry] = Registry("model", "bench.reference")
    return registry


def test_one_name_means_one_thing() -> None:
    registry = empty()
    registry.add(entry())
    registry.add(entry())
    with pytest.raises(NameClashError, match=r"'net' is registered twice, in .*build and .*other"):
        registry.add(replace(entry(), function=other))


def test_an_unreadable_module_is_reported_every_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise all that comes after it in the alphabet would be called unknown."""
    folder = tmp_path / "broken_zoo"
    folder.mkdir()
    (folder / "__init__.py").touch()
    (folder / "b.py").write_text("raise RuntimeError('two of one name')")
    monkeypatch.syspath_prepend(str(tmp_path))
    registry: Registry[ModelEntry] = Registry("model", "broken_zoo")
    for _ in range(2):
        with pytest.raises(RuntimeError, match="two of one name"):
            registry.names()


def test_an_unknown_name_comes_with_its_nearest_spelling() -> None:
    registry = empty()
    registry.add(entry("slowfast_r50"))
    with pytest.raises(UnknownNameError, match=r"unknown model 'slowfst_r50'; did you mean: slowfast_r50\?"):
        registry.get("slowfst_r50")


def test_names_match_shell_patterns() -> None:
    registry = empty()
    for name in ("net_18", "net_50", "web_50"):
        registry.add(entry(name))
    assert registry.names("net*") == ["net_18", "net_50"]
    assert [e.name for e in registry] == ["net_18", "net_50", "web_50"]


def test_arguments_of_a_variant_show_its_preset() -> None:
    assert entry().arguments == {"num_classes": 5, "width": 16}
    assert options_of(build, keyword_only=True) == {"width": 8}


def test_a_variant_may_have_its_own_clip() -> None:
    @register_model("short_lived", clip="8x1x32", variants={"short_lived_long": {"width": 2, "clip": "64x1x32"}})
    def factory(num_classes: int = 5, *, width: int = 8) -> None:
        """A factory."""

    try:
        assert MODELS.get("short_lived_long").clip == "64x1x32"
        assert MODELS.get("short_lived_long").preset == {"width": 2}
    finally:
        for name in ("short_lived", "short_lived_long"):
            del MODELS._entries[name]


def test_measures_that_depend_on_the_execution_mode_are_repeated() -> None:
    """Energy, memory and parity of their own case, too: a gate has to see what they differ by from run to run."""
    assert {m.name for m in MEASURES if not m.is_repeated} == {
        "accuracy", "activations", "frozen", "macs", "memory_estimate", "params"
    }  # fmt: skip
    assert not any(m.is_repeated for m in MEASURES if "precision" not in m.depends_on and m.name != "decode")


def test_every_measure_declares_its_axes() -> None:
    found = list(MEASURES)
    assert {"params", "macs", "latency", "throughput", "memory", "energy", "accuracy"} <= {m.name for m in found}
    assert all({"model", "args", "clip"} <= m.depends_on and m.version >= 1 and m.function.__doc__ for m in found)


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (None, "plug-in 'odd_plugin' cannot be imported: ModuleNotFoundError: No module named 'odd_plugin'"),
        ("import nowhere_to_be_found\n", "No module named 'nowhere_to_be_found'"),
        ("def f(:\n", "SyntaxError: "),
        ("a = 1\nb = a / 0\n", "ZeroDivisionError: division by zero ("),
        ("raise SystemExit(3)\n", "SystemExit: 3"),
    ],
)
def test_a_plugin_that_cannot_be_imported_is_one_line(
    code: str | None, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    if code is not None:
        (tmp_path / "odd_plugin.py").write_text(code)
    with pytest.raises(InputError) as caught:
        import_plugins(["odd_plugin"])
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    if code and "/ 0" in code:
        assert "odd_plugin.py:2)" in str(caught.value)


@pytest.mark.parametrize("name", ["", ".", "..x", "a b", "bench.nowhere", "bench.core.schema.nowhere", "é.é"])
def test_a_name_that_no_module_has_is_one_line(name: str) -> None:
    with pytest.raises(InputError, match="cannot be imported"):
        import_plugins([name])


def test_suggestions_are_near_or_complete_or_a_sample() -> None:
    assert suggest("lantency", ["latency", "memory"]) == "did you mean: latency?"
    assert suggest("zzz", ["latency", "memory"]) == "allowed: latency, memory"
    assert suggest("zzz", [f"name{n}" for n in range(20)]).startswith("20 are known, among them: name0, name1")


def test_a_plugin_that_hangs_in_its_import_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "hanging_plugin.py").write_text("import time; time.sleep(60)")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr("bench.core.registry.IMPORT_S", 0.1)
    with pytest.raises(InputError, match=r"'hanging_plugin' cannot be imported: TimeoutError: not done after 0\.1 s"):
        import_plugins(["hanging_plugin"])


def test_a_factory_lists_the_options_that_it_passes_on() -> None:
    @accepts_options_of(build)
    def wide(num_classes: int = 9, *, depth: int = 3, **options: object) -> None:
        build(num_classes, **options)  # type: ignore[arg-type]

    assert options_of(wide, keyword_only=False) == {"num_classes": 9, "depth": 3, "width": 8}
    assert wide.__annotations__["width"] is int


def test_own_arguments_win_over_those_passed_on() -> None:
    @accepts_options_of(build)
    def narrow(*, width: int = 1, **options: object) -> None:
        build(width=width)

    assert options_of(narrow, keyword_only=True) == {"width": 1}
