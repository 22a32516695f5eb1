"""Reads torch files and pickles without running the code that they may contain.

Unpickling normally imports and calls whatever the file names. Here only the constructors in `_CONSTRUCTORS` are
called; every other name becomes an inert stand-in that remembers its state. So tensors can be read out of files that
also hold configurations, paths or loggers of packages that are not installed.
"""

import io
import math
import pickle
import pickletools
import struct
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
"""The first object in files of torch before 1.6."""

STORAGES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
    "ComplexFloatStorage": torch.complex64,
    "ComplexDoubleStorage": torch.complex128,
    "QInt8Storage": torch.int8,
    "QUInt8Storage": torch.uint8,
    "QInt32Storage": torch.int32,
    "UntypedStorage": torch.uint8,
}
"""Element type of each storage class. Quantised ones give their integers, which loading refuses by name."""

MODULE_STATE = ("_parameters", "_buffers", "_modules")

# Texts are skipped by lines: the readers of pickletools take them for ASCII and warn of backslashes.
_LINES_OF_TEXT = {"stringnl": 1, "stringnl_noescape": 1, "stringnl_noescape_pair": 2}
_OPERATIONS = {each.code.encode("latin-1"): each for each in pickletools.opcodes}

MOST_TIMES_LARGER = 4
"""How much larger than itself a zip may unpack. torch.save does not compress, and weights hardly shrink."""

MOST_EXPANDED_BYTES = 64 << 20
"""Size up to which a tensor may repeat the values of a smaller storage: a step of 0 makes a terabyte of four bytes."""

MOST_MODULES = 100_000
"""Modules of a model that was saved whole, each counted as often as it is named."""


class Inert:
    """Stand-in for an object of an unknown class: it keeps arguments, state and items, and does nothing."""

    def __new__(cls, *args: Any, **kwargs: Any) -> "Inert":
        made = super().__new__(cls)
        made.args = args
        made.state = None
        made.items = {}
        return made

    args: tuple[Any, ...]
    state: Any
    items: dict[Any, Any]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Take whatever the class would have taken."""

    def __call__(self, *args: Any, **kwargs: Any) -> "Inert":
        return Inert(*args)

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def __setitem__(self, key: Any, value: Any) -> None:
        self.items[key] = value

    def append(self, value: Any) -> None:
        self.items[len(self.items)] = value

    def extend(self, values: Any) -> None:
        for value in values:
            self.append(value)

    add = append


class StorageView:
    """Bytes of a tensor's storage with their element type."""

    def __init__(self, untyped: torch.UntypedStorage, dtype: torch.dtype) -> None:
        self.untyped, self.dtype = untyped, dtype


