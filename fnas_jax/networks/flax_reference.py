"""Ordinary Flax networks of single architectures: to train winners, to export, to compare with."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import numpy as np

from fnas_jax.networks import mobile_spaces
from fnas_jax.networks.cost import one_cost
from fnas_jax.networks.flax_cell import CellNetwork
from fnas_jax.networks.flax_mobile import MobileNetwork
from fnas_jax.spaces import base, cell, macro, mnas
from fnas_jax.spaces.widen import widen

_STEP = 0.05  # of the width of reference networks
_WIDEST = 64.0


def build(
    space: base.Space, arch: Any, classes: int, width: float = 1.0, fast: bool = True
) -> nn.Module:
    """The network of `arch` [T], called as `module.apply(variables, images, train=bool)`.

    Images are [B, H, W, channels], the result is logits [B, classes]; collections are "params"
    and "batch_stats" (mutable in training). `width` multiplies all channel numbers. `fast` False
    uses `nn.Conv` for convolutions, True those of `layers.convolutions`: the same function of
    the same parameters, many times faster on CPUs. Raises ValueError for a space without networks.
    """
    space = widen(space, width)
    spec = space.spec
    if type(spec) in mobile_spaces.SPACES:
        return MobileNetwork(spec, mobile_spaces.layers_of(spec, arch), classes, fast)
    if isinstance(spec, cell.CellSpec):
        names = tuple(cell.OPS[int(op)] for op in np.asarray(arch))
        return CellNetwork(spec, names, classes, fast)
    raise ValueError(f"the space {space.name!r} has no networks")


def reference_arch(space: base.Space) -> np.ndarray:
    """[T] int32: the space's own standard: MobileNetV2, all widest layers, or all 3x3 convolutions.

    Raises ValueError for a space without networks.
    """
    if isinstance(space.spec, mnas.MnasSpec):
        return mnas.reference(space.spec)
    if isinstance(space.spec, macro.MacroSpec):
        return np.full(macro.LAYERS, macro.CHOICES.index("mbconv_e6_k5"), np.int32)
    if isinstance(space.spec, cell.CellSpec):
        return np.full(len(cell.EDGES), cell.OPS.index("nor_conv_3x3"), np.int32)
    raise ValueError(f"the space {space.name!r} has no networks")


def reference(
    space: base.Space, classes: int, at_least_mflops: float, image_shape: tuple[int, int, int]
) -> tuple[float, float, float]:
    """The narrowest reference network of at least this cost: (width, mflops, params_m).

    Widths are 1.0, 1.05, 1.1, ..; `image_shape` is (height, width, channels). Raises ValueError
    where no width up to 64 is enough.
    """
    arch = reference_arch(space)
    for step in range(round((_WIDEST - 1.0) / _STEP) + 1):
        width = round(1.0 + step * _STEP, 2)
        params, macs = one_cost(widen(space, width), arch, image_shape, classes)
        if macs >= at_least_mflops * 1e6:
            return width, macs / 1e6, params / 1e6
    raise ValueError(
        f"no reference network up to {_WIDEST:g} times the width has {at_least_mflops:g} MFLOPs"
    )
