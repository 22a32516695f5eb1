"""3D ResNeXt: bottlenecks whose 3x3x3 convolution runs in groups.

Hara et al., 2018, arXiv:1711.09577, after Xie et al., 2017, arXiv:1611.05431; names of weights as in
3D-ResNets-PyTorch (MIT).
"""

from functools import partial
from typing import Any

from bench.core.registry import accepts_options_of, register_model
from bench.models.blocks import chosen, require_positive
from bench.models.resnet3d import BOTTLENECK_DEPTHS, Bottleneck, ResNet3d, Stage

STEM_WIDTH = 128
OUT_WIDTHS = (256, 512, 1024, 2048)
GROUP_WIDTHS = (4, 8, 16, 32)


@register_model(
    "resnext3d",
    clip="16x1x112",
    paper="Hara et al., 2018, arXiv:1711.09577",
    variants={f"resnext3d_{depth}": {"depth": depth} for depth in BOTTLENECK_DEPTHS},
)
@accepts_options_of(ResNet3d)
def resnext3d(num_classes: int = 700, *, depth: int = 50, cardinality: int = 32, **options: Any) -> ResNet3d:
    """3D ResNeXt of 3D-ResNets-PyTorch, with `cardinality` groups."""
    require_positive(cardinality=cardinality)
    blocks = chosen(BOTTLENECK_DEPTHS, depth, name="depth of resnext3d")
    stages = tuple(
        Stage(blocks=count, width=cardinality * group_width, out_width=out_width)
        for count, group_width, out_width in zip(blocks, GROUP_WIDTHS, OUT_WIDTHS, strict=True)
    )
    return ResNet3d(
        partial(Bottleneck, groups=cardinality),
        stages,
        stem_width=STEM_WIDTH,
        num_classes=num_classes,
        **options,
    )
