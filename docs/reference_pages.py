"""Writes the reference pages from the code: commands, suites, metrics, records, Python API, exit codes, environment."""

import inspect
import json
import os
import re
from collections.abc import Iterator
from operator import attrgetter
from pathlib import Path
from typing import Any

INCLUDE = re.compile(r"^```\{include\} (\S+)\n(?::.*\n)*```$", re.MULTILINE)
AUTODOC = re.compile(r"^```\{eval-rst\}\n\.\. auto\w+:: bench\.(\w+)\n```$", re.MULTILINE)
LINK = re.compile(r"(?<=\]\()([^)\s#:]+)(#[^)\s]*)?(?=\))")


def write(folder: Path) -> None:
    """Write all pages below `folder`."""
    folder.mkdir(exist_ok=True)
    pages = {
        "commands": _commands(),
        "suite-keys": _suite_keys(),
        "metrics": _metrics(),
        "records": _records(),
        "python-api": _python_api(),
        "exit-codes": _exit_codes(),
        "environment": _environment(),
    }
    for name, lines in pages.items():
        text = "\n".join(lines) + "\n"
        file = folder / f"{name}.md"
        if not file.is_file() or file.read_text(encoding="utf-8") != text:  # so that unchanged pages are not read again
            file.write_text(text, encoding="utf-8")


def with_repository_links(text: str, *, page: Path, url: str) -> str:
    """Replace relative links that lead outside of the documentation by links to the repository."""
    docs = Path(__file__).parent

    def replaced(match: re.Match[str]) -> str:
        target = Path(os.path.normpath(page.parent / match[1]))
        if target.is_relative_to(docs) and target.suffix == ".md":
            return match[0]
        if not target.exists() or (target.is_relative_to(docs) and target.suffix in (".png", ".svg")):
            return match[0]
        kind = "tree" if target.is_dir() else "blob"
        return f"{url}/{kind}/main/{target.relative_to(docs.parent)}{match[2] or ''}"

    return LINK.sub(replaced, text)


def text_form(page: Path) -> str:
    """Return a page as plain Markdown: what its directives would insert stands in their place.

    An executed example of the gallery is its script: text and code without the plots.
    """
    if page.suffix != ".md":
        script = Path(__file__).parent / "gallery" / f"{page.stem}.py"
        return _script_text(script) if script.is_file() else page.read_text(encoding="utf-8")
    text = page.read_text(encoding="utf-8")
    text = INCLUDE.sub(lambda match: (page.parent / match[1]).read_text(encoding="utf-8"), text)
    return AUTODOC.sub(lambda match: _api_text(match[1]), text)


def _script_text(script: Path) -> str:
    _, docstring, code = script.read_text(encoding="utf-8").split('"""', 2)
    title, _, rest = docstring.strip().partition("\n")
    return f"# {title}\n{rest.replace('=', '').strip()}\n\n```python\n{code.strip()}\n```\n"


def _api_text(name: str) -> str:
    import bench

    found = getattr(bench, name)
    try:
        signature = str(inspect.signature(found))
    except (TypeError, ValueError):
        signature = ""
    return f"## bench.{name}\n\n```python\n{name}{signature}\n```\n\n{inspect.getdoc(found) or ''}"


def _commands() -> Iterator[str]:
    import typer

    from bench.cli.app import app

    yield from ("# Commands", "", "`vbench COMMAND --help` prints the same in a terminal.", "")
    yield from _command("vbench", typer.main.get_command(app), level=2)


def _command(name: str, command: Any, *, level: int) -> Iterator[str]:
    children = getattr(command, "commands", None)
    if children:
        for child, each in sorted(children.items()):
            yield from _command(f"{name} {child}", each, level=level)
        return
    yield from (f"{'#' * level} {name}", "", inspect.cleandoc(command.help or ""), "")
    arguments = [each for each in command.params if each.param_type_name == "argument"]
    options = [each for each in command.params if each.param_type_name == "option" and not each.hidden]
    usage = " ".join([name, *(_metavar(each) for each in arguments), *(["[OPTIONS]"] if options else [])])
    yield from ("```text", usage, "```", "")
    rows = [(_metavar(each), each) for each in arguments] + [(_flags(each), each) for each in options]
    if rows:
        yield from ("| argument | default | meaning |", "|---|---|---|")
        yield from (f"| `{label}` | {_default(each)} | {_cell(each.help or '')} |" for label, each in rows)
        yield ""


