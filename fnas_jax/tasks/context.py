"""What children are trained and measured with, and a batch of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from fnas_jax.core.types import Array
from fnas_jax.knowledge.pool_store import Store
from fnas_jax.spaces.base import Space
from fnas_jax.tasks.data import Dataset
from fnas_jax.training.config import Children
from fnas_jax.training.minibatches import Pipeline


class TrainContext(NamedTuple):
    """An image task; nothing that changes."""

    config: Any  # the run's ConfigDict
    space: Space
    dataset: Dataset
    pipeline: Pipeline
    settings: Children
    reward: Callable[..., Array]  # (accuracy, latency_ms, mflops, params_m) -> reward, each [N]
    latency_ms: Callable[[Array], float]  # of arch [T]
    canonical: Callable[[Array], Array]  # `space.canonical`, compiled
    cost: Callable[[Array], tuple[Array, Array]]  # archs [N, T] -> parameters, multiply-adds, [N]
    store: Store | None = None  # where the pool is kept; None: nowhere


class Batch(NamedTuple):
    """N architectures that are to be judged."""

    archs: Array  # [N, T] int32 as proposed
    canonical: Array  # [N, T] int32
    new: Array  # [N] bool: to be judged now; others are known, not wanted, or padding
    params: Array  # [N] int32 number of parameters, exact where it fits
    macs: Array  # [N] int32 multiply-adds of an image, exact where it fits


def batch_of(ctx: TrainContext, archs: Array, new: Array, canonical: Array | None = None) -> Batch:
    """The batch of `archs` [N, T], of which those of `new` [N] are to be judged."""
    if canonical is None:
        canonical = ctx.canonical(archs)
    return Batch(archs, canonical, new, *ctx.cost(archs))
