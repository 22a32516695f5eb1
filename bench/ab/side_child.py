"""The process of one side of an A/B measurement: plans the suite under that side's own vbench, measures on request.

`sides.py` passes this text to the side's interpreter, so that commits from before this file can be measured too. It
needs only `plan`, `run_case` and the store, and finds them under their earlier names as well. It answers the JSON lines
of standard input on standard output.
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
from types import ModuleType
from typing import IO, Any

PR_SET_PDEATHSIG = 1
OWN = "bench.runner.running"  # tells a checkout of vbench from any other folder named bench
# Modules by their names, the newest first: a side may be a commit from before a rename.
RUNNING = (OWN, "bench.execution.running")
LOCAL = ("bench.runner.local", "bench.execution.local")
YAML_TREE = ("bench.core.yaml_tree", "bench.yaml_tree")
IMPORT_PATH = ("bench.core.import_path", "bench.importing")
TURN_TAKING = ("bench.measure.timing.turn_taking", "bench.measure.floor")
ERRORS = ("bench.core.errors", "bench.errors")
TURN_ADDRESSES = ("VBENCH_TURN_TAKING", "VBENCH_FLOOR")


def main() -> None:
    """Answer the first line with the plan, and each later one, `{case, index}`, with the result of that run."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    replies = _replies()
    for answer in _answers():
        replies.write(json.dumps(answer) + "\n")
        replies.flush()


def _replies() -> IO[str]:
    """Standard output, reserved for replies: from here on, what plug-ins print goes to standard error."""
    kept = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return kept


def _answers() -> Iterator[dict[str, Any]]:
    request = json.loads(sys.stdin.readline())
    try:
        yield from _serve(request)
    except Exception as error:  # whatever the side's code raises is reported, and then ends this process
        message, is_ours = str(error) or type(error).__name__, type(error).__module__ in ERRORS
        problem = message if is_ours else f"{type(error).__name__}: {message}"
        yield {"problem": problem, "exit_code": getattr(error, "exit_code", None) if is_ours else None}
        raise


def _serve(request: dict[str, Any]) -> Iterator[dict[str, Any]]:
    _import_own_vbench()
    running, run_case = _module(RUNNING), _module(LOCAL).run_case
    tree = _module(YAML_TREE).Tree.of(request["suite"], name=request["name"])
    target = running.plan(_with_positions(tree, request), out=request["out"])
    cases, recipes = target.suite.cases, running.recipe_folders(target.suite.path)
    with target.store.lock():
        target.store.write_suite(target.suite.facts())
        planned = [{"id": c.id, "title": c.title, "is_sharing": _is_sharing(c)} for c in cases]
        yield {"cases": planned, **_origins(request["suite"])}
        for line in sys.stdin:
            wanted = json.loads(line)
            case, address = cases[wanted["case"]], wanted["turn_address"]
            with _turn_taking_at(address):
                record = run_case(
                    case,
                    target.store,
                    run_index=wanted["index"],
                    freshness=target.freshness[case.id],
                    recipes=recipes,
                )
            record = _with_turn_kind(record, by="processes" if address is None else "steps")
            target.store.append(record)
            yield {"is_good": record.is_good, "needs_turns": any(map(_needs_turns, record.metrics))}


def _module(names: tuple[str, ...]) -> ModuleType:
    """The module under the first of `names` that this side's vbench has; if it has none, the newest is reported."""
    return import_module(next((name for name in names if _exists(name)), names[0]))


def _exists(name: str) -> bool:
    """Whether a module can be found; `find_spec` raises if its package is missing."""
    try:
        return find_spec(name) is not None
    except ModuleNotFoundError:
        return False


def _with_positions(tree: Any, request: dict[str, Any]) -> Any:
    """`tree` with the position of each value in its file and with the keys that one file laid over another."""
    position = type(tree.positions[()])
    positions = {
        tuple(place): position(file=file, line=line, column=column) for place, file, line, column in request["at"]
    }
    overlaid = frozenset(map(tuple, request["overlaid"]))
    fields = {"positions": {**tree.positions, **positions}, "overlaid": overlaid, "beneath": overlaid}  # an older name
    return replace(tree, **{name: value for name, value in fields.items() if hasattr(tree, name)})


def _with_turn_kind(record: Any, *, by: str) -> Any:
    """The record with how its run took turns with the other side, so that it never passes for a run on its own."""
    return record.model_copy(update={"details": {**record.details, "in_turns": by}})


@contextmanager
def _turn_taking_at(address: str | None) -> Iterator[None]:
    """Pass the relay's address to the worker; a worker from before turn-taking by steps ignores it."""
    if address is not None:
        os.environ.update(dict.fromkeys(TURN_ADDRESSES, address))
    try:
        yield
    finally:
        for name in TURN_ADDRESSES:
            os.environ.pop(name, None)


def _import_own_vbench() -> None:
    """Import this interpreter's vbench even if the side's checkout has another package `bench` before it on the path.

    If the checkout is one of vbench, what comes first is the side's own.
    """
    others = [entry for entry in sys.path if _is_other(entry)]
    if not others:
        return
    kept = sys.path[:]
    sys.path[:] = [entry for entry in kept if entry not in others]
    try:
        _module(RUNNING)
    finally:
        sys.path[:] = kept
    if any(map(_exists, IMPORT_PATH)):
        module = _module(IMPORT_PATH)
        (getattr(module, "add_working_folder", None) or module.see_working_folder)()


def _is_other(entry: str) -> bool:
    """Whether this entry of the path holds a package `bench` that is not vbench.

    A plain folder of that name, without an `__init__.py`, does not hide a package that comes later.
    """
    found = PathFinder.find_spec("bench", [entry])
    if found is None or found.origin is None:
        return False
    places = found.submodule_search_locations or [found.origin]
    return not any(Path(place, part, "running.py").is_file() for place in places for part in ("runner", "execution"))


def _is_sharing(case: Any) -> bool:
    """Whether this vbench can take turns by steps and the case leaves its device to another process between its turns.

    Cases on a CPU do, except training, which has no turns. How a GPU switches between two processes is not under our
    control.
    """
    if not any(map(_exists, TURN_TAKING)) or "accuracy" in case.measures:
        return False
    return case.point.device == "cpu" or (case.point.device is None and not _has_gpu())


def _has_gpu() -> bool:
    import torch  # takes seconds, and only cases without a device ask

    return torch.cuda.is_available()


def _needs_turns(metric: Any) -> bool:
    """Whether one run does not settle this metric: it is neither a count nor a share of videos.

    A commit from before `is_of_machine` is asked for `is_exact`; the worst that can happen is more runs than needed.
    """
    return metric.value is not None and getattr(metric, "is_of_machine", not metric.is_exact)


def _origins(suite: dict[str, Any]) -> dict[str, Any]:
    """The origin of the code under test, by module: vbench, plug-ins, the modules of the user's factories."""
    models = [entry if isinstance(entry, str) else entry.get("name") for entry in suite.get("models") or []]
    factories = [name.partition(":")[0] for name in models if isinstance(name, str) and ":" in name]
    names = dict.fromkeys([next(filter(_exists, RUNNING), OWN), *(suite.get("plugins") or []), *factories])
    return {
        "origins": {name: place for name in names if (place := _origin(name))},
        "prefix": str(Path(sys.prefix).resolve()),
    }


def _origin(name: str) -> str | None:
    """The file of a module, or the first folder of a namespace package. Does not import its parent packages."""
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
