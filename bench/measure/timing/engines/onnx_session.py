"""ONNX Runtime: the model exported to ONNX and run by a session, on the CPU or by the CUDA provider."""

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor

from bench.core.errors import InputError, MissingPackageError
from bench.measure.timing.engines.work import Work

CUDA = "CUDAExecutionProvider"
INSTALL = "pip install onnx onnxruntime onnxscript"


def open_session(work: Work) -> Callable[..., Tensor]:
    """A function that runs the model in a session with as many threads as torch has, on the device of the clips.

    On CUDA, clips and logits stay on the device, and every call waits until it is done. Raises MissingPackageError
    without onnxruntime, InputError if it has no CUDA provider that works.
    """
    onnxruntime = _onnxruntime()
    with TemporaryDirectory(prefix="vbench-onnx-") as folder:
        file = Path(folder) / "model.onnx"
        _write_onnx(work, file)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 3
        session = onnxruntime.InferenceSession(str(file), options, providers=_providers(work))
    if work.device.type != "cuda":
        return _on_cpu(session)
    if CUDA not in session.get_providers():  # it falls back to the CPU and only logs that
        raise InputError(f"compile onnxruntime has no {CUDA} that works here; pip install onnxruntime-gpu")
    return _on_cuda(session, work)


def adaptive_max_pool3d(volume: Tensor, output_size: list[int]) -> tuple[Tensor, Tensor]:
    """`aten::adaptive_max_pool3d` made of operators that ONNX has, axis by axis; the indices are zeros."""
    for axis, cells in zip((-3, -2, -1), output_size, strict=True):
        size = volume.shape[axis]
        bounds = [(cell * size // cells, -(-(cell + 1) * size // cells)) for cell in range(cells)]
        volume = torch.stack([volume.narrow(axis, a, b - a).amax(axis) for a, b in bounds], dim=axis)
    return volume, torch.zeros_like(volume, dtype=torch.int64)


def _onnxruntime() -> Any:
    try:
        import onnxruntime
        import onnxscript  # noqa: F401  # torch's exporter needs it, and fails late without it
    except ImportError as error:
        package = error.name or "onnxruntime"
        raise MissingPackageError(package, needed_for="compile onnxruntime", install=INSTALL) from None
    return onnxruntime


def _write_onnx(work: Work, file: Path) -> None:
    program = work.export().run_decompositions({torch.ops.aten.adaptive_max_pool3d.default: adaptive_max_pool3d})
    exported = torch.onnx.export(program, dynamo=True, verbose=False)
    assert exported is not None
    exported.save(str(file))


def _providers(work: Work) -> list[Any]:
    if work.device.type != "cuda":
        return ["CPUExecutionProvider"]
    return [(CUDA, {"device_id": work.device.index or 0, "use_tf32": int(work.precision == "tf32")})]


def _on_cpu(session: Any) -> Callable[..., Tensor]:
    names = [each.name for each in session.get_inputs()]

    def run(*inputs: Tensor) -> Tensor:
        given = {name: clip.numpy() for name, clip in zip(names, inputs, strict=True)}
        return torch.from_numpy(session.run(None, given)[0])

    return run


def _on_cuda(session: Any, work: Work) -> Callable[..., Tensor]:
    (output,) = session.get_outputs()
    logits = torch.empty(output.shape, dtype=work.inputs[0].dtype, device=work.device)
    names = [each.name for each in session.get_inputs()]

    def run(*inputs: Tensor) -> Tensor:
        binding = session.io_binding()
        clips = [clip.contiguous() for clip in inputs]  # copies must live until the session has read them
        for name, clip in zip(names, clips, strict=True):
            binding.bind_input(name, *_buffer_of(clip))
        binding.bind_output(output.name, *_buffer_of(logits))
        torch.cuda.current_stream(work.device).synchronize()  # the session runs on a stream of its own
        session.run_with_iobinding(binding)
        return logits

    return run


def _buffer_of(tensor: Tensor) -> tuple[str, int, Any, tuple[int, ...], int]:
    """What a session binds: device, its number, numpy type, shape and address."""
    dtype = torch.empty(0, dtype=tensor.dtype).numpy().dtype
    return "cuda", tensor.device.index or 0, dtype, tuple(tensor.shape), tensor.data_ptr()
