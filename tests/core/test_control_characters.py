"""Control characters of strangers' texts become visible."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.core.control_characters import visible


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("boom \x1b]0;PWNED\x07\x1b[2J", "boom \\x1b]0;PWNED\\x07\\x1b[2J"),
        ("model\u202e31", "model\\u202e31"),
        ("a\tb\nc", "a\tb\nc"),
        ("\x9b31m", "\\x9b31m"),
        ("Größe 模型 é", "Größe 模型 é"),
        ("line\rover", "line\\x0dover"),
    ],
)
def test_control_characters_are_shown_as_escapes(text: str, shown: str) -> None:
    assert visible(text) == shown


@given(st.text())
def test_no_control_or_direction_character_is_left(text: str) -> None:
    assert not [c for c in visible(text) if unicodedata.category(c) == "Cc" and c not in "\t\n"]
    assert not [c for c in visible(text) if unicodedata.bidirectional(c) in ("LRO", "RLO", "LRE", "RLE", "PDF", "RLI")]
