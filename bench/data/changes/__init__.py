"""Changes of the input in an evaluation, one file per family; a file placed here is found, listed and validated.

The function of a change takes, by its stage (`bench.core.registry.ChangeEntry`):

- `order`: `(frames, *, part, value, random)` and returns as many frame numbers. `frames` are those of one clip in the
  video, `part` is the `bench.data.frame_sampling.Part` that may be used.
- `pixels`: `(frames_THWC, *, value, random)` and returns uint8 frames of the same shape, RGB, already scaled.
- `reading`: `(reading, *, value)` and returns another `bench.data.clips.Reading`.
- `file`: `(source, target, *, value)` and writes the mp4 file `target` with as many frames as the video `source` has.

`random` is a `numpy.random.Generator` that depends on the video's id and the change, so every model sees the same draw.
"""
