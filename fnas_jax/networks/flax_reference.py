"""Ordinary Flax networks of single architectures: to train winners, to export, to compare with."""

from __future__ import annotations

from typing import Any

import flax.linen as nn

from fnas_jax.networks import mobile_spaces
from fnas_jax.networks.dense import Outputs
from fnas_jax.networks.flax_cell import CellNetwork
from fnas_jax.networks.flax_mobile import MobileNetwork
from fnas_jax.spaces import base, cells
from fnas_jax.spaces.widen import widen


def build(
    space: base.Space, arch: Any, classes: Outputs, width: float = 1.0, fast: bool = True
) -> nn.Module:
    """The network of `arch` [T], called as `module.apply(variables, images, train=bool)`.

    Images are [B, H, W, channels], the result is logits, see `Outputs`; collections are "params"
    and "batch_stats" (mutable in training). `width` multiplies all channel numbers. `fast` False
    uses `nn.Conv` for convolutions, True those of `layers.convolutions`: the same function of
    the same parameters, many times faster on CPUs. Edges of a cell that change nothing
    are left out. Raises ValueError for a space without networks.
    """
    if space.spec is None:
        raise ValueError(f"the space {space.name!r} has no networks")
    return of_spec(widen(space, width).spec, arch, classes, fast)


def of_spec(spec: Any, arch: Any, classes: Outputs, fast: bool = True) -> nn.Module:
    """`build` for a `Space.spec`, which is all of a space that its networks depend on.

    Raises ValueError for what is no spec of networks.
    """
    if type(spec) in mobile_spaces.MODULES:
        return MobileNetwork(spec, mobile_spaces.layers_of(spec, arch), classes, fast)
    if isinstance(spec, cells.SPECS):
        return CellNetwork(spec, cells.running(spec, arch), classes, fast)
    raise ValueError(f"there are no networks of {type(spec).__name__}")
