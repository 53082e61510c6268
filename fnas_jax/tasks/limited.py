"""Which networks keep the hard limits, by the costs that are known before they are trained."""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax.numpy as jnp

from fnas_jax.core import limits
from fnas_jax.core.limits import Limits
from fnas_jax.core.types import Array
from fnas_jax.tasks.context import TrainContext


def free(ctx: TrainContext) -> Limits:
    """Those on costs that formulas or a table give; other latencies have to be measured."""
    return ctx.limits if ctx.latency.predict else ctx.limits._replace(latency_ms=0.0)


def allowed(ctx: TrainContext) -> Callable[[Array], Array] | None:
    """As `Task.allowed`."""
    return functools.partial(keeps, ctx) if free(ctx).any else None


def keeps(ctx: TrainContext, archs: Array) -> Array:
    """[N] bool of `archs` [N, T]."""
    forms = ctx.canonical(archs)
    params, macs = ctx.cost(forms)
    predict = ctx.latency.predict
    latency_ms = jnp.full(len(archs), jnp.nan) if predict is None else predict(forms)
    return limits.within(free(ctx), latency_ms, macs / 1e6, params / 1e6)
