"""TensorRT: the model exported as one graph and built into an engine for this GPU by torch_tensorrt."""

from collections.abc import Callable

from torch import Tensor

from bench.core.errors import MissingPackageError
from bench.measure.timing.engines.work import Work


def build(work: Work) -> Callable[..., Tensor]:
    """The engine, in the dtypes of the model's weights; torch runs the operators that TensorRT does not have."""
    try:
        import torch_tensorrt
    except ImportError:
        raise MissingPackageError(
            "torch_tensorrt", needed_for="compile tensorrt", install="pip install torch-tensorrt"
        ) from None
    engine: Callable[..., Tensor] = torch_tensorrt.dynamo.compile(
        work.export(),
        list(work.inputs),
        device=work.device,
        use_explicit_typing=True,
        disable_tf32=work.precision != "tf32",
    )
    return engine
