"""Record every operator that runs: its module, its multiply-accumulates, and the bytes it reads and writes."""

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from bench.measure.counting.dispatch import OperatorObserver, is_view, name_of, tensors_in
from bench.measure.counting.formulas import formula_of, macs_of_call, torch_formula_of
from bench.measure.counting.free_operators import is_free
from bench.measure.counting.module_paths import ModuleTracker
from bench.measure.counting.peak_memory import LiveTensors

_READS_ONLY_WHAT_IT_PICKS = {"aten::embedding", "aten::gather", "aten::index", "aten::index_select", "aten::take"}
_READS_NOTHING = {"aten::bernoulli_", "aten::fill_", "aten::normal_", "aten::uniform_", "aten::zero_"}
_VIEWS_IN_ALL_BUT_NAME = {"aten::_unsafe_view", "aten::unsafe_split", "aten::unsafe_split_with_sizes"}


@dataclass(frozen=True, kw_only=True)
class OperatorRow:
    """All calls of one operator inside one module (not inside its children), in one direction.

    Bytes are those read and written if nothing is cached or fused; views read and write nothing.
    """

    module: str
    operator: str
    is_backward: bool
    calls: int
    macs: int
    elements_written: int
    bytes_read: int
    bytes_written: int

    @property
    def bytes_moved(self) -> int:
        return self.bytes_read + self.bytes_written

    @property
    def flops_per_byte(self) -> float | None:
        """Arithmetic intensity; None if nothing is moved."""
        return 2 * self.macs / self.bytes_moved if self.bytes_moved else None


class _Key(NamedTuple):
    module: str
    operator: str
    is_backward: bool


class OperatorLog(OperatorObserver):  # type: ignore[no-untyped-call]  # torch leaves its base untyped
    """Context manager that adds each operator that runs to its rows.

    An operator that has no formula and is not known to be free is added to `uncounted`. `read` holds the identities of
    all tensors that operators received. `live` follows the tensors of the same pass, if it is given.
    """

    def __init__(
        self, places: ModuleTracker, device: str, *, free: Collection[str] = (), live: LiveTensors | None = None
    ) -> None:
        super().__init__(device)
        self._live = live
        self.uncounted: Counter[str] = Counter()
        self.complex_macs = 0
        self._free = frozenset(free)
        self.read: set[int] = set()
        self._places = places
        self._sums: dict[_Key, list[int]] = {}

    @property
    def rows(self) -> tuple[OperatorRow, ...]:
        """All rows, in the order in which each was first seen."""
        return tuple(
            OperatorRow(
                **key._asdict(),
                calls=calls,
                macs=macs,
                elements_written=elements,
                bytes_read=bytes_read,
                bytes_written=bytes_written,
            )
            for key, (calls, macs, elements, bytes_read, bytes_written) in self._sums.items()
        )

    def keeps_whole(self, func: Any) -> bool:
        """Return whether the user gave a composite operator a formula, or declared it free."""
        operator = name_of(func)
        is_own = not operator.startswith("aten::")
        is_declared = formula_of(operator) is not None or operator in self._free or is_free(operator)
        return torch_formula_of(func) is not None or (is_own and is_declared)

    def saw(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
        operator = name_of(func)
        macs = self._macs(func, operator, args, {name: v for name, v in kwargs.items() if name != "out"}, out)
        taken, given = list(tensors_in((args, kwargs))), list(tensors_in(out))
        if macs and any(tensor.is_complex() for tensor in taken):
            self.complex_macs += macs
        self.read.update(map(id, taken))
        key = _Key(self._places.current, operator, torch._C._current_graph_task_id() != -1)
        sums = self._sums.setdefault(key, [0, 0, 0, 0, 0])
        traffic = (0, 0, 0) if _moves_nothing(operator, func) else _traffic(operator, taken, given)
        for position, value in enumerate((1, macs, *traffic)):
            sums[position] += value
        if self._live is not None:
            self._live.saw(func, args, kwargs, out)

    def _macs(self, func: Any, operator: str, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> int:
        if operator in self._free:
            return 0
        formula = formula_of(operator) or torch_formula_of(func)
        if formula is not None:
            return macs_of_call(formula, operator, args, kwargs, out)
        if not is_free(operator):
            self.uncounted[operator] += 1
        return 0


def bytes_of(tensor: Tensor) -> int:
    """Return the bytes of the distinct values of `tensor`; values repeated by a stride of zero count once."""
    if tensor.layout != torch.strided:
        return tensor.numel() * tensor.element_size()
    values = 1
    for size, stride in zip(tensor.shape, tensor.stride(), strict=True):
        values *= 1 if stride == 0 and size else size
    return values * tensor.element_size()


def _moves_nothing(operator: str, func: Any) -> bool:
    """Return whether the operator is a view or only reserves memory."""
    name = operator.removeprefix("aten::")
    return operator in _VIEWS_IN_ALL_BUT_NAME or name.startswith(("empty", "new_empty")) or is_view(func)


def _traffic(operator: str, taken: list[Tensor], given: list[Tensor]) -> tuple[int, int, int]:
    """Return elements written, bytes read and bytes written."""
    bytes_written = sum(map(bytes_of, given))
    if operator in _READS_NOTHING or operator.endswith("_like") or operator.startswith("aten::new_"):
        bytes_read = 0
    elif operator in _READS_ONLY_WHAT_IT_PICKS:
        bytes_read = bytes_written + sum(map(bytes_of, taken[1:]))
    else:
        bytes_read = sum(map(bytes_of, taken))
    return sum(tensor.numel() for tensor in given), bytes_read, bytes_written
