"""Groups what changed by its cause: the layers of a model that cost more or less, from the counts of each module."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Literal

from bench.comparison.pairing import CasePair
from bench.comparison.runs import CaseRuns
from bench.comparison.verdicts import Cause, ModuleChange
from bench.core.schema import Json, digest

MAX_CHANGES = 3
TABLES = ("macs_by_module", "params_by_module")


@dataclass(frozen=True, kw_only=True)
class Layer:
    """A module's own MACs and parameters, without those of its submodules; None if they were not counted."""

    path: str
    macs: int | None
    params: int | None

    @property
    def kind(self) -> tuple[str, int | None, int | None]:
        """What stays the same if a layer only moves: its name, unless that is its place, and its costs."""
        name = self.path.rpartition(".")[2]
        return ("" if name.isdigit() else name, self.macs, self.params)


def causes_of(pairs: Sequence[CasePair]) -> tuple[Cause, ...]:
    """Return one cause for each model whose layers changed, with the cases of that model; counts must be known."""
    found: dict[str, Cause] = {}
    for pair in pairs:
        key = model_key(pair.head)
        changes = changed_layers(layers_of(pair.base), layers_of(pair.head))
        if changes and (key not in found or len(changes) > len(found[key].changes)):
            found[key] = Cause(
                model=pair.head.case.point.model,
                changes=tuple(collapsed(changes)),
                source=source_of(pair.head),
                case_ids=tuple(each.head.id for each in pairs if model_key(each.head) == key),
            )
    return tuple(found.values())


def model_key(case: CaseRuns) -> str:
    """Return the same text for all cases of one model with the same arguments."""
    return digest({"model": case.case.point.model, "args": dict(case.case.point.args)})


def source_of(case: CaseRuns) -> str:
    """Return where the model is written, as `file:line`; empty if the records do not know."""
    known = [record.details.get("model_source") for record in case.records]
    return next((text for text in known if isinstance(text, str)), "")


def layers_of(case: CaseRuns) -> list[Layer]:
    """Return the modules of a case with their own costs, in the order of the model; empty if none were counted."""
    return layers_from(*(_table(case, name) for name in TABLES))


def layers_from(macs_by_module: Mapping[str, Json], params_by_module: Mapping[str, Json]) -> list[Layer]:
    """Return the modules of two tables, whose counts include submodules, with their own costs."""
    macs, params = _own(macs_by_module), _own(params_by_module)
    paths = dict.fromkeys([*params, *macs])
    return [
        Layer(path=path, macs=macs.get(path, 0) if macs else None, params=params.get(path, 0) if params else None)
        for path in paths
    ]


def _table(case: CaseRuns, name: str) -> Mapping[str, Json]:
    tables = [record.details.get(name) for record in case.records]
    return next((table for table in reversed(tables) if isinstance(table, dict)), {})


def _own(totals: Mapping[str, Json]) -> dict[str, int]:
    """Return what each module costs without its submodules; `totals` include them."""
    own = {path: total for path, total in totals.items() if isinstance(total, int)}
    for path, total in list(own.items()):
        parent = path
        while parent:  # the nearest module above that the table has
            parent = parent.rpartition(".")[0]
            if parent in totals:
                own[parent] -= total
                break
    return own


def changed_layers(base: Sequence[Layer], head: Sequence[Layer]) -> list[ModuleChange]:
    """Return the layers that were added, removed or have other costs; none unless both sides were counted.

    Layers are compared by path if the paths are the same. Else the two sequences are aligned, so that a layer that was
    inserted does not make all later ones, whose numbers move, look changed.
    """
    if not base or not head:
        return []
    if [layer.path for layer in base] == [layer.path for layer in head]:
        return [change for old, new in zip(base, head, strict=True) for change in _change("changed", old, new)]
    found: list[ModuleChange] = []
    matcher = SequenceMatcher(a=[layer.kind for layer in base], b=[layer.kind for layer in head], autojunk=False)
    for _, old_start, old_end, new_start, new_end in matcher.get_opcodes():
        old, new = list(base[old_start:old_end]), list(head[new_start:new_end])
        if [layer.kind for layer in old] == [layer.kind for layer in new]:
            continue
        both = min(len(old), len(new))
        for before, after in zip(old[:both], new[:both], strict=True):
            found += _change("changed", before, after)
        for layer in old[both:]:
            found += _change("removed", layer, None)
        for layer in new[both:]:
            found += _change("added", None, layer)
    return found


def _change(
    what: Literal["added", "removed", "changed"], old: Layer | None, new: Layer | None
) -> Iterator[ModuleChange]:
    path = (new or old).path  # type: ignore[union-attr]  # one of the two is given
    deltas = [
        None if (before, after) == (None, None) else (after or 0) - (before or 0)
        for before, after in (
            (old and old.macs, new and new.macs),
            (old and old.params, new and new.params),
        )
    ]
    if any(deltas):
        yield ModuleChange(path=path, what=what, macs=deltas[0], params=deltas[1])


def collapsed(changes: Sequence[ModuleChange]) -> list[ModuleChange]:
    """Return at most three changes: the deepest ones are joined to one of the module above them until so few remain."""
    found = list(changes)
    while len(found) > MAX_CHANGES:
        depth = max(_depth(change.path) for change in found)
        if depth == 0:
            break
        joined: dict[str, list[ModuleChange]] = {}
        for change in found:
            path = change.path.rpartition(".")[0] if _depth(change.path) == depth else change.path
            joined.setdefault(path, []).append(change)
        found = [_joined(path, each) for path, each in joined.items()]
    return found


def _depth(path: str) -> int:
    return path.count(".") + 1 if path else 0


def _joined(path: str, changes: Sequence[ModuleChange]) -> ModuleChange:
    known = [
        [value for change in changes if (value := getattr(change, name)) is not None] for name in ("macs", "params")
    ]
    macs, params = (sum(values) if values else None for values in known)
    kinds = {change.what for change in changes}
    return ModuleChange(
        path=path,
        what=kinds.pop() if len(kinds) == 1 else "changed",
        macs=macs,
        params=params,
        layers=sum(change.layers for change in changes),
    )


def have_same_structure(base: CaseRuns, head: CaseRuns) -> bool:
    """Whether both have the same layers with the same costs, in the same order, under whatever names."""
    old, new = ([(layer.macs, layer.params) for layer in layers_of(case)] for case in (base, head))
    return bool(old) and old == new
