"""Reads YAML with the position of every value, so that an error can say file:line:column."""

import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from bench.core.errors import InputError, Problem, SuiteError
from bench.core.files import path_hint

Place = tuple[str | int, ...]
MOST_WRITTEN = 100_000  # values in one file, which take some five seconds to parse
MOST_VALUES = 1_000_000  # the same with what aliases repeat: a few aliases of aliases can stand for billions


@dataclass(frozen=True, kw_only=True)
class Position:
    """The position of a value; lines and columns count from 1, and are 0 if `file` is the name of an option."""

    file: str
    line: int = 0
    column: int = 0


@dataclass(frozen=True, kw_only=True)
class Tree:
    """Plain values of a YAML file and the position of each key and list item, by its path.

    `overlaid` are the topmost places that come from a tree which this one was merged over.
    """

    data: Any
    positions: Mapping[Place, Position]
    text: str = ""
    overlaid: frozenset[Place] = frozenset()

    @classmethod
    def of(cls, data: Any, *, name: str, options: Mapping[Place, str] = MappingProxyType({})) -> "Tree":
        """A tree of values that come from no file; errors call their origin `name`, or the option that gave them."""
        named = {place: Position(file=option) for place, option in options.items()}
        return cls(data=data, positions={(): Position(file=name), **named})

    def position(self, place: Place) -> Position:
        """The position of `place`, or of its nearest parent that has one."""
        while place and place not in self.positions:
            place = place[:-1]
        return self.positions[place]

    def problem(self, place: Place, message: str) -> Problem:
        """A problem at `place`, in the file that `place` comes from."""
        where = self.position(place)
        if not where.line and place:  # the option names the key already
            message = message.removeprefix(f"{place[-1]}: ")
        return Problem(file=where.file, line=where.line, column=where.column, message=message)

    def is_overlaid(self, place: Place) -> bool:
        """Whether `place` comes from a tree that another was merged over, which may have replaced what it refers to."""
        return any(place[:length] in self.overlaid for length in range(len(place) + 1))

    def over(self, base: "Tree") -> "Tree":
        """This tree merged over `base`: mappings are merged, everything else is replaced."""
        positions = dict(base.positions)
        overlaid = set(self.overlaid)
        data = _merge(base.data, self.data, (), positions, overlaid)
        return Tree(
            data=data,
            positions={**positions, **self.positions},
            text=self.text,
            overlaid=frozenset(overlaid),
        )


def read_yaml(path: Path) -> Tree:
    """Read a YAML 1.2 file. Raises SuiteError if it is no YAML or has a key twice, InputError if it cannot be read."""
    if not path.is_file():
        raise InputError(f"{path} is not a file{path_hint(path) or '; give the path of a YAML file'}")
    positions: dict[Place, Position] = {(): Position(file=str(path), line=1, column=1)}
    try:
        text = path.read_text(encoding="utf-8")
        return Tree(data=_plain(_loaded(text, file=str(path)), (), positions), positions=positions, text=text)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise _one_problem(positions[()], f"not UTF-8 text: {error.reason}") from None
    except RecursionError:
        raise _one_problem(positions[()], "lists and mappings are nested too deeply") from None


def plain_values(text: str) -> Any:
    """The plain values of a YAML text. Raises SuiteError if it is no YAML."""
    return _plain(_loaded(text, file="text"), (), {(): Position(file="text", line=1, column=1)})


def yaml_text(data: Any) -> str:
    """Plain values as YAML; mappings and lists of single values are on one line."""
    from ruamel.yaml import YAML

    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style, yaml.width = None, 100
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]  # inferred from its default, None
    stream = io.StringIO()
    yaml.dump(data, stream)
    return stream.getvalue()


