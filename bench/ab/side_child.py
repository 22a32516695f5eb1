"""The process of one side of an A/B measurement: plans the suite with that side's own vbench, and measures on request.

`sides.py` passes this text to the side's interpreter, so that commits from before this file can be measured too. It
needs only `plan`, `run_case` and the store, and finds them under their earlier names as well. It replies to each JSON
line on standard input with one on standard output.
"""

import ctypes
import json
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from importlib import import_module
from importlib.machinery import PathFinder
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

PR_SET_PDEATHSIG = 1
OWN = "bench.runner.running"  # distinguishes a checkout of vbench from other folders named bench
# Modules by their names, the newest first: a side may be a commit from before a rename.
RUNNING = (OWN, "bench.execution.running")
LOCAL = ("bench.runner.local", "bench.execution.local")
YAML_TREE = ("bench.core.yaml_tree", "bench.yaml_tree")
IMPORT_PATH = ("bench.core.import_path", "bench.importing")
TURN_TAKING = ("bench.measure.timing.turn_taking", "bench.measure.floor")
PRIVACY = ("bench.core.privacy",)
REGISTRY = ("bench.core.registry", "bench.registry")
ERRORS = ("bench.core.errors", "bench.errors")
GPU_DEVICES = ("nvidiactl", "nvidia0", "dxg", "kfd")  # of NVIDIA, of WSL, of AMD
TURN_ADDRESSES = ("VBENCH_TURN_TAKING", "VBENCH_FLOOR")


def main() -> None:
    """Reply to the first line with the plan, and to each later one, `{case, index}`, with the outcome of that run.

    `{prepare}` asks for so many interpreters to be started ahead and has no reply. The reply to `{wait}` comes when
    these have finished their imports.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    os.environ.pop("VBENCH_PARENT_PID", None)  # names the parent of this process, not that of its workers
    stdout = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what plug-ins print goes to standard error, because standard output is reserved for replies
    for reply in _replies():
        stdout.write(json.dumps(reply) + "\n")
        stdout.flush()


def _replies() -> Iterator[dict[str, Any]]:
    request = json.loads(sys.stdin.readline())
    try:
        yield from _plan_and_run(request)
    except Exception as error:  # whatever the side's code raises is reported before this process ends
        message, is_ours = str(error) or type(error).__name__, type(error).__module__ in ERRORS
        problem = message if is_ours else f"{type(error).__name__}: {message}"
        yield {"problem": problem, "exit_code": getattr(error, "exit_code", None) if is_ours else None}
        raise


def _plan_and_run(request: dict[str, Any]) -> Iterator[dict[str, Any]]:
    _import_own_vbench()
    running, local = _module(RUNNING), _module(LOCAL)
    tree = _module(YAML_TREE).Tree.of(request["suite"], name=request["name"])
    target = running.plan(_with_positions(tree, request), out=request["out"])
    cases, recipes = target.suite.cases, running.recipe_folders(target.suite.path)
    with target.store.lock(), _worker_starts(local) as starts:
        target.store.write_suite(target.suite.facts())
        yield {"cases": [_planned(case) for case in cases], **_origins(request["suite"])}
        for line in sys.stdin:
            wanted = json.loads(line)
            if "prepare" in wanted:
                if starts is not None:
                    starts.prepare(wanted["prepare"])
                continue
            if "wait" in wanted:
                if starts is not None:
                    starts.wait_until_prepared()
                yield {"is_prepared": starts is not None}
                continue
            case, address = cases[wanted["case"]], wanted["turn_address"]
            with _turn_taking_at(address):
                record = local.run_case(
                    case if address is None else _with_twice_the_time(case),
                    target.store,
                    run_index=wanted["index"],
                    freshness=target.freshness[case.id],
                    recipes=recipes,
                    **({} if starts is None else {"starts": starts}),
                )
            record = _as_ab_record(record, case, by="processes" if address is None else "steps")
            if not (request.get("identify") or getattr(target.suite, "identify", False)) and _exists(PRIVACY[0]):
                record = _module(PRIVACY).without_identity(record)
            target.store.append(record)
            yield {"is_good": record.is_good, "needs_turns": any(map(_needs_turns, record.metrics))}


def _worker_starts(local: ModuleType) -> Any:
    """A context with what starts the workers of this side; with None for a commit that cannot start them ahead."""
    starts = getattr(local, "WorkerStarts", None)
    return nullcontext() if starts is None or not hasattr(starts, "prepare") else starts()


def _planned(case: Any) -> dict[str, Any]:
    known = _module(REGISTRY).MEASURES if any(map(_exists, REGISTRY)) else {}
    measures = [(known.get(name), options) for name, options in case.measures.items()]
    return {
        "id": case.id,
        "title": case.title,
        "model": getattr(case.point, "model", ""),
        "is_sharing": _is_sharing(case),
        "timeout_s": getattr(case, "timeout_s", None),
        "is_counted": all(_is_count(measure) for measure, _ in measures),
        "is_of_instructions": set(case.measures) == {"instructions"},
        "seconds": sum(_seconds(measure, options) for measure, options in measures),
    }


def _is_count(measure: Any) -> bool:
    """Whether a measure is exact; commits from before `is_count` measure all cases alternately."""
    return bool(getattr(measure, "is_count", False))


def _seconds(measure: Any, options: Any) -> float:
    """A rough time of one run: at most twice `max_s`, which limits the warm-up and the sampling."""
    most = (options or {}).get("max_s")
    rough = float(getattr(measure, "duration_s", 1.0))
    return min(rough, 2.0 * most) if isinstance(most, int | float) else rough


def _module(names: tuple[str, ...]) -> ModuleType:
    """The module under the first of `names` that this side's vbench has; the newest, which fails, if it has none."""
    return import_module(next((name for name in names if _exists(name)), names[0]))


