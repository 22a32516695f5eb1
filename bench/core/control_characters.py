"""Makes control characters visible, so that names and errors of others cannot steer a terminal or reorder a line."""

import re

# C0 without tab and newline, DEL, C1, and the characters that change the direction of text (Unicode TR 9).
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def visible(text: str) -> str:
    r"""`text` with control characters as escapes: `\x1b`, `\u202e`. Tabs and newlines stay."""
    return CONTROL.sub(lambda match: _escape(match[0]), text)


def _escape(character: str) -> str:
    code = ord(character)
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"