def _metavar(argument: Any) -> str:
    name = argument.metavar or argument.name.upper()
    return name if argument.required else f"[{name}]"


def _flags(option: Any) -> str:
    flags = " / ".join([*option.opts, *option.secondary_opts])
    return flags if option.is_flag else f"{flags} {option.metavar or option.name.upper()}"


def _default(parameter: Any) -> str:
    default = parameter.default
    if parameter.required or default is None or default is False or callable(default) or default in ((), []):
        return ""
    return f"`{default}`"


def _suite_keys() -> Iterator[str]:
    from bench.core.registry import MEASURES
    from bench.core.schema import DEFAULT_AXES, Clip, Point
    from bench.suite.axes import AXES, AXIS_ALIASES
    from bench.suite.file import Ablation, GateRule, SuiteFile
    from bench.suite.requirement import Requirement

    yield from ("# Keys of a suite", "", "See [write and run a suite](../suites.md) for what they mean together.", "")
    yield from _fields(SuiteFile, head="key")
    for title, kind in (("`require`", Requirement), ("`ablate`", Ablation), ("A metric of `gate`", GateRule)):
        yield from ("", f"## {title}", "", _last_paragraph(kind), "", *_fields(kind, head="key"))
    yield from ("", "## Axes", "")
    yield "Keys of `matrix`, of a model's entry, and of measures; a list holds several values. Other keys of the first"
    plurals = ", ".join(f"`{key}` lists values of `{axis}`" for key, axis in AXIS_ALIASES.items())
    yield f"two are arguments of models. {plurals}."
    yield from ("", "| axis | values | default | meaning |", "|---|---|---|---|")
    properties = Point.model_json_schema()["properties"]
    for axis in AXES:
        default = f"`{DEFAULT_AXES[axis]}`" if axis in DEFAULT_AXES else ""
        kind = _type(properties[axis]).removesuffix(" or null")
        yield f"| `{axis}` | {_cell(kind)} | {default} | {_cell(Point.model_fields[axis].description or '')} |"
    yield from ("", "## Clip", "", _last_paragraph(Clip))
    yield from ("", "## Options of measures", "")
    yield "Each is a key below `measure: {NAME: {…}}`. It runs once per combination of its axes."
    for entry in sorted(MEASURES, key=attrgetter("name")):
        yield from ("", f"### {entry.name}", "", inspect.cleandoc(entry.function.__doc__ or ""), "")
        yield f"Axes: {', '.join(f'`{axis}`' for axis in sorted(entry.depends_on))}. Version {entry.version}."
        if entry.options:
            yield from ("", "| option | default |", "|---|---|")
            yield from (f"| `{option}` | {_value(default)} |" for option, default in entry.options.items())
    yield ""


def _metrics() -> Iterator[str]:
    from bench.core.registry import MEASURES

    yield from (
        "# Metrics",
        "",
        "All metrics that vbench can report. Unknown values are null, never 0.",
        "",
    )
    yield from ("| metric | unit | better | title | meaning |", "|---|---|---|---|---|")
    for entry in sorted(MEASURES, key=attrgetter("name")):
        for spec in entry.metrics:
            yield f"| `{spec.name}` | {spec.unit} | {spec.better or ''} | {_cell(spec.title)} | {_cell(spec.meaning)} |"
    yield ""


def _records() -> Iterator[str]:
    from bench.core import schema

    yield from (
        "# Records",
        "",
        "Each line of `records.jsonl` in a results folder is one `Record` as JSON.",
        "",
    )
    for kind in RECORD_TYPES:
        yield from (f"## {kind}", "", inspect.cleandoc(getattr(schema, kind).__doc__ or ""), "")
        yield from (*_fields(getattr(schema, kind), head="field"), "")
    yield from ("## Statuses", "", "| status | meaning |", "|---|---|")
    yield from (f"| `{status}` | {meaning} |" for status, meaning in STATUSES.items())
    yield ""


