"""AOTInductor: the model exported as one graph and compiled ahead of time into a shared library without Python."""

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor

from bench.core.errors import InputError
from bench.measure.timing.engines.work import Work


def compile_ahead(work: Work) -> Callable[..., Tensor]:
    """The compiled library, loaded. Raises InputError without a C++ compiler, which it needs on every device.

    It is loaded for a single thread, as torch is used here: for several threads each pass would wait for the last one.
    """
    from torch._inductor.exc import InvalidCxxCompiler  # late: imports the compiler, which takes as long as torch

    with TemporaryDirectory(prefix="vbench-aotinductor-") as folder:
        package = Path(folder) / "model.pt2"
        try:
            with torch.no_grad(), work.in_precision():  # the compiler adds the casts of autocast, the export does not
                torch._inductor.aoti_compile_and_package(work.export(), package_path=str(package))
        except InvalidCxxCompiler as error:
            raise InputError("compile aotinductor needs a C++ compiler; install g++ or name one in CXX") from error
        run: Callable[..., Tensor] = torch._inductor.aoti_load_package(
            str(package),
            run_single_threaded=True,
            device_index=-1 if work.device.index is None else work.device.index,
        )
    return run
