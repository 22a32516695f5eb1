"""Wide 3D ResNets: bottlenecks `k` times as wide inside, from the stem on.

Hara et al., 2018, arXiv:1711.09577, after Zagoruyko and Komodakis, 2016, arXiv:1605.07146; names of weights as in
3D-ResNets-PyTorch (MIT).
"""

from typing import Any

from bench.core.registry import accepts_options_of, register_model
from bench.models.blocks import chosen, require_positive
from bench.models.resnet3d import BOTTLENECK_DEPTHS, WIDTHS, Bottleneck, ResNet3d, stages_of

EXPANSION = 2


@register_model(
    "wide_resnet3d",
    clip="16x1x112",
    paper="Hara et al., 2018, arXiv:1711.09577",
    variants={f"wide_resnet3d_{depth}": {"depth": depth} for depth in BOTTLENECK_DEPTHS},
)
@accepts_options_of(ResNet3d)
def wide_resnet3d(num_classes: int = 700, *, depth: int = 50, k: int = 2, **options: Any) -> ResNet3d:
    """Wide 3D ResNet of 3D-ResNets-PyTorch, `k` times as wide."""
    require_positive(k=k)
    blocks = chosen(BOTTLENECK_DEPTHS, depth, name="depth of wide_resnet3d")
    widths = [k * width for width in WIDTHS]
    return ResNet3d(
        Bottleneck,
        stages_of(blocks, widths, expansion=EXPANSION),
        stem_width=widths[0],
        num_classes=num_classes,
        **options,
    )
