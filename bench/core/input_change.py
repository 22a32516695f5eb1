"""A change of the input as users write it: `reversed`, `jpeg:30`, `resize:nearest`."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from bench.core.errors import InputError, suggest
from bench.core.registry import CHANGES, ChangeEntry, ChangeValue

UNCHANGED = "none"


@dataclass(frozen=True, kw_only=True)
class InputChange:
    """One registered change with its value; `entry` is None for the unchanged input."""

    entry: ChangeEntry | None = None
    value: ChangeValue = None

    def __str__(self) -> str:
        """The text that `parse` reads: the name, and the value if the change takes one.

        A value is left out if it is the default of a change without severities.
        """
        if self.entry is None:
            return UNCHANGED
        if self.value == self.entry.default and not self.entry.severities and not self.entry.choices:
            return self.entry.name
        value = f"{self.value:g}" if isinstance(self.value, float) else self.value
        return self.entry.name if value is None else f"{self.entry.name}:{value}"

    @property
    def shares_decoding(self) -> bool:
        return self.entry is None or self.entry.shares_decoding

    def is_at(self, stage: str) -> bool:
        """Whether this changes what `stage` names."""
        return self.entry is not None and self.entry.stage == stage

    @classmethod
    def parse(cls, text: str) -> "InputChange":
        """Raises InputError for an unknown change and for a value that is missing, not taken or not allowed."""
        name, colon, value = (part.strip() for part in str(text).partition(":"))
        if name == UNCHANGED:
            if colon:
                raise InputError(f"change {text!r}: {UNCHANGED} takes no value")
            return cls()
        if name not in CHANGES:
            raise InputError(f"unknown change {name!r}; {suggest(name, [UNCHANGED, *CHANGES.names()])}")
        entry = CHANGES.get(name)
        if not colon:
            if entry.default is None and (entry.choices or entry.between):
                raise InputError(f"change {name!r} needs a value: {_allowed(entry)}")
            return cls(entry=entry, value=_number(entry.default))
        return cls(entry=entry, value=_checked(entry, value))


def read_changes(texts: Iterable[str]) -> tuple[InputChange, ...]:
    """The unchanged input first, then every change once; `NAME:all` stands for all severities of a change.

    Raises InputError for a change that is unknown, wrong or given twice.
    """
    found: dict[str, InputChange] = {UNCHANGED: InputChange()}
    for text in texts:
        for change in _expanded(text):
            if str(change) != UNCHANGED and str(change) in found:
                raise InputError(f"change {str(change)!r} is given twice")
            found[str(change)] = change
    return tuple(found.values())


def _expanded(text: str) -> list[InputChange]:
    name, _, value = (part.strip() for part in str(text).partition(":"))
    if value != "all" or name not in CHANGES:
        return [InputChange.parse(text)]
    severities = CHANGES.get(name).severities
    if not severities:
        curves = [entry.name for entry in CHANGES if entry.severities]
        raise InputError(f"change {text!r}: {name} has no severities; these have: {', '.join(curves)}")
    return [InputChange.parse(f"{name}:{severity:g}") for severity in severities]


def _checked(entry: ChangeEntry, text: str) -> ChangeValue:
    if entry.choices:
        if text not in entry.choices:
            raise InputError(f"change {entry.name!r} has no value {text!r}; {suggest(text, entry.choices)}")
        return text
    if entry.between is None:
        raise InputError(f"change {entry.name!r} takes no value, found {text!r}")
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    low, high = entry.between
    if not low <= number <= high:
        raise InputError(f"change {entry.name!r} needs {_allowed(entry)}, found {text!r}")
    return number


def _allowed(entry: ChangeEntry) -> str:
    if entry.choices:
        return f"one of {', '.join(entry.choices)}, such as {entry.name}:{entry.choices[0]}"
    low, high = entry.between or (0.0, 0.0)
    return f"a number from {low:g} to {high:g}"


def _number(value: ChangeValue) -> ChangeValue:
    return float(value) if isinstance(value, int) else value
