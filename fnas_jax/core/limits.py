"""Hard limits on costs: what is above is neither trained nor named the winner.

Methods are told that it failed, which is what they learn of it.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp

from fnas_jax.core.types import Array

UNITS = {"latency_ms": "ms", "mflops": "million multiply-adds", "params_m": "million parameters"}


class Limits(NamedTuple):
    """The most that a network may cost; 0: no limit."""

    latency_ms: float
    mflops: float
    params_m: float

    @property
    def any(self) -> bool:
        """Whether there is a limit at all."""
        return any(self)


NONE = Limits(0.0, 0.0, 0.0)


def from_config(config: Any) -> Limits:
    """Those of `config.limits`."""
    return Limits(*(float(config.limits[name]) for name in Limits._fields))


def within(limits: Limits, latency_ms: Array, mflops: Array, params_m: Array) -> Array:
    """[N] bool: no cost [N] is above its limit; where it is unknown (NaN), it may be."""
    found = jnp.ones(jnp.shape(mflops), bool)
    for limit, cost in zip(limits, (latency_ms, mflops, params_m), strict=True):
        if limit:
            found &= cost <= limit
    return found