def _exists(name: str) -> bool:
    """Whether a module can be found; `find_spec` raises if its package is missing."""
    try:
        return find_spec(name) is not None
    except ModuleNotFoundError:
        return False


def _with_positions(tree: Any, request: dict[str, Any]) -> Any:
    """`tree` with the position of each value in its file, and with the keys that one file overrides in another."""
    position = type(tree.positions[()])
    positions = {
        tuple(place): position(file=file, line=line, column=column) for place, file, line, column in request["at"]
    }
    overlaid = frozenset(map(tuple, request["overlaid"]))
    fields = {"positions": {**tree.positions, **positions}, "overlaid": overlaid, "beneath": overlaid}  # an older name
    return replace(tree, **{name: value for name, value in fields.items() if hasattr(tree, name)})


def _with_twice_the_time(case: Any) -> Any:
    """`case` with twice the time limit, because the other side works for half of the time."""
    return case.model_copy(update={"timeout_s": 2 * case.timeout_s})


def _as_ab_record(record: Any, case: Any, *, by: str) -> Any:
    """The record of `case` with how its run took turns, so that it is never mistaken for a run on its own."""
    return record.model_copy(update={"case": case, "details": {**record.details, "in_turns": by}})


@contextmanager
def _turn_taking_at(address: str | None) -> Iterator[None]:
    """Set the relay's address for the worker; a worker from before turn-taking by steps ignores it."""
    if address is not None:
        os.environ.update(dict.fromkeys(TURN_ADDRESSES, address))
    try:
        yield
    finally:
        for name in TURN_ADDRESSES:
            os.environ.pop(name, None)


def _import_own_vbench() -> None:
    """Import this interpreter's vbench even if the side's checkout has another package `bench` before it on the path.

    In a checkout of vbench the first package on the path is the side's own.
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

    A folder of that name, without an `__init__.py`, does not hide a package that comes later.
    """
    found = PathFinder.find_spec("bench", [entry])
    if found is None or found.origin is None:
        return False
    places = found.submodule_search_locations or [found.origin]
    return not any(Path(place, part, "running.py").is_file() for place in places for part in ("runner", "execution"))


def _is_sharing(case: Any) -> bool:
    """Whether this vbench can take turns by steps, and the case leaves its device to another process between turns.

    Cases on a CPU do, except training, which has no turns. We cannot control how a GPU switches between processes.
    """
    if not any(map(_exists, TURN_TAKING)) or "accuracy" in case.measures:
        return False
    return case.point.device == "cpu" or (case.point.device is None and not _has_gpu())


def _has_gpu() -> bool:
    if sys.platform == "linux" and not any(Path("/dev", name).exists() for name in GPU_DEVICES):
        return False
    import torch  # takes seconds, and is needed only for cases without a device

    return torch.cuda.is_available()


def _needs_turns(metric: Any) -> bool:
    """Whether one run does not settle this metric: it is neither a count nor a share of videos.

    Commits from before `is_of_machine` have `is_exact`, which leads to more runs than needed at worst.
    """
    return metric.value is not None and getattr(metric, "is_of_machine", not metric.is_exact)


def _origins(suite: dict[str, Any]) -> dict[str, Any]:
    """The origin of the code under test, by module: vbench, plug-ins, the modules of the user's factories."""
    models = [entry if isinstance(entry, str) else entry.get("name") for entry in suite.get("models") or []]
    names = [name.partition(":") for name in models if isinstance(name, str)]
    factories = [module for module, colon, _ in names if colon or module.endswith(".py")]
    modules = dict.fromkeys([next(filter(_exists, RUNNING), OWN), *(suite.get("plugins") or []), *factories])
    return {
        "origins": {name: place for name in modules if (place := _origin(name))},
        "prefix": str(Path(sys.prefix).resolve()),
    }


def _origin(name: str) -> str | None:
    """The file of a module, or the first folder of a namespace package; that of `file.py` is the file itself.

    Does not import parent packages.
    """
    if name.endswith(".py"):
        return str(Path(name).resolve()) if Path(name).is_file() else None
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
