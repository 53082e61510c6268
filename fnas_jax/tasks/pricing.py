"""What a reward makes of how fast networks train: a factor (work / mean work)^power (ours).

Work is computed, not timed: multiply-adds, and numbers that layers write and read again, each of
which counts as some of them. So equal settings give equal rewards. Plans choose the numbers
(`planning.price`), where a winner's training ends by the clock.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np

from fnas_jax.core.measure import Measure
from fnas_jax.core.types import Array, UserError
from fnas_jax.networks import mobile_spaces, sizes
from fnas_jax.networks.cost import Cost
from fnas_jax.spaces.base import Space
from fnas_jax.tasks.data import Dataset

Price = Callable[[Array | np.ndarray], np.ndarray]  # archs [N, T] -> factors [N] float32


def of(config: Any, space: Space, dataset: Dataset, measure: Measure, costs: Cost) -> Price | None:
    """The factors of `config.reward`, for networks of `space` on `dataset`; None: there are none.

    `costs` is the `networks.cost.cost` of these. Raises UserError without a mean, for a `measure`
    of unknown values, and for a space of which nobody knows what networks move.
    """
    reward = config.reward
    if not reward.training:
        return None
    if not reward.training_mean > 0:
        raise UserError(
            f"reward.training_mean is {reward.training_mean:g}; with reward.training"
            f" {reward.training:g} it must be above 0: the work of a usual network"
        )
    if measure.kind == "number":
        raise UserError(
            f"reward.training is {reward.training:g}, and the metric is {measure.name!r}: only an"
            " accuracy, or another metric whose scale is known, can be weighed with it"
        )
    if type(space.spec) not in mobile_spaces.MODULES:
        raise UserError(
            f"reward.training is {reward.training:g}, and nobody knows what networks of the space"
            f" {space.name!r} move in training; it is for mnas, mobilenetv3 and macro"
        )
    shape = dataset.image_shape
    mean = 1e6 * reward.training_mean
    return functools.partial(
        factors, costs, space, shape, reward.training, mean, reward.training_moved
    )


def factors(
    costs: Cost,
    space: Space,
    image_shape: tuple[int, int, int],
    power: float,
    mean: float,
    moved: float,
    archs: Array | np.ndarray,
) -> np.ndarray:
    """[N] float32 of networks `archs` [N, T], whose `networks.cost.cost` is `costs`."""
    macs = np.asarray(costs(jnp.asarray(archs))[1], np.float64)
    work = sizes.work(space, image_shape, archs, macs, moved)
    return ((work / mean) ** power).astype(np.float32)
