"""What children are trained and measured with, and a batch of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from fnas_jax.core import limits as limits_lib
from fnas_jax.core.keep import NOWHERE, Keep
from fnas_jax.core.limits import Limits
from fnas_jax.core.types import Array
from fnas_jax.knowledge.pool_store import Store
from fnas_jax.objectives.base import Objective
from fnas_jax.spaces.base import Space
from fnas_jax.tasks.augment_choice import Applied
from fnas_jax.tasks.data import Dataset
from fnas_jax.tasks.latency import Source
from fnas_jax.tasks.pricing import Price
from fnas_jax.training.config import Children
from fnas_jax.training.minibatches import Pipeline

DEVICE = Source()  # of latencies: this device


class TrainContext(NamedTuple):
    """An image task; nothing that changes."""

    config: Any  # the run's ConfigDict
    space: Space
    dataset: Dataset
    objective: Objective
    pipeline: Pipeline
    settings: Children
    reward: Callable[..., Array]  # (accuracy, latency_ms, mflops, params_m) -> reward, each [N]
    latency_ms: Callable[[Array], float]  # of arch [T], timed on this device
    canonical: Callable[[Array], Array]  # `space.canonical`, compiled
    cost: Callable[[Array], tuple[Array, Array]]  # archs [N, T] -> parameters, multiply-adds, [N]
    store: Store | None = None  # where the pool is kept; None: nowhere
    limits: Limits = limits_lib.NONE
    latency: Source = DEVICE  # where those come from that rewards and limits go by
    price: Price | None = None  # factors of the reward for faster training; None: there are none
    augment: Applied = Applied()  # what `pipeline` does to training images, for records
    keep: Keep = NOWHERE  # of long trainings of the run

    @property
    def times(self) -> bool:
        """Whether children are timed on this device: where reward or limit asks for it."""
        asked = self.config.reward.cost == "latency_ms" or self.limits.latency_ms > 0
        return asked and self.latency.of is None

    def prices(self, archs: Array | np.ndarray) -> np.ndarray:
        """[N] float32 factors of the rewards of `archs` [N, T], in canonical form."""
        return np.ones(len(archs), np.float32) if self.price is None else self.price(archs)


class Batch(NamedTuple):
    """N architectures that are to be judged."""

    asked: Array  # [N, T] int32 as proposed: where the weights of a network for all of them stand
    canonical: Array  # [N, T] int32: what is trained, priced, timed and remembered
    new: Array  # [N] bool: to be judged now; others are known, not wanted, or padding
    params: Array  # [N] int32 number of parameters, exact where it fits
    macs: Array  # [N] int32 multiply-adds of an image, exact where it fits
    latency_ms: Array | None = None  # [N] float32, NaN where not known; None: nobody has asked


def batch_of(ctx: TrainContext, asked: Array, new: Array) -> Batch:
    """The batch of `asked` [N, T], of which those of `new` [N] are to be judged."""
    canonical = ctx.canonical(asked)
    return Batch(asked, canonical, new, *ctx.cost(canonical))


def batches_of(ctx: TrainContext, archs: Array) -> Iterator[tuple[int, Batch]]:
    """`archs` [N, T] in batches of the search's size, the last one padded: (place of its first, it)

    Programs that are compiled for the batches of the search serve these, too.
    """
    size = ctx.config.search.batch
    for i in range(0, len(archs), size):
        part = jnp.asarray(archs[i : i + size])
        use = jnp.arange(size) < len(part)
        yield i, batch_of(ctx, jnp.pad(part, ((0, size - len(part)), (0, 0))), use)
