"""What an image takes when a network is trained by the kernels for CPUs: computed, not timed.

By two numbers that a plan has measured on this machine (`planning.speed`): multiply-adds a second,
and what a number costs that layers write and read again.
"""

from __future__ import annotations

import math

import jax.numpy as jnp
import numpy as np

from fnas_jax.core.types import Array, UserError
from fnas_jax.networks import mobile_spaces, sizes
from fnas_jax.networks.cost import Cost
from fnas_jax.spaces.base import Space

PREFIX = "training:"
FORM = f"{PREFIX}RATE:MOVED"


def name_of(rate: float, moved: float) -> str:
    """The `latency.source` of these numbers, as `parse` reads it, to three digits."""
    return f"{PREFIX}{rate:.3g}:{moved:.3g}"


def parse(name: str, space: Space) -> tuple[float, float]:
    """(multiply-adds a second, multiply-adds that a moved number counts for) of a `FORM`.

    Raises UserError for another text, and for a `space` that the kernels do not train.
    """
    try:
        rate, moved = map(float, name.removeprefix(PREFIX).split(":"))
    except ValueError:
        rate = moved = math.nan
    if not (math.isfinite(rate) and math.isfinite(moved) and rate > 0 and moved >= 0):
        raise UserError(
            f"latency.source is {name!r}; {FORM} has the multiply-adds of a second, and how many of"
            " them a number takes that is moved, e.g. training:3e10:100"
        )
    if type(space.spec) not in mobile_spaces.MODULES:
        raise UserError(
            f"latency.source is {name!r}, and nobody knows what networks of the space"
            f" {space.name!r} move: it is for mnas, mobilenetv3 and macro"
        )
    return rate, moved


def milliseconds(
    costs: Cost,
    space: Space,
    image_shape: tuple[int, int, int],
    rate: float,
    moved: float,
    archs: Array | np.ndarray,
) -> np.ndarray:
    """[N] float32 of an image in a training step of networks `archs` [N, T], on one device.

    `costs` is the `networks.cost.cost` of these networks.
    """
    macs = np.asarray(costs(jnp.asarray(archs))[1], np.float64)
    kept = [sizes.numbers_kept(space, image_shape, arch) for arch in np.asarray(archs)]
    return ((macs + moved * np.array(kept)) / rate * 1e3).astype(np.float32)
