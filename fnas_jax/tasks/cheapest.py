"""Limits that no network can keep are told before anything is trained."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from fnas_jax.core import limits
from fnas_jax.spaces.base import neighbours
from fnas_jax.tasks.context import TrainContext

DRAWN = 256  # networks, of which the cheapest is made cheaper


def check(ctx: TrainContext) -> None:
    """Raises UserError, naming the cheapest network known, for a limit below its cost."""
    for place, name in enumerate(("params_m", "mflops")):
        limit = getattr(ctx.limits, name)
        if limit:
            arch, cost = cheapest(ctx, place)
            limits.check(name, limit, cost, "known", text_of(ctx, arch))
    if ctx.limits.latency_ms:  # what computes least should be among the fastest
        arch, _ = cheapest(ctx, 1)
        latency = ctx.latency_ms(jnp.asarray(arch))
        limits.check("latency_ms", ctx.limits.latency_ms, latency, "known", text_of(ctx, arch))


def text_of(ctx: TrainContext, arch: np.ndarray) -> str:
    """What the space calls the network of `arch` [T]."""
    return ctx.space.describe(arch)["text"]


def cheapest(ctx: TrainContext, place: int) -> tuple[np.ndarray, float]:
    """A network [T] whose cost number `place` of `ctx.cost` no change of one decision lowers.

    The cost is in millions.
    """
    archs = ctx.canonical(ctx.space.sample(jax.random.key(0), DRAWN))
    best, least = None, np.inf
    while True:
        costs = np.asarray(ctx.cost(archs)[place]) / 1e6
        if costs.min() >= least:
            assert best is not None
            return best, float(least)
        best, least = np.asarray(archs[costs.argmin()]), costs.min()
        archs = ctx.canonical(neighbours(ctx.space.cardinalities, jnp.asarray(best)))
