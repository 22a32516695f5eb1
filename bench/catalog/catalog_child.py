"""The child process that inspects models: it imports torch, builds on the meta device, and answers in JSON."""

import inspect
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bench.catalog.catalog import PACKAGED
from bench.catalog.source_hashes import former_model_source, model_source
from bench.catalog.user_code import ImportTracker, is_user_module
from bench.core.errors import BenchError, InputError
from bench.core.import_path import add_working_folder
from bench.core.input_protocol import InputProtocol
from bench.core.model_name import is_registered_name
from bench.core.process import ReplyPipe, read_requests
from bench.core.registry import MODELS, ModelEntry, import_plugins
from bench.core.schema import Case, Clip, Json, ModelCheck, ModelInfo, Point
from bench.measure.context import CaseContext
from bench.measure.counting.dispatch import on_meta
from bench.measure.counting.model_count import count
from bench.measure.counting.run_conditions import plain_kernels, quietly
from bench.models.factory import find_model, has_own_layout
from bench.models.input_channels import RGB
from bench.models.sources import models_with_weights
from bench.models.weights.checkpoint import read_checkpoint
from bench.models.weights.checkpoint_protocol import protocol_of_checkpoint


def main() -> None:
    """Answer every request with one message, in order; the first line of the parent has the plug-ins to import."""
    add_working_folder()
    lines = read_requests()
    reply = ReplyPipe()
    tracker = ImportTracker()  # before any module of the user is imported
    import_plugins(next(lines))
    for requests in lines:
        for item in requests:
            reply.send(**_answer(item, tracker))


def _answer(item: dict[str, Any], tracker: ImportTracker) -> dict[str, Any]:
    if "catalog" in item:
        return {"models": [_facts(entry).model_dump(mode="json") for entry in MODELS]}
    if "pretrained" in item:
        return {"names": sorted(models_with_weights(item["pretrained"]))}
    if "describe" in item:
        try:
            return _facts(find_model(item["describe"])).model_dump(mode="json")
        except InputError as error:
            return {"problem": str(error)}
    if "weights" in item:
        return _clip_of_weights(item["weights"], item["entry"]).model_dump(mode="json")
    point = Point.model_validate(item["check"])
    defining = _defining_module(point.model)
    with tracker.build(defining) as build:
        found = _check(point, counted=item["counted"])
    is_local = is_user_module(defining) or not (is_registered_name(point.model) or point.model.startswith(PACKAGED))
    modules = build.modules if is_local else {}
    return found.model_copy(update={"is_local": is_local, "modules": modules}).model_dump(mode="json")


def _clip_of_weights(file: str, entry: str | None) -> InputProtocol:
    """Return the parts of a file's input protocol that say which clips it was trained on."""
    try:
        found = protocol_of_checkpoint(read_checkpoint(file, entry=entry))
    except BenchError:
        return InputProtocol()
    parts = {name: value for name, value in found.parts.items() if name in ("clip", "crop")}
    return InputProtocol(**parts, sources={name: found.sources[name] for name in parts})


def _defining_module(model: str) -> str:
    """Return the module that registers a model; empty for a model of another source."""
    return str(MODELS.get(model).function.__module__) if model in MODELS else ""


def _facts(entry: ModelEntry) -> ModelInfo:
    file = inspect.getsourcefile(entry.function)
    arguments = {name: _plain(default) for name, default in entry.arguments.items()}
    if arguments and has_own_layout(entry):  # without known arguments, a factory may take any
        arguments.setdefault("layout", _plain(getattr(entry.function, "layout", "BCTHW")))
    if not has_own_layout(entry):
        arguments.setdefault("in_channels", RGB)
    summary = (inspect.getdoc(entry.function) or "").split("\n")[0]
    return ModelInfo(
        name=entry.name,
        family=entry.family,
        clip=Clip.model_validate(entry.clip),
        arguments=arguments,
        summary=summary,
        paper=entry.paper,
        task=entry.task,
        source=model_source(file),
        former_source=former_model_source(file),
    )


def _plain(default: Any) -> Json:
    if default is inspect.Parameter.empty:
        return None
    return default if isinstance(default, bool | int | float | str | list | None) else str(default)


def _check(point: Point, *, counted: bool) -> ModelCheck:
    """Build on the meta device and count one clip. An error that the user can fix is a problem, any other a note.

    Unless `counted`, a model that runs is not counted; one that does not is, since counting finds out why.
    """
    case = CaseContext(Case(suite="check", point=point, measures={}), artifacts=Path())
    try:
        model = case.build_model("meta")
        if not counted and _runs(model, case.inputs(model, device="meta")):
            return ModelCheck()
        model = model if counted else case.build_model("meta")
        result = count(model, case.inputs(model, device="meta"))
    except BenchError as error:
        return ModelCheck(problem=str(error))
    except Exception as error:  # code of the user may raise anything; the case itself will record it
        return ModelCheck(note=f"{type(error).__name__}: {error}")
    return ModelCheck(params=result.params, macs=result.macs)


def _runs(model: nn.Module, inputs: tuple[Tensor, ...]) -> bool:
    """Whether one forward pass on the meta device succeeds; `model` may be changed by it."""
    try:
        with quietly(), plain_kernels(), torch.inference_mode(), on_meta():
            model(*inputs)
    except Exception:  # any error of the model; counting it afterwards reports the reason
        return False
    return True


if __name__ == "__main__":
    main()
