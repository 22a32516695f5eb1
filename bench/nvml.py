"""NVML's view of a torch device."""

import sys
from functools import cache
from typing import Any


@cache
def handle_of(device: str) -> Any:
    """NVML's handle of torch device `cuda[:N]`; raises NVMLError where there is no driver or no such device.

    In a process with torch it is found by UUID, for CUDA_VISIBLE_DEVICES reorders the numbers.
    """
    import pynvml

    pynvml.nvmlInit()
    index = int(device.partition(":")[2] or 0)
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        return pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{torch.cuda.get_device_properties(index).uuid}")
    return pynvml.nvmlDeviceGetHandleByIndex(index)
