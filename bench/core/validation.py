"""Turns validation errors of pydantic into messages: what is wrong, what was found, the nearest spelling."""

import re
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from bench.core.errors import InputError, nearest


def describe_error(error: ValidationError | InputError, value: Any) -> str:
    """What is wrong with `value`. If it may have several forms, the message is about the one that fits best."""
    if isinstance(error, InputError):
        return f"{error}, found {value!r}"
    problems: list[dict[str, Any]] = [dict(item) for item in error.errors()]
    deepest = max(problems, key=lambda item: len(item["loc"]))
    wrong, place = deepest["input"], deepest["loc"]
    where = "" if wrong == value else ".".join(map(str, place[1:] or place)) + ": "
    return f"{where}{plain_message(deepest)}, found {wrong!r}{spelling_hint(deepest)}"


def plain_message(item: Mapping[str, Any]) -> str:
    """The message of one pydantic error, to follow a name."""
    message: str = item["msg"].removeprefix("Value error, ")
    # people write YAML, not our classes
    message = re.sub(r"a valid dictionary( or instance of \w+)?", "a mapping", message)
    return message[0].lower() + message[1:]


def spelling_hint(item: Mapping[str, Any]) -> str:
    """`; did you mean: …?` if pydantic expected a similar word; else an empty text."""
    known = re.findall(r"'([^']*)'", str(item.get("ctx", {}).get("expected", "")))
    suggestion = nearest(item["input"], known) if isinstance(item["input"], str) else ""
    return f"; {suggestion}" if suggestion else ""
