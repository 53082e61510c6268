"""Limits that no network can keep are told before anything is trained."""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax.numpy as jnp
import numpy as np

from fnas_jax.core import limits
from fnas_jax.core.types import Array
from fnas_jax.spaces import descend
from fnas_jax.tasks.context import TrainContext


def check(ctx: TrainContext) -> None:
    """As `Task.check`: the sentence names the cheapest network known."""
    for place, name in enumerate(("params_m", "mflops")):
        limit = getattr(ctx.limits, name)
        if limit:
            arch, cost = cheapest(ctx, functools.partial(millions, ctx, place))
            limits.check(name, limit, cost, "known", text_of(ctx, arch))
    if ctx.limits.latency_ms:
        arch, latency = fastest(ctx)
        limits.check("latency_ms", ctx.limits.latency_ms, latency, "known", text_of(ctx, arch))


def fastest(ctx: TrainContext) -> tuple[np.ndarray, float]:
    """A network [T] that should be among the fastest, and its milliseconds by `latency.source`."""
    predict = ctx.latency.predict
    if predict is not None:
        return cheapest(ctx, lambda archs: np.asarray(predict(archs)))
    arch, _ = cheapest(ctx, functools.partial(millions, ctx, 1))  # what computes least
    if ctx.latency.of is not None:
        return arch, float(ctx.latency.of(jnp.asarray(arch)[None])[0])
    return arch, ctx.latency_ms(jnp.asarray(arch))


def millions(ctx: TrainContext, place: int, archs: Array) -> np.ndarray:
    """[N] cost number `place` of `ctx.cost`, in millions."""
    return np.asarray(ctx.cost(archs)[place]) / 1e6


def text_of(ctx: TrainContext, arch: np.ndarray) -> str:
    """What the space calls the network of `arch` [T]."""
    return ctx.space.describe(arch)["text"]


def cheapest(ctx: TrainContext, cost: Callable[[Array], np.ndarray]) -> tuple[np.ndarray, float]:
    """`descend.cheapest` in the space of a task."""
    return descend.cheapest(ctx.space, ctx.canonical, cost)
