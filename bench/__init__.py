"""vbench: what a video model costs and what it gives, measured so that it can be believed.

The public API is imported lazily, so `import bench` costs nothing until a name is used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from bench.core.moved import install as _install_moved_modules

__version__ = "0.1.0"

if TYPE_CHECKING:
    from bench.comparison.comparing import compare
    from bench.core.registry import register_dataset, register_measure, register_model, register_section
    from bench.data.decode import read_frames
    from bench.data.probing import probe
    from bench.measure.counting.model_count import count
    from bench.models.factory import create_model, is_model, list_models
    from bench.profiling import profile
    from bench.reporting.site import report
    from bench.runner.running import run
    from bench.store import load_records

_HOME = {
    "compare": "bench.comparison.comparing",
    "count": "bench.measure.counting.model_count",
    "create_model": "bench.models.factory",
    "is_model": "bench.models.factory",
    "list_models": "bench.models.factory",
    "load_records": "bench.store",
    "probe": "bench.data.probing",
    "profile": "bench.profiling",
    "read_frames": "bench.data.decode",
    "register_dataset": "bench.core.registry",
    "register_measure": "bench.core.registry",
    "register_model": "bench.core.registry",
    "register_section": "bench.core.registry",
    "report": "bench.reporting.site",
    "run": "bench.runner.running",
}

_install_moved_modules()

__all__ = [
    "compare",
    "count",
    "create_model",
    "is_model",
    "list_models",
    "load_records",
    "probe",
    "profile",
    "read_frames",
    "register_dataset",
    "register_measure",
    "register_model",
    "register_section",
    "report",
    "run",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'bench' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
