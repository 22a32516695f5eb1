"""The axes of a suite that metrics depend on. Measures with the same point share a case."""

COUNT_AXES = frozenset({"model", "args", "clip"})
TIMING_AXES = COUNT_AXES | {"precision", "memory_format", "compile", "device", "threads", "batch"}
ACCURACY_AXES = COUNT_AXES | {"weights", "entry", "dataset", "split", "recipe", "seed", "views", "preprocess"}
FROZEN_AXES = ACCURACY_AXES - {"recipe", "seed"}  # its heads have seeds of their own
VIDEO_AXES = frozenset({"dataset", "split"})
