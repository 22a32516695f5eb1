"""Import paths that CONTRIBUTING printed before go on working for one release, with a warning."""

from importlib import import_module

import pytest

from bench.core.moved import MOVED


@pytest.mark.parametrize("old", sorted(MOVED))
def test_an_old_path_gives_the_names_of_the_new_one_with_a_warning(old: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.delitem(sys.modules, old, raising=False)
    with pytest.warns(DeprecationWarning, match=MOVED[old]):
        found = import_module(old)
    monkeypatch.delitem(sys.modules, old, raising=False)
    own = {name: value for name, value in vars(import_module(MOVED[old])).items() if not name.startswith("__")}
    assert own.items() <= vars(found).items()


def test_a_decorator_of_an_old_path_is_the_same_function() -> None:
    import bench

    with pytest.warns(DeprecationWarning):
        from bench.registry import register_model  # type: ignore[import-not-found]
    assert register_model is bench.register_model
