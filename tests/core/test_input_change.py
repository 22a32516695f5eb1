"""Changes of the input are read from text, with one clear error for each mistake."""

import pytest

from bench.core.errors import InputError
from bench.core.input_change import InputChange, read_changes
from bench.core.registry import CHANGES


def texts(*given):
    return [str(change) for change in read_changes(given)]


def test_the_unchanged_input_is_always_first():
    assert texts("reversed", "none", "jpeg:30") == ["none", "reversed", "jpeg:30"]
    assert texts() == ["none"]


def test_a_change_without_a_value_has_its_default():
    assert texts("noise", "fps") == ["none", "noise:0.1", "fps:0.5"]


def test_all_stands_for_every_severity():
    assert texts("jpeg:all") == ["none", "jpeg:80", "jpeg:50", "jpeg:30", "jpeg:15", "jpeg:5"]


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("revresed", "unknown change 'revresed'; did you mean: reversed?"),
        ("jpeg:0", "change 'jpeg' needs a number from 1 to 100, found '0'"),
        ("jpeg:nan", "change 'jpeg' needs a number from 1 to 100, found 'nan'"),
        ("jpeg:", "change 'jpeg' needs a number from 1 to 100, found ''"),
        ("reversed:2", "change 'reversed' takes no value, found '2'"),
        ("none:1", "change 'none:1': none takes no value"),
        ("resize", "change 'resize' needs a value: one of nearest, "),
        ("resize:nearst", "change 'resize' has no value 'nearst'; did you mean: nearest?"),
        ("reversed:all", "change 'reversed:all': reversed has no severities; these have: bitrate, "),
    ],
)
def test_a_mistake_is_one_clear_line(given, told):
    with pytest.raises(InputError) as error:
        read_changes([given])
    assert told in str(error.value)
    assert "\n" not in str(error.value)


def test_a_change_given_twice_is_an_error():
    with pytest.raises(InputError, match=r"'noise:0\.1' is given twice"):
        read_changes(["noise", "noise:0.1"])


def test_the_text_of_every_change_is_read_back():
    for entry in CHANGES:
        values = [*entry.choices, *(f"{value:g}" for value in entry.severities)]
        for text in [f"{entry.name}:{value}" for value in values] or [entry.name]:
            assert str(InputChange.parse(text)) == text


def test_every_change_says_what_it_does_and_has_sound_values():
    for entry in CHANGES:
        assert entry.summary.endswith("."), entry.name
        low, high = entry.between or (0, 0)
        assert all(low <= value <= high for value in entry.severities), entry.name
        assert entry.default is None or isinstance(entry.default, str) or low <= entry.default <= high, entry.name
