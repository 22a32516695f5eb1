"""Import paths that CONTRIBUTING printed before go on working for one release, with a warning."""

import sys
from importlib import import_module

import pytest

import bench
from bench.core.moved import MOVED


@pytest.mark.parametrize("old", sorted(MOVED))
def test_an_old_path_gives_the_names_of_the_new_one_with_a_warning(old: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, old, raising=False)
    with pytest.warns(DeprecationWarning, match=MOVED[old]):
        found = import_module(old)
    monkeypatch.delitem(sys.modules, old, raising=False)
    own = {name: value for name, value in vars(import_module(MOVED[old])).items() if not name.startswith("__")}
    assert own.items() <= vars(found).items()


def test_a_decorator_of_an_old_path_is_the_same_function(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "bench.registry", raising=False)
    with pytest.warns(DeprecationWarning, match="bench.core.registry"):
        old = import_module("bench.registry")
    monkeypatch.delitem(sys.modules, "bench.registry", raising=False)
    assert old.register_model is bench.register_model
