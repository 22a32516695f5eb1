"""vbench: what a video model costs and what accuracy it reaches, measured with its uncertainty.

The public API. Names are imported when they are first used, so that `import bench` takes no time.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from bench.core.moved import install as _install_moved_modules

__version__ = "0.1.0"

if TYPE_CHECKING:
    from bench.comparison.comparing import compare
    from bench.core.errors import BenchError, InputError
    from bench.core.metric_spec import MetricSpec
    from bench.core.registry import (
        register_change,
        register_dataset,
        register_measure,
        register_model,
        register_section,
    )
    from bench.core.schema import Case, Clip, Environment, Metric, Point, Record
    from bench.data.collection import Video, VideoSet, open_dataset
    from bench.data.datasets.folder import class_folders
    from bench.data.decode import read_frames
    from bench.data.geometry import Covering
    from bench.data.probing import probe
    from bench.measure.axis_sets import ACCURACY_AXES, COUNT_AXES, TIMING_AXES, VIDEO_AXES
    from bench.measure.context import CaseContext
    from bench.measure.counting.formulas import counts_macs_of
    from bench.measure.counting.free_operators import costs_nothing
    from bench.measure.counting.model_count import count
    from bench.models.base import InputSpec, VideoModel
    from bench.models.factory import create_model, is_model, list_models, list_pretrained, model_entrypoint
    from bench.profiling import profile
    from bench.reporting.results import Results
    from bench.reporting.site import report
    from bench.runner.environment import describe_environment
    from bench.runner.running import run
    from bench.store import load_records

# Public name → the module that defines it.
_HOME = {
    "ACCURACY_AXES": "bench.measure.axis_sets",
    "BenchError": "bench.core.errors",
    "COUNT_AXES": "bench.measure.axis_sets",
    "Case": "bench.core.schema",
    "CaseContext": "bench.measure.context",
    "Clip": "bench.core.schema",
    "Covering": "bench.data.geometry",
    "Environment": "bench.core.schema",
    "InputError": "bench.core.errors",
    "InputSpec": "bench.models.base",
    "Metric": "bench.core.schema",
    "MetricSpec": "bench.core.metric_spec",
    "Point": "bench.core.schema",
    "Record": "bench.core.schema",
    "Results": "bench.reporting.results",
    "TIMING_AXES": "bench.measure.axis_sets",
    "VIDEO_AXES": "bench.measure.axis_sets",
    "Video": "bench.data.collection",
    "VideoModel": "bench.models.base",
    "VideoSet": "bench.data.collection",
    "class_folders": "bench.data.datasets.folder",
    "compare": "bench.comparison.comparing",
    "costs_nothing": "bench.measure.counting.free_operators",
    "count": "bench.measure.counting.model_count",
    "counts_macs_of": "bench.measure.counting.formulas",
    "create_model": "bench.models.factory",
    "describe_environment": "bench.runner.environment",
    "is_model": "bench.models.factory",
    "list_models": "bench.models.factory",
    "list_pretrained": "bench.models.factory",
    "load_records": "bench.store",
    "model_entrypoint": "bench.models.factory",
    "open_dataset": "bench.data.collection",
    "probe": "bench.data.probing",
    "profile": "bench.profiling",
    "read_frames": "bench.data.decode",
    "register_change": "bench.core.registry",
    "register_dataset": "bench.core.registry",
    "register_measure": "bench.core.registry",
    "register_model": "bench.core.registry",
    "register_section": "bench.core.registry",
    "report": "bench.reporting.site",
    "run": "bench.runner.running",
}

_install_moved_modules()

__all__ = [
    "ACCURACY_AXES",
    "COUNT_AXES",
    "TIMING_AXES",
    "VIDEO_AXES",
    "BenchError",
    "Case",
    "CaseContext",
    "Clip",
    "Covering",
    "Environment",
    "InputError",
    "InputSpec",
    "Metric",
    "MetricSpec",
    "Point",
    "Record",
    "Results",
    "Video",
    "VideoModel",
    "VideoSet",
    "class_folders",
    "compare",
    "costs_nothing",
    "count",
    "counts_macs_of",
    "create_model",
    "describe_environment",
    "is_model",
    "list_models",
    "list_pretrained",
    "load_records",
    "model_entrypoint",
    "open_dataset",
    "probe",
    "profile",
    "read_frames",
    "register_change",
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
