"""YAML read with the place of every value, so that an error can say file:line:column."""

import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.errors import InputError, Problem, SuiteError

Place = tuple[str | int, ...]


@dataclass(frozen=True, kw_only=True)
class Position:
    """Where a value stands; lines and columns count from 1."""

    file: str
    line: int
    column: int


@dataclass(frozen=True, kw_only=True)
class Tree:
    """Plain values of a YAML file and the position of each key and list item, by its path."""

    data: Any
    positions: Mapping[Place, Position]
    text: str = ""

    @classmethod
    def of(cls, data: Any, *, name: str) -> "Tree":
        """Values that stand in no file; `name` is what errors call their origin."""
        return cls(data=data, positions={(): Position(file=name, line=1, column=1)})

    def position(self, place: Place) -> Position:
        """Where `place` stands, or its nearest parent that stands anywhere."""
        while place and place not in self.positions:
            place = place[:-1]
        return self.positions[place]

    def problem(self, place: Place, message: str) -> Problem:
        """What is wrong at `place`, in the file where that stands."""
        where = self.position(place)
        return Problem(file=where.file, line=where.line, column=where.column, message=message)

    def over(self, base: "Tree") -> "Tree":
        """This tree merged over `base`: mappings are merged, everything else is replaced."""
        positions = dict(base.positions)
        data = _merge(base.data, self.data, (), positions)
        return Tree(data=data, positions={**positions, **self.positions}, text=self.text)


def read_yaml(path: Path) -> Tree:
    """The values of a YAML 1.2 file; SuiteError where it is no YAML or names a key twice, InputError if not there."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import MarkedYAMLError, YAMLError

    if not path.is_file():
        raise InputError(f"{path} is not a file; give the path of a YAML file")
    try:
        text = path.read_text(encoding="utf-8")
        data = YAML(typ="rt").load(io.StringIO(text))
    except UnicodeDecodeError as error:
        raise SuiteError(str(path), [Problem(line=1, column=1, message=f"not UTF-8 text: {error.reason}")]) from None
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        problem = (error.problem or error.context or "not YAML").split("\n")[0]
        raise SuiteError(str(path), [Problem(line=line, column=column, message=problem)]) from None
    except YAMLError as error:
        message = str(error).split("\n")[0]
        raise SuiteError(str(path), [Problem(line=1, column=1, message=message)]) from None
    positions: dict[Place, Position] = {(): Position(file=str(path), line=1, column=1)}
    return Tree(data=_plain(data, (), positions, file=str(path)), positions=positions, text=text)


def _plain(node: Any, place: Place, positions: dict[Place, Position], *, file: str) -> Any:
    """`node` without ruamel's types, its positions noted on the way."""
    marks = getattr(node, "lc", None)
    if isinstance(node, dict):
        for key in node:
            line, column = marks.key(key) if marks else (0, 0)
            positions[(*place, _key(key))] = Position(file=file, line=line + 1, column=column + 1)
        return {_key(key): _plain(value, (*place, _key(key)), positions, file=file) for key, value in node.items()}
    if isinstance(node, list):
        for index in range(len(node)):
            line, column = marks.item(index) if marks else (0, 0)
            positions[(*place, index)] = Position(file=file, line=line + 1, column=column + 1)
        return [_plain(value, (*place, index), positions, file=file) for index, value in enumerate(node)]
    for plain in (bool, int, float, str):
        if isinstance(node, plain):
            return plain(node)
    return None if node is None else str(node)


def _key(key: Any) -> str:
    return str(key)


def _merge(base: Any, top: Any, place: Place, positions: dict[Place, Position]) -> Any:
    if isinstance(base, dict) and isinstance(top, dict):
        merged = dict(base)
        for key, value in top.items():
            merged[key] = _merge(base[key], value, (*place, key), positions) if key in base else value
        return merged
    for known in [p for p in positions if p[: len(place)] == place and len(p) > len(place)]:
        del positions[known]
    return top
