"""What stands on either side of an A/B measurement, under that side's own vbench: plans the suite, measures on request.

`sides.py` gives this text to the side's interpreter, so that a commit from before this file can be measured too. It
asks for little: `plan`, `run_case` and the store. JSON lines on standard input are answered on standard output.
"""

import ctypes
import json
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib import import_module
from importlib.machinery import PathFinder
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any

PR_SET_PDEATHSIG = 1
OWN = "bench.runner.running"  # by which a checkout of vbench is told from any folder named bench


def main() -> None:
    """Answer the first line with the plan, every later one, `{case, index}`, with what came of that run."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    replies = _replies()
    for answer in _answers():
        replies.write(json.dumps(answer) + "\n")
        replies.flush()


def _replies() -> IO[str]:
    """Standard output, kept for replies alone: what plug-ins print goes to standard error from here on."""
    kept = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return kept


def _answers() -> Iterator[dict[str, Any]]:
    asked = json.loads(sys.stdin.readline())
    try:
        yield from _served(asked)
    except Exception as error:  # whatever the other commit's code raises is told, and then ends this process
        message, is_ours = str(error) or type(error).__name__, type(error).__module__ == "bench.core.errors"
        problem = message if is_ours else f"{type(error).__name__}: {message}"
        yield {"problem": problem, "exit_code": getattr(error, "exit_code", None) if is_ours else None}
        raise


def _served(asked: dict[str, Any]) -> Iterator[dict[str, Any]]:
    _import_past_others()
    from bench.core.yaml_tree import Tree
    from bench.runner.local import run_case
    from bench.runner.running import plan, recipe_folders

    target = plan(_tree(Tree.of(asked["suite"], name=asked["name"]), asked), out=asked["out"])
    cases, recipes = target.suite.cases, recipe_folders(target.suite.path)
    with target.store.lock():
        target.store.write_suite(target.suite.facts())
        planned = [{"id": c.id, "title": c.title, "is_sharing": _is_sharing(c)} for c in cases]
        yield {"cases": planned, **_origins(asked["suite"])}
        for line in sys.stdin:
            wanted = json.loads(line)
            case = cases[wanted["case"]]
            with _floor(wanted["floor"]):
                record = run_case(
                    case,
                    target.store,
                    run_index=wanted["index"],
                    freshness=target.freshness[case.id],
                    recipes=recipes,
                )
            record = _marked(record, is_sharing=wanted["floor"] is not None)
            target.store.append(record)
            yield {"is_good": record.is_good, "needs_turns": any(map(_needs_turns, record.metrics))}


def _tree(tree: Any, asked: dict[str, Any]) -> Any:
    """`tree` with what its files told besides its values: where each stands, and which file was laid over which."""
    position = type(tree.positions[()])
    positions = {
        tuple(place): position(file=file, line=line, column=column) for place, file, line, column in asked["at"]
    }
    overlaid = frozenset(map(tuple, asked["overlaid"]))
    told = {"positions": {**tree.positions, **positions}, "overlaid": overlaid, "beneath": overlaid}  # an older name
    return replace(tree, **{name: value for name, value in told.items() if hasattr(tree, name)})


def _marked(record: Any, *, is_sharing: bool) -> Any:
    """The record saying how its run took turns with the other side's, so that it is never taken for one by itself."""
    details = {**record.details, "in_turns": "steps" if is_sharing else "processes"}
    return record.model_copy(update={"details": details})


@contextmanager
def _floor(address: str | None) -> Iterator[None]:
    """Tell the worker where it asks for the floor; a worker from before there was one does not listen."""
    if address is not None:
        os.environ["VBENCH_FLOOR"] = address
    try:
        yield
    finally:
        os.environ.pop("VBENCH_FLOOR", None)


def _import_past_others() -> None:
    """Import this interpreter's vbench where the side's checkout has another package of that name before it.

    What comes before it is the side's own vbench, if the checkout is one of vbench.
    """
    others = [entry for entry in sys.path if _is_other(entry)]
    if not others:
        return
    kept = sys.path[:]
    sys.path[:] = [entry for entry in kept if entry not in others]
    try:
        import_module(OWN)
    finally:
        sys.path[:] = kept
    if find_spec("bench.core.import_path") is not None:
        from bench.core.import_path import add_working_folder

        add_working_folder()


def _is_other(entry: str) -> bool:
    """Whether this place of the path has a package `bench` that is none of vbench.

    A mere folder of that name, without an `__init__.py`, hides no package that comes later.
    """
    found = PathFinder.find_spec("bench", [entry])
    if found is None or found.origin is None:
        return False
    places = found.submodule_search_locations or [found.origin]
    return not any(Path(place, part, "running.py").is_file() for place in places for part in ("runner", "execution"))


def _is_sharing(case: Any) -> bool:
    """Whether this vbench knows of the floor, and the case leaves its device to another process between its turns.

    A CPU's cases do but for training, which has no turns; what a GPU does between two processes is its own affair.
    """
    if find_spec("bench.measure.timing.turn_taking") is None or "accuracy" in case.measures:
        return False
    return case.point.device == "cpu" or (case.point.device is None and not _has_gpu())


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


def _needs_turns(metric: Any) -> bool:
    """Whether one run says little: neither a count nor a share of videos.

    A commit from before metrics said of themselves what is of a machine is asked as well; what this decides there is
    whether there are more runs than needed.
    """
    return metric.value is not None and getattr(metric, "is_of_machine", not metric.is_exact)


def _origins(suite: dict[str, Any]) -> dict[str, Any]:
    """Where the code under test comes from, by module: vbench, plug-ins, the modules of the user's factories."""
    models = [entry if isinstance(entry, str) else entry.get("name") for entry in suite.get("models") or []]
    factories = [name.partition(":")[0] for name in models if isinstance(name, str) and ":" in name]
    names = dict.fromkeys([OWN, *(suite.get("plugins") or []), *factories])
    return {
        "origins": {name: place for name in names if (place := _origin(name))},
        "prefix": str(Path(sys.prefix).resolve()),
    }


def _origin(name: str) -> str | None:
    """The file of a module, or the first folder of a package without one; its parents are not imported for that."""
    top, *rest = name.split(".")
    spec = find_spec(top) if top.isidentifier() else None
    for number in range(len(rest)):
        if spec is None or spec.submodule_search_locations is None:
            return None
        spec = PathFinder.find_spec(".".join([top, *rest[: number + 1]]), spec.submodule_search_locations)
    if spec is None:
        return None
    places = [spec.origin] if spec.has_location and spec.origin else list(spec.submodule_search_locations or [])
    return str(Path(places[0]).resolve()) if places else None


if __name__ == "__main__":
    main()
