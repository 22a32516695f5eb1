"""Which axes of a suite a measure's figures depend on. Measures that share a point share a case."""

COUNT_AXES = frozenset({"model", "args", "clip"})
TIMING_AXES = COUNT_AXES | {"precision", "memory_format", "compile", "device", "threads", "batch"}
ACCURACY_AXES = COUNT_AXES | {"weights", "entry", "dataset", "split", "recipe", "seed", "views", "preprocess"}
VIDEO_AXES = frozenset({"dataset", "split"})
