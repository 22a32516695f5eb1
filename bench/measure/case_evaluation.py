"""Evaluates the model of an accuracy case: its head, its input protocol, and what the record says about both."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.core.errors import InputError
from bench.core.input_change import UNCHANGED
from bench.core.input_protocol import InputProtocol, read_class_names
from bench.core.schema import Clip, Json, Views, clip_from_text, views_from_text
from bench.measure.context import CaseContext

if TYPE_CHECKING:
    from torch import nn

    from bench.data.collection import VideoSet
    from bench.train.evaluating import Evaluation
    from bench.train.fitting import TrainingResult


def given_protocol_of(case: CaseContext, *, labels: str | None = None, **single_parts: Any) -> InputProtocol:
    """The parts of the input protocol that the user gives: `preprocess`, overridden by single options of the measure.

    Class names may be given as a list, or as a file with one name a line.
    """
    parts: dict[str, Any] = {**(case.point.preprocess or {})}
    parts |= {name: value for name, value in single_parts.items() if value is not None}
    if labels is not None:
        parts["classes"] = read_class_names(Path(labels).expanduser())
    return InputProtocol.of(parts, mark="given", where="preprocess")


@dataclass(frozen=True, kw_only=True)
class CaseEvaluation:
    """The evaluation of one case on the videos `test`; `given` holds what the user gives of the input protocol."""

    case: CaseContext
    test: "VideoSet"
    given: InputProtocol

    @property
    def views(self) -> Views:
        """Temporal and spatial views of every video; one each by default."""
        return views_from_text(self.case.point.views or "1x1")

    def build_model(self) -> "nn.Module":
        """The model of the case, with a head for the data set's classes or the head of its checkpoint.

        The head of the checkpoint is kept if the names of its classes are known, because its outputs can then be
        matched with the classes of the data set. Raises InputError if the numbers of classes differ and no names are
        known, or if whole frames are wanted of a model that takes one size only.
        """
        from bench.train.evaluating import require_whole_frames

        model = self._build_with_head()
        if self.views[1] == "full":
            require_whole_frames(model, self.case.point.clip)
        return model

    def _build_with_head(self) -> "nn.Module":
        from bench.train.preprocessing import checkpoint_protocol, with_matching_classes

        case, needed = self.case, len(self.test.classes)
        if case.point.recipe is not None or case.weights is None or case.point.args.get("num_classes") is not None:
            return case.build_model(num_classes=needed)
        model = case.build_model()
        report = model.__dict__["weights_report"]
        classes = with_matching_classes(self.given.over(checkpoint_protocol(model)), self.test).classes
        if classes is None and report.file_classes not in (None, needed):
            raise InputError(
                f"{report.path} has {report.file_classes} classes and {self.test.name} has {needed}, and the names of "
                "its outputs are unknown; give them: --labels FILE (in a suite `labels: FILE`), one name a line"
            )
        return model if classes is not None or report.file_classes == needed else case.build_model(num_classes=needed)

    def input_protocol(self, model: "nn.Module", trained: "TrainingResult | None") -> InputProtocol:
        """The protocol of the training, or that of the checkpoint if nothing was trained, below the given parts."""
        from bench.train.preprocessing import with_matching_classes

        if trained is not None:
            return self.given.over(trained.protocol)
        protocol = self.protocol_of_checkpoint(model)
        known = with_matching_classes(protocol, self.test)
        if known.classes is None and protocol.classes is not None:
            self.case.warn(
                f"{protocol.sources['classes'].origin} names {len(protocol.classes)} classes, none of which "
                f"{self.test.name} has; the outputs are taken in the order of the data set's classes",
                "give the names of the outputs: --labels FILE (in a suite `labels: FILE`), one name a line",
            )
        return known

    def protocol_of_checkpoint(self, model: "nn.Module") -> InputProtocol:
        """The input protocol of weights that were not trained here; warns if their clips were different."""
        from bench.models.factory import find_model
        from bench.train.preprocessing import checkpoint_protocol, evaluation_protocol

        clip: Clip = self.case.point.clip
        as_trained = checkpoint_protocol(model).clip_over(clip)
        if as_trained != clip and not {"clip", "crop"} & set(self.given.parts):
            self.case.warn(
                f"evaluated at {clip}, but the weights were trained at {as_trained}",
                f"give the clip as trained: --clip {as_trained} (in a suite `clip: {as_trained}`)",
            )
        default_clip = clip_from_text(find_model(self.case.point.model).clip)
        return evaluation_protocol(model, self.given, clip=clip, default_clip=default_clip)

    def record(
        self,
        model: "nn.Module",
        evaluations: "Mapping[str, Evaluation]",
        *,
        protocol: InputProtocol,
        leaks: Mapping[str, Json],
    ) -> None:
        """Add the protocol, with what is shared with the training set, to the record; write every video's scores.

        `evaluations` has one for each change of the input, the unchanged one among them.
        """
        from bench.train.accuracy_protocol import describe_evaluation
        from bench.train.predictions import FILE, write_predictions

        case, evaluation = self.case, evaluations[UNCHANGED]
        described = describe_evaluation(
            model, self.test, evaluation, clip=case.point.clip, views=self.views, protocol=protocol
        )
        described |= leaks
        if len(evaluations) > 1:
            described["changes"] = list(evaluations)
        case.note("protocol", described)
        case.note("input_protocol", protocol.as_detail())
        file = write_predictions(
            case.artifacts / FILE, evaluations, self.test, protocol=described, model=case.case.title
        )
        case.keep("predictions", file)
        self._warn_of_protocol(protocol, is_multi_label=evaluation.is_multi_label)
        self._warn_of_videos(evaluation, unread_are=str(described["unread_are"]))

    def _warn_of_protocol(self, protocol: InputProtocol, *, is_multi_label: bool) -> None:
        """Warn of assumed parts of the input protocol, of parts that are not applied, and of unknown classes."""
        from bench.train.scoring import class_columns

        case = self.case
        if is_multi_label and protocol.averaging == "softmax" and case.point.recipe is None:
            case.warn(
                "the outputs were taken as probabilities of exclusive classes, but the videos have several labels",
                "give `averaging: sigmoid` if the model was trained with a binary loss for each class",
            )
        if case.point.recipe is None:
            warn_of_assumed(case, protocol)
        if protocol.classes is not None:
            classes = self.test.classes
            unknown = class_columns(protocol.classes, classes).count(None)
            if unknown:
                case.warn(f"the model does not know {unknown} of {len(classes)} classes; their videos count as wrong")

    def _warn_of_videos(self, evaluation: "Evaluation", *, unread_are: str) -> None:
        """Warn of videos that could not be read, and of labels that seem to be in another order."""
        from bench.train.scoring import RELABELLING_REMEDY, find_relabelling

        if evaluation.unread:
            self.case.warn(
                f"{len(evaluation.unread)} of {evaluation.counted} videos could not be read and are {unread_are}",
                "see `vbench data verify`; the record's protocol names the first of them",
            )
        if not evaluation.is_multi_label:
            found = find_relabelling(evaluation.scores, evaluation.labels)
            if found is not None:
                self.case.warn(str(found), RELABELLING_REMEDY)


def warn_of_assumed(case: CaseContext, protocol: InputProtocol) -> None:
    """Warn of the parts of the input protocol that are known neither from the user nor from the weights."""
    if not protocol.assumed:
        return
    zoos = {part: protocol.sources[part].origin for part in protocol.assumed}
    of_model = [part for part, zoo in zoos.items() if not zoo]
    by_names = [f"{', '.join(p for p in zoos if zoos[p] == zoo)} of {zoo}" for zoo in {*zoos.values()} - {""}]
    origins = [f"taken from the model: {', '.join(of_model)}"] if of_model else []
    origins += [f"guessed by the names of the weights: {text}" for text in by_names]
    case.warn(
        f"the input protocol of these weights is unknown; {'; '.join(origins)}",
        "give them: --preprocess channels=…,mean=…,std=…,resize=… (in a suite `preprocess: {…}`)",
    )
