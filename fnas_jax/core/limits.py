"""Hard limits on costs: what is above is neither trained nor named the winner.

Methods are told that it failed, which is what they learn of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp

from fnas_jax.core.types import COSTS, Array, UserError

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
    """[N] bool: every cost [N] that has a limit is known (not NaN) and not above it."""
    found = jnp.ones(jnp.shape(mflops), bool)
    for limit, cost in zip(limits, (latency_ms, mflops, params_m), strict=True):
        if limit:
            found &= cost <= limit
    return found


def check(name: str, limit: float, cost: float, which: str, text: str) -> None:
    """Raises UserError where the cheapest network costs more than `limit`.

    It is the cheapest `which`, e.g. "known"; `text` describes it.
    """
    if cost > limit:
        raise UserError(
            f"limits.{name} is {limit:g} {UNITS[name]}; the cheapest network {which} has"
            f" {cost:.4g} ({text})"
        )


def in_force(facts: Mapping[str, Any]) -> dict[str, Any]:
    """The costs, by name, of a network's `facts` (`Judged.facts`) that rewards and limits go by.

    The latency is that of `latency.source`, where this is not the clock here.
    """
    costs = {name: facts[name] for name in COSTS}
    if "latency_by_source" in facts:
        costs["latency_ms"] = facts["latency_by_source"]["ms"]
    return costs


def above(limits: Limits, facts: Mapping[str, Any]) -> str:
    """Which limits a network of these `facts` does not keep, in words; "": it keeps all of them."""
    found, costs = [], in_force(facts)
    for name, limit in limits._asdict().items():
        cost = costs[name]
        if limit and cost is None:
            found.append(f"its {name} is unknown, and limits.{name} is {limit:g}")
        elif limit and not cost <= limit:
            found.append(f"it has {cost:.4g} {UNITS[name]}, and limits.{name} is {limit:g}")
    return "; ".join(found)