class Constructor:
    """An allowed function. A new one is made for each mention, so that a file cannot change it for later files."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    def __call__(self, *args: Any) -> Any:
        return self._function(*args)


StorageReader = Callable[[Any, torch.dtype, int], StorageView]


class SafeUnpickler(pickle.Unpickler):
    """An unpickler whose names are all harmless. `storage` returns the storage of a key: (key, dtype, numel)."""

    def __init__(
        self, file: BinaryIO, *, storage: Callable[[Any, torch.dtype, int], StorageView] | None = None
    ) -> None:
        # Strings of Python 2 are bytes; latin1 keeps each of them, so that numpy arrays written there come out right.
        super().__init__(file, encoding="latin1")
        self._storage = storage
        self._stand_ins: dict[tuple[str, str], type[Inert]] = {}

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        if global_name in STORAGES and module_name in ("torch", "torch.storage", "torch.cuda"):
            return STORAGES[global_name]
        if module_name == "torch" and isinstance(dtype := getattr(torch, global_name, None), torch.dtype):
            return dtype
        function = _CONSTRUCTORS.get((module_name.replace("numpy._core", "numpy.core"), global_name))
        if function is not None:
            return function if isinstance(function, type) else Constructor(function)
        key = (module_name, global_name)
        if key not in self._stand_ins:
            self._stand_ins[key] = type(global_name.rpartition(".")[2], (Inert,), {"__module__": module_name})
        return self._stand_ins[key]

    def persistent_load(self, pid: Any) -> Any:
        if self._storage is None or not isinstance(pid, tuple):
            raise pickle.UnpicklingError("the file refers to data outside itself")
        if pid[0] == "module":  # a class with its source text, in files of torch before 1.6
            return pid[1]
        _, dtype, key, _, numel, *view = pid
        if not isinstance(dtype, torch.dtype):
            raise pickle.UnpicklingError(f"storage of an unknown kind {dtype!r}")
        found = self._storage(key, dtype, numel)
        if view and view[0] is not None:  # (key, first element, number of elements) of a part of another storage
            _, first, count = view[0]
            size = torch.empty(0, dtype=dtype).element_size()
            return StorageView(found.untyped[first * size : (first + count) * size], dtype)
        return found


def read_torch(path: Path) -> Any:
    """Return the content of a torch file (zip, legacy or TorchScript) or of a plain pickle, without running its code.

    Modules, also those of TorchScript, become mappings of their weights by name. Raises what pickle, struct and torch
    raise for torn files.
    """
    with path.open("rb") as file:
        is_zip = file.read(4) == b"PK\x03\x04"
        file.seek(0)
        return without_stand_ins(_read_zip(path) if is_zip else _read_legacy(file))


def without_stand_ins(content: Any) -> Any:
    """Return `content` with modules as mappings of weights, and stand-ins that hold mappings as those mappings."""
    # A few bytes can refer to one list so often that it stands for billions of values: each is translated once.
    translated: dict[int, Any] = {}

    def translate(value: Any) -> Any:
        if id(value) not in translated:
            translated[id(value)] = translate_new(value)
        return translated[id(value)]

    def translate_new(value: Any) -> Any:
        if isinstance(value, Inert):
            if is_module(value):
                return dict(_weights_of(value))
            if isinstance(value.state, dict) or value.items:
                own = value.state if isinstance(value.state, dict) else {}
                return {key: translate(each) for key, each in {**own, **value.items}.items()}
            return value
        if isinstance(value, dict):
            return {key: translate(each) for key, each in value.items()}
        if isinstance(value, list):
            return [translate(each) for each in value]
        return value

    return translate(content)


def is_module(value: Any) -> bool:
    """Return whether a stand-in is an nn.Module that was saved whole, or one of TorchScript."""
    if not isinstance(value, Inert) or not isinstance(value.state, dict):
        return False
    return all(key in value.state for key in MODULE_STATE) or type(value).__module__.startswith("__torch__")


def _weights_of(module: Inert, prefix: str = "", left: Iterator[int] | None = None) -> Iterator[tuple[str, Tensor]]:
    left = iter(range(MOST_MODULES)) if left is None else left
    if next(left, None) is None:
        raise ValueError(f"a model of more than {MOST_MODULES:,} modules")
    state: Mapping[str, Any] = module.state
    groups = [state[key] for key in MODULE_STATE] if all(key in state for key in MODULE_STATE) else [state]
    for group in groups:
        for name, value in group.items() if isinstance(group, dict) else ():
            if isinstance(value, Tensor):
                yield f"{prefix}{name}", value
            elif is_module(value):
                yield from _weights_of(value, f"{prefix}{name}.", left)


def _read_zip(path: Path) -> Any:
    reader: Any = torch._C.PyTorchFileReader(str(path))
    names = set(reader.get_all_records())
    if "data.pkl" not in names:
        raise ValueError("a zip archive without data.pkl, which torch.save would have written")
    if "byteorder" in names and not _is_little(reader):
        raise ValueError("written on a big-endian machine")
    unpacked = sum(reader.get_record_size(name) for name in names if name == "data.pkl" or name.startswith("data/"))
    if unpacked > MOST_TIMES_LARGER * (size := path.stat().st_size):
        raise ValueError(f"{size:,} bytes that unpack to {unpacked:,}, more than weights can be compressed")
    storages: dict[Any, torch.UntypedStorage] = {}

    def storage(key: Any, dtype: torch.dtype, numel: int) -> StorageView:
        if key not in storages:
            storages[key] = _untyped(reader.get_record(f"data/{key}"))
        return StorageView(storages[key], dtype)

    return _unpickled(io.BytesIO(reader.get_record("data.pkl")), storage=storage)


def _is_little(reader: Any) -> bool:
    """Whether the archive is of a little-endian machine; a long record, which may be a zip bomb, is not unpacked."""
    return bool(reader.get_record_size("byteorder") == len(b"little") and reader.get_record("byteorder") == b"little")


def _read_legacy(file: BinaryIO) -> Any:
    """A file of torch before 1.6: five pickles, then the storages; or one plain pickle."""
    first = _unpickled(file)
    if first != LEGACY_MAGIC:
        return first
    _unpickled(file)  # version of the format
    _unpickled(file)  # the machine it was written on
    storages: dict[Any, StorageView] = {}

    def storage(key: Any, dtype: torch.dtype, numel: int) -> StorageView:
        if key not in storages:
            element = torch.empty(0, dtype=dtype).element_size()
            n_bytes = _size_within(file, numel * element)
            storages[key] = StorageView(torch.empty(n_bytes, dtype=torch.uint8).untyped_storage(), dtype)
        return storages[key]

    content = _unpickled(file, storage=storage)
    for key in _unpickled(file):
        (numel,) = struct.unpack("<q", file.read(8))
        view = storages[key]
        element = torch.empty(0, dtype=view.dtype).element_size()
        if numel * element != view.untyped.nbytes():
            raise EOFError("a storage of another size than its tensors")
        view.untyped.copy_(_untyped(file.read(numel * element), wanted=numel * element))
    return content


def _unpickled(file: BinaryIO, *, storage: StorageReader | None = None) -> Any:
    """Return the object of the next pickle in `file`."""
    here = file.tell()
    _check_numbers(file)
    file.seek(here)
    return SafeUnpickler(file, storage=storage).load()


def _check_numbers(file: BinaryIO) -> None:
    """Raise EOFError for a pickle that numbers more objects than its file has bytes.

    Python allocates 16 bytes for each number up to the highest one, so nine bytes could take 64 GiB.
    """
    most = _size(file)
    while (operation := _OPERATIONS.get(file.read(1))) and operation.name != "STOP":
        if operation.arg is None:
            continue
        if lines := _LINES_OF_TEXT.get(operation.arg.name):
            for _ in range(lines):
                file.readline()
        else:
            number = operation.arg.reader(file)
            if operation.name in ("PUT", "BINPUT", "LONG_BINPUT") and number > most:
                raise EOFError(f"a pickle that numbers {number:,} objects in {most:,} bytes")


def _size(file: BinaryIO) -> int:
    here = file.tell()
    total = file.seek(0, io.SEEK_END)
    file.seek(here)
    return total


def _size_within(file: BinaryIO, n_bytes: int) -> int:
    """`n_bytes`, unless the file is too small to hold them: a damaged number must not allocate terabytes."""
    if not 0 <= n_bytes <= _size(file):
        raise EOFError("a storage larger than the file")
    return n_bytes


def _untyped(data: bytes, *, wanted: int | None = None) -> torch.UntypedStorage:
    if wanted is not None and len(data) != wanted:
        raise EOFError("the file ends within a storage")
    filled = torch.frombuffer(bytearray(data), dtype=torch.uint8) if data else torch.empty(0, dtype=torch.uint8)
    return filled.untyped_storage()


def _tensor(storage: StorageView, offset: int, size: Any, stride: Any, *rest: Any) -> Tensor:
    """A view of `storage`; raises ValueError if it would reach beyond the end, where torch would allocate more."""
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    element = torch.empty(0, dtype=storage.dtype).element_size()
    if 0 not in size and (offset < 0 or min(stride, default=0) < 0 or (last + 1) * element > storage.untyped.nbytes()):
        raise ValueError("a tensor that reaches beyond its storage")
    if math.prod(size) * element > max(storage.untyped.nbytes(), MOST_EXPANDED_BYTES):
        raise ValueError(f"a tensor of {math.prod(size):,} values that repeats {storage.untyped.nbytes():,} bytes")
    return torch.empty(0, dtype=storage.dtype).set_(storage.untyped, offset, tuple(size), tuple(stride))


def _tensor_with_dtype(storage: StorageView, offset: int, size: Any, stride: Any, *rest: Any) -> Tensor:
    """As `_tensor`, of an untyped storage: the third of `rest` is the element type."""
    return _tensor(StorageView(storage.untyped, rest[2]), offset, size, stride)


def _storage_from_bytes(data: bytes) -> StorageView:
    """The storage that pickle, as opposed to torch.save, writes as a torch file within the file."""
    file = io.BytesIO(data)
    found = _read_legacy(file)
    if not isinstance(found, StorageView):
        raise pickle.UnpicklingError("bytes that hold no storage")
    return found


def _array(*_: Any) -> Any:
    """An empty array, which the state that follows fills."""
    return np.empty(0, dtype=np.int8)


def _dtype(text: Any, *_: Any) -> Any:
    """A copy of the element type: the state that follows may change its byte order."""
    return np.dtype(text, False, True)


def _scalar(dtype: Any, data: Any = b"") -> Any:
    """A numpy scalar; those of type object would unpickle their bytes, so they become stand-ins."""
    if dtype.hasobject:
        return Inert(dtype)
    raw = data.encode("latin1") if isinstance(data, str) else data
    return np.frombuffer(raw, dtype=dtype, count=1)[0] if raw else dtype.type()


def _array_from_buffer(data: Any, dtype: Any, shape: Any, order: Any, *_: Any) -> Any:
    return np.frombuffer(data, dtype=dtype).reshape(shape, order=order).copy()


def _encoded(text: Any, encoding: str = "latin1", *_: Any) -> bytes:
    """Bytes, as Python 2's protocol writes them."""
    return text.encode("latin1") if encoding == "latin1" else b""


