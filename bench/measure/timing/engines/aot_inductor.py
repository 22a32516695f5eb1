"""AOTInductor: the network exported as one graph and compiled ahead into a shared library that needs no Python."""

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor

from bench.core.errors import InputError
from bench.measure.timing.engines.work import Work


def compile_ahead(work: Work) -> Callable[..., Tensor]:
    """The compiled library, loaded. InputError where there is no C++ compiler, which it needs on every device.

    It is for one thread, as all of torch is here: for several it would let each pass wait for the one before.
    """
    from torch._inductor.exc import InvalidCxxCompiler  # with its compiler, as long to import as torch

    with TemporaryDirectory(prefix="vbench-aotinductor-") as folder:
        package = Path(folder) / "network.pt2"
        try:
            with torch.no_grad(), work.in_precision():  # the compiler puts autocast's casts in, the export does not
                torch._inductor.aoti_compile_and_package(work.export(), package_path=str(package))
        except InvalidCxxCompiler as error:
            raise InputError("compile aotinductor needs a C++ compiler; install g++ or name one in CXX") from error
        run: Callable[..., Tensor] = torch._inductor.aoti_load_package(
            str(package),
            run_single_threaded=True,
            device_index=-1 if work.device.index is None else work.device.index,
        )
    return run