# The types that a record consists of, from the outside in; a test finds those that are missing here.
RECORD_TYPES = ("Record", "Case", "Point", "Clip", "Metric", "Environment", "RecordWarning", "Failure")
# What a reader may conclude from each; a test holds the names against the schema.
STATUSES = {
    "ok": "Measured; the stop rule was satisfied.",
    "unsteady": "Measured, but the warm-up never ended or the interval is wider than 10 % on either side. Not ranked.",
    "drifting": "Measured, but the level of a timing moved, or the canary changed. The interval spans it. Not ranked.",
    "throttled": "Measured while the device limited its clocks. Comparisons leave such runs out.",
    "oom": "Out of memory; the record names the batch.",
    "timeout": "Ended at `timeout_s`.",
    "interrupted": "Stopped by a signal; the next run takes the case up again.",
    "error": "An exception or a crash; the record has its message and the end of the log.",
    "skipped": "Impossible on this machine, with the reason.",
}


def _python_api() -> Iterator[str]:
    import bench

    yield from (
        "# Python",
        "",
        "All names can be imported from `bench`, which imports each on first use.",
        "",
    )
    values = [name for name in sorted(bench.__all__) if not callable(getattr(bench, name))]
    for name in sorted(set(bench.__all__) - set(values)):
        kind = "autoclass" if inspect.isclass(getattr(bench, name)) else "autofunction"
        yield from (f"```{{eval-rst}}\n.. {kind}:: bench.{name}\n```", "")
    yield from ("## Sets of axes", "", "For `depends_on` of `register_measure`.", "", "| name | axes |", "|---|---|")
    yield from (f"| `{name}` | {', '.join(f'`{axis}`' for axis in sorted(getattr(bench, name)))} |" for name in values)
    yield ""


def _exit_codes() -> Iterator[str]:
    from bench.cli.listings import EXIT_CODES

    yield from ("# Exit codes", "", "The same for every command; `vbench help exit-codes` prints them.", "")
    yield from ("| code | meaning |", "|---|---|")
    yield from (f"| {code} | {meaning} |" for code, meaning in EXIT_CODES.items())
    yield from ("", "If several apply, the first of 129/130/143, 70, 2, 3, 1, 4 is used.", "")


def _environment() -> Iterator[str]:
    from bench.cli.listings import ENVIRONMENT

    yield from ("# Environment variables", "", "| variable | meaning |", "|---|---|")
    yield from (f"| `{name}` | {meaning} |" for name, meaning in ENVIRONMENT.items())
    yield ""


def _fields(kind: Any, *, head: str) -> Iterator[str]:
    """A table of the fields of a pydantic type: name, type, default, meaning."""
    schema = kind.model_json_schema(mode="serialization")
    yield from (f"| {head} | type | default | meaning |", "|---|---|---|---|")
    for name, field in schema["properties"].items():
        default = _json_default(field) or ("required" if name in schema.get("required", ()) else "")
        yield f"| `{name}` | {_cell(_type(field))} | {default} | {_cell(kind.model_fields[name].description or '')} |"


def _last_paragraph(kind: Any) -> str:
    """The last paragraph of a docstring, which for these types is about their values."""
    return " ".join(inspect.cleandoc(kind.__doc__ or "").split("\n\n")[-1].split())


def _type(schema: dict[str, Any]) -> str:
    if "$ref" in schema:
        return str(schema["$ref"].rpartition("/")[2])
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    if "anyOf" in schema:
        kinds = list(dict.fromkeys(kind for each in schema["anyOf"] for kind in _type(each).split(" or ")))
        return "any value" if {"boolean", "string", "mapping"} <= set(kinds) else " or ".join(kinds)
    if schema.get("type") == "array" and "items" in schema:
        return f"list of {_type(schema['items'])}"
    if schema.get("type") == "object" and isinstance(schema.get("additionalProperties"), dict):
        return f"mapping of {_type(schema['additionalProperties'])}"
    return str(schema.get("type", "any value")).replace("object", "mapping").replace("array", "list")


def _json_default(schema: dict[str, Any]) -> str:
    return _cell(f"`{json.dumps(schema['default'])}`") if "default" in schema else ""


def _value(default: Any) -> str:
    """The default of an option as YAML writes it."""
    return "required" if default is inspect.Parameter.empty else _cell(f"`{json.dumps(default)}`")


def _cell(text: str) -> str:
    """Return text of a table cell; `<` would start HTML, except in code."""
    parts = " ".join(text.split()).replace("|", "\\|").split("`")
    return "`".join(part if number % 2 else part.replace("<", "&lt;") for number, part in enumerate(parts))
