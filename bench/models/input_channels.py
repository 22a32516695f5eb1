"""Lets a model that is written for RGB read clips of another number of channels, as timm's `in_chans` does."""

from dataclasses import replace

from torch import nn
from torch.nn.modules.conv import _ConvNd

from bench.core.errors import InputError
from bench.models.base import inputs_of, modality_of

RGB = 3


def set_input_channels(model: nn.Module, channels: int, *, name: str) -> None:
    """Let every input of `model` have `channels`: the convolutions that read RGB get weights for so many.

    Their weights become the mean over the three colours, times 3 / `channels`, so that the same value in all channels
    gives the same output: the cross-modality initialisation of Wang et al., 2016, arXiv:1608.00859, and its scale.
    Raises InputError for a model that has an input of another kind, such as flow, or that was given trained weights.
    """
    stems = [module for module in model.modules() if isinstance(module, _ConvNd) and module.in_channels == RGB]
    inputs = inputs_of(model)
    if any(spec.channels != RGB for spec in inputs) or len(stems) != len(inputs):
        raise InputError(f"{name} does not read RGB alone, so in_channels (in_chans) cannot be chosen")
    if "weights_report" in model.__dict__:
        raise InputError(f"the weights of {name} read {RGB} channels; leave out in_channels (in_chans) or the tag")
    for stem in stems:
        mean = stem.weight.detach().mean(1, keepdim=True) * (RGB / channels)
        stem.in_channels = channels
        stem.weight = nn.Parameter(mean.expand(-1, channels, *mean.shape[2:]).clone())
    modality = modality_of(channels)
    model.__dict__["inputs"] = tuple(replace(spec, channels=channels, modality=modality) for spec in inputs)
