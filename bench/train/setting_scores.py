"""The scores of a model under any setting of its evaluation, kept in files so that a killed diagnosis goes on."""

import hashlib
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from bench.core.errors import BenchError, VideoError
from bench.data.clip_batches import Normalisation
from bench.data.collection import VideoSet
from bench.data.shared_views import Views, ViewSetting, shared_views
from bench.models.base import inputs_of
from bench.train.candidates import Setting
from bench.train.checkpointing import read_arrays, written_whole
from bench.train.evaluating import (
    SAVE_EVERY_S,
    batch_outputs,
    in_evaluation_mode,
    ordered,
    over_views,
    state_hash,
    view_scores,
)
from bench.train.preprocessing import normalisation
from bench.train.scoring import class_columns

Outputs = NDArray[np.float32]  # (V, classes) of the views of one video
OnChunk = Callable[[int, int], bool]  # (pairs of setting and video, clips) that are done; returns whether to go on
# A model may raise any of these for a clip or a setting that it does not support; the candidate is then not possible.
UNFIT = (BenchError, RuntimeError, ValueError, TypeError, IndexError, AssertionError, NotImplementedError)


def go_on(_pairs: int, _clips: int) -> bool:
    """Never end early."""
    return True


@dataclass
class Scorer:
    """Outputs of a model on prefixes of a video set, computed once for all settings that share a forward pass.

    Each video is decoded once for all settings that are asked for together, and settings in which a view has the same
    values share its forward pass. With a `folder` the outputs are stored there, so that a killed diagnosis repeats at
    most half a minute.
    """

    model: nn.Module
    videos: VideoSet
    device: str
    batch: int = 16
    workers: int = 0
    folder: Path | None = None
    forwards: int = 0
    impossible: dict[str, Exception] = field(default_factory=dict)
    _outputs: dict[str, dict[int, Outputs]] = field(default_factory=dict)
    _unread: dict[str, set[int]] = field(default_factory=lambda: defaultdict(set))
    _of_content: dict[bytes, NDArray[np.float32]] = field(default_factory=dict)
    _unsaved: set[str] = field(default_factory=set)
    _saved_at: float = field(default_factory=time.monotonic)
    _identity: str = ""

    def __post_init__(self) -> None:
        ids = " ".join(video.id for video in self.videos.videos)
        self._identity = hashlib.sha256(f"{state_hash(self.model)} {self.videos.hash} {ids}".encode()).hexdigest()

    def scores(self, setting: Setting, first: int) -> NDArray[np.float32]:
        """`(first, classes)` scores of the first videos; NaN for one that cannot be read.

        Raises the error of a setting that is not possible.
        """
        self.extend([setting], first)
        key = setting.forward_key
        if key in self.impossible:
            raise self.impossible[key]
        known = self._known(key)
        width = next(iter(known.values())).shape[1] if known else len(self.videos.classes)
        scores = np.full((first, width), np.nan, dtype=np.float32)
        for place in range(first):
            if place in known:
                scores[place] = self._scored(known[place], setting)
        return scores

    def extend(self, settings: Sequence[Setting], first: int, *, on_chunk: OnChunk = go_on) -> bool:
        """Compute the missing outputs of the first videos. Returns False if `on_chunk` ended the work early.

        A setting that the model or a video does not allow is noted in `impossible` and passed over.
        """
        by_key = {setting.forward_key: setting for setting in settings}
        places_of: dict[tuple[str, ...], list[int]] = defaultdict(list)
        for place in range(first):
            missing = (key for key in by_key if place not in self._known(key) and place not in self._unread[key])
            places_of[tuple(key for key in missing if key not in self.impossible)].append(place)
        places_of.pop((), None)
        goes_on = True
        for keys, places in places_of.items():
            for found in self._computed([by_key[key] for key in keys], places):
                before = self.forwards
                self._add(found)
                goes_on = on_chunk(sum(map(len, found.values())), self.forwards - before)
                if time.monotonic() - self._saved_at >= SAVE_EVERY_S:
                    self._save()
                if not goes_on:
                    break
            if not goes_on:
                break
        self._save()
        return goes_on

    def _add(self, found: Mapping[str, Mapping[int, Outputs | VideoError]]) -> None:
        for key, of_videos in found.items():
            self._unsaved.add(key)
            for place, outputs in of_videos.items():
                if isinstance(outputs, VideoError):
                    self._unread[key].add(place)
                else:
                    self._known(key)[place] = outputs

    def _scored(self, outputs_VC: Outputs, setting: Setting) -> NDArray[np.float32]:
        """The scores of one video from the outputs of its views."""
        averaging, classes = setting.protocol.averaging or "softmax", setting.protocol.classes
        columns = None if classes is None else class_columns(classes, self.videos.classes)
        outputs = ordered(torch.from_numpy(outputs_VC), columns)
        if setting.relabelling is not None:
            outputs = ordered(outputs, np.argsort(setting.relabelling).tolist())
        by_view = view_scores(outputs, averaging=averaging).numpy()
        scores: NDArray[np.float32] = over_views(by_view[None], averaging=averaging)[0]
        return scores

    def _computed(
        self, settings: Sequence[Setting], places: Sequence[int]
    ) -> Iterator[dict[str, dict[int, Outputs | VideoError]]]:
        """Yield, chunk by chunk of the videos, what each setting gives for each video of the chunk."""
        view_settings: dict[ViewSetting, list[Setting]] = defaultdict(list)
        for setting in settings:
            view_settings[setting.view_setting(self.videos.backend)].append(setting)
        chunks = shared_views(
            self.videos,
            list(view_settings),
            positions=places,
            modalities=list(dict.fromkeys(each.modality for each in inputs_of(self.model))),
            most=self.batch,
            workers=self.workers,
        )
        for chunk in chunks:
            found: dict[str, dict[int, Outputs | VideoError]] = {}
            for number, alike in enumerate(view_settings.values()):
                views = {video.position: video.of_settings[number] for video in chunk}
                for setting in alike:
                    if setting.forward_key not in self.impossible:
                        found[setting.forward_key] = self._outputs_of(views, setting)
            yield found

    def _outputs_of(self, views: Mapping[int, Views | BenchError], setting: Setting) -> dict[int, Outputs | VideoError]:
        """The outputs of the views of each video under one setting; none if it turns out to be impossible."""
        unread = {place: of for place, of in views.items() if isinstance(of, VideoError)}
        try:
            for of_video in views.values():
                if isinstance(of_video, BenchError) and not isinstance(of_video, VideoError):
                    raise of_video
            readable = {place: of for place, of in views.items() if not isinstance(of, BenchError)}
            return {**unread, **self._forward(readable, normalisation(setting.protocol))}
        except UNFIT as error:
            self.impossible[setting.forward_key] = error
            return {}

    def _forward(self, views: Mapping[int, Views], normal: Normalisation) -> dict[int, Outputs]:
        """The outputs of views of bytes; one whose content was seen before under this normalisation is not repeated."""
        contents: dict[int, list[bytes]] = {}
        new: dict[tuple[tuple[int, ...], ...], dict[bytes, Views]] = defaultdict(dict)  # by the shapes of a view
        for place, of_video in views.items():
            count = len(next(iter(of_video.values())))
            by_view = [{modality: clips[view] for modality, clips in of_video.items()} for view in range(count)]
            contents[place] = [_content(view, normal) for view in by_view]
            for content, view in zip(contents[place], by_view, strict=True):
                if content not in self._of_content:
                    new[tuple(clip.shape for clip in view.values())][content] = view
        with in_evaluation_mode(self.model), torch.inference_mode():
            for of_shape in new.values():
                normalised = _normalised(list(of_shape.values()), normal)
                clips = [each.take(normalised[each.modality]) for each in inputs_of(self.model)]
                outputs = batch_outputs(self.model, clips, device=self.device, at_once=self.batch).cpu().numpy()
                self._of_content |= dict(zip(of_shape, outputs, strict=True))
                self.forwards += len(outputs)
        return {place: np.stack([self._of_content[each] for each in of]) for place, of in contents.items()}

    def _file(self, key: str) -> Path | None:
        name = hashlib.sha256(f"{self._identity} {key}".encode()).hexdigest()[:16]
        return None if self.folder is None else self.folder / f"{name}.npz"

    def _known(self, key: str) -> dict[int, Outputs]:
        if key not in self._outputs:
            file = self._file(key)
            stored = {} if file is None else read_arrays(file)
            self._outputs[key] = {}
            if stored:
                of_videos = np.split(stored["outputs"], np.cumsum(stored["views"])[:-1])
                self._outputs[key] = dict(zip(stored["places"].tolist(), of_videos, strict=True))
                self._unread[key] |= set(stored["unread"].tolist())
        return self._outputs[key]

    def _save(self) -> None:
        """Store every setting with outputs that are not stored yet."""
        for key in sorted(self._unsaved):
            file, known = self._file(key), self._known(key)
            if file is None or not known:
                continue
            file.parent.mkdir(parents=True, exist_ok=True)
            with written_whole(file) as part, part.open("wb") as opened:
                np.savez(
                    opened,
                    places=np.array(list(known)),
                    views=np.array([len(outputs) for outputs in known.values()]),
                    outputs=np.concatenate(list(known.values())),
                    unread=np.array(sorted(self._unread[key]), dtype=np.int64),
                )
        self._unsaved.clear()
        self._saved_at = time.monotonic()


def _content(view: Views, normal: Normalisation) -> bytes:
    """Return a digest of the pixels of one view and of their normalisation."""
    digest = hashlib.blake2b(repr(normal).encode(), digest_size=16)
    for modality, clip_CTHW in view.items():
        digest.update(f"{modality} {clip_CTHW.shape}".encode())
        digest.update(np.ascontiguousarray(clip_CTHW).data)
    return digest.digest()


def _normalised(views: Sequence[Views], normal: Normalisation) -> dict[str, torch.Tensor]:
    """Views of one shape as the inputs `(B, C, T, H, W)` of a model, by modality."""
    batch = {modality: torch.empty((len(views), *clip.shape)) for modality, clip in views[0].items()}
    for row, view in enumerate(views):
        for modality, clip_CTHW in view.items():
            normal.write(modality, torch.from_numpy(clip_CTHW), batch[modality][row])
    return batch