def is_text(value: str) -> bool:
    """Whether a string can be written as UTF-8: half of a surrogate pair, or a byte of a path, cannot."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _loaded(text: str, *, file: str) -> Any:
    """Parse `text` with ruamel; raises SuiteError with the position of a syntax error."""
    from ruamel.yaml import YAML
    from ruamel.yaml.composer import Composer
    from ruamel.yaml.error import MarkedYAMLError, YAMLError

    class BoundedComposer(Composer):
        """Stops after so many values, long before a file of millions is parsed."""

        written = 0

        def compose_node(self, parent: Any, index: Any) -> Any:
            self.written += 1
            if self.written > MOST_WRITTEN:
                mark = self.parser.peek_event().start_mark
                message = f"more than {MOST_WRITTEN:,} values in one file; divide it into several suites"
                raise MarkedYAMLError(problem=message, problem_mark=mark)
            return super().compose_node(parent, index)

    yaml = YAML(typ="rt")
    yaml.Composer = BoundedComposer
    start = Position(file=file, line=1, column=1)
    try:
        return yaml.load(io.StringIO(text))
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = Position(file=file, line=mark.line + 1, column=mark.column + 1) if mark else start
        raise _one_problem(where, (error.problem or error.context or "not YAML").split("\n")[0]) from None
    except YAMLError as error:
        raise _one_problem(start, str(error).split("\n")[0]) from None
    except (ValueError, KeyError, TypeError) as error:  # a date, number or tag with text that is not one
        raise _one_problem(start, f"a value does not fit its type or tag: {error}") from None
    except AttributeError:  # ruamel.yaml does not expect a mapping that is merged into itself
        raise _one_problem(start, "a mapping is merged into itself by `<<`") from None


def _one_problem(where: Position, message: str) -> SuiteError:
    return SuiteError(where.file, [Problem(line=where.line, column=where.column, message=message)])


def _plain(node: Any, place: Place, positions: dict[Place, Position]) -> Any:
    """`node` in plain Python types; collects the positions of its parts."""
    if len(positions) > MOST_VALUES:
        raise _one_problem(positions[()], f"more than {MOST_VALUES:,} values; remove aliases of aliases")
    if isinstance(node, dict):
        plain: dict[str, Any] = {}
        for key, value in node.items():
            where = _position(node, key, parent=positions[place])
            name = _key(key, where)
            if name in plain:
                raise _one_problem(where, f"the key {name!r} is given twice")
            positions[(*place, name)] = where
            plain[name] = _plain(value, (*place, name), positions)
        return plain
    if isinstance(node, list):
        for index in range(len(node)):
            positions[(*place, index)] = _position(node, index, parent=positions[place])
        return [_plain(value, (*place, index), positions) for index, value in enumerate(node)]
    plain_scalar = _plain_scalar(node)
    if isinstance(plain_scalar, str) and not is_text(plain_scalar):
        raise _one_problem(positions[place], f"{plain_scalar!r} holds half of a surrogate pair, which is no text")
    return plain_scalar


def _plain_scalar(node: Any) -> Any:
    from ruamel.yaml.scalarbool import ScalarBoolean

    if isinstance(node, ScalarBoolean):  # a boolean with an anchor, a subclass of int
        return bool(node)
    for plain in (bool, int, float, str):
        if isinstance(node, plain):
            return plain(node)
    return None if node is None else str(node)


def _position(node: Any, key: Any, *, parent: Position) -> Position:
    """The position of a key or list item; keys merged in by `<<` have that of their mapping."""
    try:
        marks = node.lc
        line, column = marks.key(key) if isinstance(node, dict) else marks.item(key)
    except (AttributeError, KeyError, TypeError):
        return parent
    return Position(file=parent.file, line=line + 1, column=column + 1)


def _key(key: Any, where: Position) -> str:
    if isinstance(key, tuple | Mapping):
        raise _one_problem(where, "a key should be a word or a number, found a list or a mapping")
    return str(key)


def _merge(base: Any, top: Any, place: Place, positions: dict[Place, Position], overlaid: set[Place]) -> Any:
    """Merge `top` over `base`; replaced values lose their positions, and keys of `base` alone become `overlaid`."""
    if isinstance(base, dict) and isinstance(top, dict):
        overlaid.update((*place, key) for key in base if key not in top)
        merged = dict(base)
        for key, value in top.items():
            merged[key] = _merge(base[key], value, (*place, key), positions, overlaid) if key in base else value
        return merged
    if isinstance(base, dict | list):  # only these have places below their own
        for known in [p for p in positions if p[: len(place)] == place and len(p) > len(place)]:
            del positions[known]
    return top
