"""Which layer of a network is its classifier."""

from torch import nn

WEIGHTED = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


def head_name_of(model: nn.Module) -> str:
    """Name of the layer whose width is the number of classes: what the network says, else its last linear layer
    or convolution; empty where it has none.
    """
    layers = {name: module for name, module in model.named_modules() if name}
    said = getattr(model, "head_name", None)
    if isinstance(said, str) and said in layers:
        return said
    return next((name for name in reversed(layers) if isinstance(layers[name], WEIGHTED)), "")


def is_in(key: str, module_name: str) -> bool:
    """Whether the weight `key` belongs to the module `module_name`."""
    return bool(module_name) and key.startswith(f"{module_name}.")