def _mapping(*args: Any) -> dict[Any, Any]:
    """A plain dictionary in place of a subclass of it; a default factory is dropped."""
    given = args[-1] if args else {}
    return dict(given) if isinstance(given, Mapping | list) else {}


def _sequence_as(kind: Callable[[Any], Any]) -> Callable[..., Any]:
    return lambda *args: (
        kind(args[0]) if args and isinstance(args[0], list | tuple | set | frozenset | dict) else kind(())
    )


def _reconstructed(kind: Any, *_: Any) -> Any:
    return kind() if isinstance(kind, type) and issubclass(kind, Inert) else {}


_CONSTRUCTORS: dict[tuple[str, str], Callable[..., Any]] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("collections", "defaultdict"): _mapping,
    ("collections", "Counter"): _mapping,
    ("torch._utils", "_rebuild_tensor"): _tensor,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_tensor_v3"): _tensor_with_dtype,
    ("torch._utils", "_rebuild_qtensor"): _tensor,
    ("torch._utils", "_rebuild_parameter"): lambda data, *_: data,
    ("torch._utils", "_rebuild_parameter_with_state"): lambda data, *_: data,
    ("torch._utils", "_rebuild_device_tensor_from_numpy"): lambda data, *_: torch.from_numpy(data),
    ("torch._tensor", "_rebuild_from_type_v2"): lambda function, _kind, args, _state: function(*args),
    ("torch.storage", "_load_from_bytes"): _storage_from_bytes,
    ("torch", "Size"): lambda *args: tuple(args[0]) if args else (),
    ("numpy.core.multiarray", "_reconstruct"): _array,
    ("numpy.core.multiarray", "scalar"): _scalar,
    ("numpy.core.numeric", "_frombuffer"): _array_from_buffer,
    ("numpy", "dtype"): _dtype,
    ("_codecs", "encode"): _encoded,
    ("copyreg", "_reconstructor"): _reconstructed,
    ("copy_reg", "_reconstructor"): _reconstructed,
    **{
        (module, name): _sequence_as(kind)
        for module in ("builtins", "__builtin__")
        for name, kind in (("set", set), ("frozenset", frozenset), ("list", list), ("tuple", tuple))
    },
    ("builtins", "dict"): _mapping,
    ("__builtin__", "dict"): _mapping,
}
