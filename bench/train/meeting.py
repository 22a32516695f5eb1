"""Where the processes that share one training find each other: a store of keys, held by one of them or a launcher."""

import os
from datetime import timedelta

import torch.distributed as dist
from torch.distributed.distributed_c10d import PrefixStore, Store

CALL = "VBENCH_CALL"  # set where a launcher of vbench holds the store: which of its calls the process answers


def meeting(what: str, *, timeout_s: float, holds: bool = False) -> Store:
    """A new connection to the store at MASTER_ADDR and MASTER_PORT, whose keys are those of `what` alone.

    Starts of a launcher, and calls of one start, do not see each other's keys. `holds` makes this process keep the
    store, unless its launcher does so already.
    """
    is_held = CALL in os.environ or os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    store = dist.TCPStore(  # type: ignore[attr-defined]  # not in __all__
        os.environ["MASTER_ADDR"],
        int(os.environ["MASTER_PORT"]),
        is_master=holds and not is_held,
        wait_for_workers=False,
        timeout=timedelta(seconds=timeout_s),
    )
    start, call = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"), os.environ.get(CALL, "-")
    return PrefixStore(f"vbench/{start}/{call}/{what}", store)
