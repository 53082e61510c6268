"""The network that a winner is compared with: the space's own standard, at the winner's cost.

Its width is what is searched for. Channels are rounded, so that cost goes in steps: the multiple
that they are rounded to is halved where the steps of the coarser one miss the winner's cost.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from fnas_jax.layers import own
from fnas_jax.networks import cost as costs
from fnas_jax.networks import elastic, mobile_spaces
from fnas_jax.networks.base import Network
from fnas_jax.networks.dense import Outputs
from fnas_jax.spaces import cells
from fnas_jax.spaces.base import Space
from fnas_jax.spaces.widen import CHANNELS, widen
from fnas_jax.tasks.context import TrainContext

LOG = logging.getLogger(__name__)
CLOSE = 0.05  # of the winner's multiply-adds: as near as a reference of equal cost has to be
# The first that is close enough counts, because MobileNets have multiples of 8.
MULTIPLES = (CHANNELS, 4, 2, 1)
_ONE = 1000  # widths are multiples of 1/1000, which are finer than the steps of channels
_WIDEST = 64 * _ONE


class Reference(NamedTuple):
    """The standard of a space at some width."""

    width: float  # that all channels are multiplied by
    multiple: int  # that they are then rounded to
    mflops: float
    params_m: float


def standard(space: Space) -> np.ndarray:
    """[T] int32: the space's own standard: MobileNetV2, all widest layers, or all 3x3 convolutions.

    Raises ValueError for a space without networks.
    """
    if type(space.spec) in mobile_spaces.MODULES:
        return mobile_spaces.reference(space.spec)
    if isinstance(space.spec, cells.SPECS):
        return cells.everywhere(space.spec, "nor_conv_3x3")
    raise ValueError(f"the space {space.name!r} has no networks")


def nearest(
    space: Space, classes: Outputs, mflops: float, image_shape: tuple[int, int, int]
) -> Reference:
    """The standard whose multiply-adds are nearest to `mflops`, of any width from 1/1000 to 64.

    Channels are multiples of 8 where that is within `CLOSE`; else of 4, 2 or 1, whichever is within
    it first; else of the nearest. `image_shape` is (height, width, channels). Layers of the user's
    own may not take other channels, and keep multiples of 8. Raises as `standard` does.
    """
    arch, found = standard(space), []
    for multiple in MULTIPLES[:1] if _has_own_layers(space) else MULTIPLES:
        cost = functools.cache(
            functools.partial(_cost, space, arch, image_shape, classes, multiple)
        )
        step = _nearest_step(cost, mflops * 1e6)
        params, macs = cost(step)
        found.append(Reference(step / _ONE, multiple, macs / 1e6, params / 1e6))
        if is_close(found[-1].mflops, mflops):
            return found[-1]
    return min(found, key=lambda one: abs(one.mflops - mflops))


def is_close(mflops: float, to: float) -> bool:
    """Whether a reference of `mflops` is one of equal cost."""
    return abs(mflops - to) <= CLOSE * to


def facts(ctx: TrainContext, mflops: float) -> dict[str, Any]:
    """What the reference of a network of `mflops` is, JSON-ready; says so where none is close."""
    dataset = ctx.dataset
    found = nearest(ctx.space, dataset.outputs, mflops, dataset.image_shape)
    if not is_close(found.mflops, mflops):
        LOG.warning(
            "no reference network costs within %g%% of %.4g MFLOPs: the nearest, of width %g, has"
            " %.4g MFLOPs",
            *(100 * CLOSE, mflops, found.width, found.mflops),
        )
    return {"arch": standard(ctx.space).tolist(), **found._asdict()}


def network(ctx: TrainContext, width: float, multiple: int) -> Network:
    """The reference of a width."""
    shape, classes, arch = ctx.dataset.image_shape, ctx.dataset.outputs, standard(ctx.space)
    space = widen(ctx.space, width, multiple)
    return elastic.fixed_network(space, arch, shape, classes, backend=ctx.settings.backend)


def _has_own_layers(space: Space) -> bool:
    if type(space.spec) not in mobile_spaces.MODULES:
        return False
    stacks = mobile_spaces.slots(space.spec)
    return any(own.codes(slot) for stack in stacks for slot in stack)


def _cost(
    space: Space,
    arch: np.ndarray,
    image_shape: tuple[int, int, int],
    classes: Outputs,
    multiple: int,
    step: int,
) -> tuple[int, int]:
    """Parameters and multiply-adds of the standard of width `step` / 1000."""
    return costs.one_cost(widen(space, step / _ONE, multiple), arch, image_shape, classes)


def _nearest_step(cost: Callable[[int], tuple[int, int]], target: float) -> int:
    """The step in 1.._WIDEST whose cost, which rises, is nearest; of equal costs nearest to _ONE.

    So the standard itself has width 1, and networks that are the same have the same width.
    """

    def macs_of(step: int) -> int:
        return cost(step)[1]

    above = _first(lambda step: macs_of(step) >= target)
    # A space's own channels may be no multiples, and then its own cost is out of the order.
    near = min((_ONE, above, max(above - 1, 1)), key=lambda step: abs(macs_of(step) - target))
    macs = macs_of(near)
    if macs_of(_ONE) == macs:
        return _ONE
    if near < _ONE:  # the last of this cost
        return max(near, min(_first(lambda step: macs_of(step) > macs) - 1, _ONE))
    return max(_first(lambda step: macs_of(step) >= macs), _ONE)


def _first(is_so: Callable[[int], bool]) -> int:
    """The first step of which `is_so`, which is then so of all after it; the last one if none."""
    low, high = 1, _WIDEST
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if is_so(middle) else (middle + 1, high)
    return low
