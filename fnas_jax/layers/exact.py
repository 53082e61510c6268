"""Layers whose operations and sizes are known when they are compiled, so that nothing is wasted.

A network of such layers is one child's; it reads the part of the elastic parameters that the child
uses. What is computed are the branches of `branched`, as wide as the layer itself, with JAX's own
derivative: nothing is computed twice.
"""

from __future__ import annotations

from typing import Any

from fnas_jax.core.types import Array
from fnas_jax.layers import branched
from fnas_jax.layers.ops import Params
from fnas_jax.layers.spec import LayerSpec, Slot


def apply(
    dtype: Any, slot: Slot, params: Params, x: Array, spec: LayerSpec, root: bool = False
) -> Array:
    """See `choose.Backend`, of a `spec` of numbers; the result has the layer's own width."""
    del root  # XLA drops by itself what nobody needs
    alone, case = _alone(slot, spec)
    x = x.astype(dtype)
    h, _ = branched.inner(alone, case, params, x, case)
    return branched.outer(alone, case, params, h, x, case)[0]


def apply_eval(
    dtype: Any,
    slot: Slot,
    params: Params,
    x: Array,
    spec: LayerSpec,
    stats: branched.Stats,
    collect: Array,
) -> tuple[Array, branched.Stats]:
    """See `apply`."""
    alone, case = _alone(slot, spec)
    return branched.whole(alone, case, params, x.astype(dtype), case, stats, collect)


def _alone(slot: Slot, spec: LayerSpec) -> tuple[Slot, LayerSpec]:
    """(the slot as if this layer were its only choice, the layer as Python ints)."""
    case = LayerSpec(*map(int, spec))
    return Slot(slot.stride, (case,)), case
