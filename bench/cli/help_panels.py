"""How the help of a command is laid out: long lists of options in groups, and flags without the type `bool`."""

from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

MANY_OPTIONS = 8  # shorter lists need no headings
GROUPS = {
    "Model and input": (
        *(
            "--input",
            "--num-classes",
            "--arg",
            "--layout",
            "--weights",
            "--entry",
            "--clip",
            "--preprocess",
            "--labels",
        ),
        *("--views", "--device", "--change", "--class"),
    ),
    "Data set": ("--dataset", "--root", "--option", "--split", "--videos", "--published", "--workers"),
    "Training": ("--recipe", "--set", "--seed", "--ranks", "--timeout", "--tensorboard"),
    "Which cases": ("--small", "--shard", "--only", "--case", "--rerun", "--stale", "--why"),
    "Measuring": (
        *(
            "--speed",
            "--counters",
            "--wait-idle",
            "--budget",
            "--devices",
            "--apart",
            "--counts",
            "--trust",
            "--identify",
        ),
    ),
    "Decision": ("--gate", "--across", "--fail-on"),
    "Output": (
        *("--out", "--title", "--single-file", "--with-frames", "--layers", "--sort", "--format", "--json", "--csv"),
        *(
            "--html",
            "--quiet",
            "--log-json",
            "--sink",
            "--serve",
            "--port",
            "--watch",
            "--plugin",
            "--write",
            "--junit",
        ),
        *("--annotations", "--markdown", "--top", "--per-view", "--clip-scores"),
    ),
    "Compare and fuse": ("--fuse", "--weight"),
    "Questions": (
        *("--confusions", "--per-class", "--matrix", "--precision", "--true", "--predicted", "--suspects", "--most"),
        *("--frames",),
    ),
}
HEADING = {option: heading for heading, options in GROUPS.items() for option in options}


class Command(TyperCommand):
    """A command whose help has options in groups."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        options = visible_options(self, ctx)
        if len(options) > MANY_OPTIONS:
            for option in options:
                option.rich_help_panel = option.rich_help_panel or HEADING.get(option.opts[0])
        super().format_help(ctx, formatter)


class Group(TyperGroup):
    """A command with subcommands."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        visible_options(self, ctx)
        super().format_help(ctx, formatter)


def visible_options(command: Any, ctx: Any) -> list[Any]:
    """Return the options that help shows, with flags that show no type."""
    options = [each for each in command.get_params(ctx) if each.param_type_name == "option" and not each.hidden]
    for option in options:
        if option.is_flag:
            option.metavar = " "  # an empty one would be replaced by the type
    return options


def lay_out_help(app: typer.Typer) -> None:
    """Give every command of `app` a help with groups."""
    for command in app.registered_commands:
        command.cls = Command
    for group in app.registered_groups:
        group.cls = Group
        assert group.typer_instance is not None
        lay_out_help(group.typer_instance)
