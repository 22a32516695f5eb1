"""Tells from a model's name whether it is registered, of another package, or the user's own code."""

PACKAGES = ("torchvision", "timm", "hf")  # what stands before the colon of a model of another package


def source_of(name: str) -> str:
    """Return the package of `timm:resnet18`; empty for a registered name and for the user's own code."""
    source, colon, _ = name.partition(":")
    return source if colon and source in PACKAGES else ""


def is_registered_name(name: str) -> bool:
    """Return whether `name` can only be that of a registered model: it contains no package, module or file."""
    return ":" not in name and not is_file_name(name)


def is_file_name(name: str) -> bool:
    """Return whether `name` is `file.py` or `file.py:factory`."""
    return name.partition(":")[0].endswith(".py")


def runs_user_code(name: str) -> bool:
    """Return whether building `name` runs a module or file of the user."""
    return not is_registered_name(name) and not source_of(name)
