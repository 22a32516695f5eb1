"""Serves the report of a run while it runs, from a child process of low priority."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from bench.core.errors import InputError
from bench.core.process import ChildProcess

if TYPE_CHECKING:
    from bench.core.yaml_tree import Tree
    from bench.runner.running import Event

READY_S = 60.0
LAST_LOOK_S = 20.0  # for the reader of an open page, see serve_child; without one the server ends at once


@contextmanager
def served_report(
    tree: "Tree", show: "Callable[[Event], None]", *, port: int | None, announce: Callable[[str], None]
) -> "Iterator[Callable[[Event], None]]":
    """Yield `show`, preceded at the first event by the start of a server whose address goes to `announce`.

    Without a `port` there is no server. Raises InputError, from the first event, if the server cannot start.
    """
    with ExitStack() as stack:
        children: list[ChildProcess] = []

        def show_and_serve(event: "Event") -> None:
            if not children and port is not None:
                request = {"folder": str(event.folder), "port": port, "plugins": _plugins(tree)}
                child = ChildProcess("bench.reporting.watching:serve_child", request, takes_more=True)
                children.append(stack.enter_context(child))
                reply = next(child.messages(timeout_s=READY_S), {})
                if "address" not in reply:
                    raise InputError(f"--serve: {reply.get('error') or child.last_error() or 'the server ended'}")
                announce(reply["address"])
            show(event)

        yield show_and_serve
        for child in children:
            child.send(b"{}\n", timeout_s=LAST_LOOK_S)
            child.end(within_s=LAST_LOOK_S)


def _plugins(tree: "Tree") -> list[str]:
    plugins = tree.data.get("plugins") if isinstance(tree.data, dict) else None
    return [str(name) for name in plugins] if isinstance(plugins, list) else []
