"""Layers by XLA's code, a branch for every kind: what tests compare the other backends with."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from fnas_jax.core.types import Array
from fnas_jax.layers import convolutions, ops, own, parameters
from fnas_jax.layers.ops import Moments, Params
from fnas_jax.layers.spec import CONV, MBCONV, NO_SKIP, NONE, OWN, PASS, LayerSpec, Slot
from fnas_jax.layers.switch import Function, select, switch

_Kind = tuple[LayerSpec, ...]  # choices that differ in their kernels only: one branch


def apply(slot: Slot, params: Params, x: Array, spec: LayerSpec, root: bool = False) -> Array:
    """See `choose.Backend`."""
    del root  # XLA drops by itself what nobody needs
    branches = _branches(slot)
    if len(branches) == 1:
        y = branches[0](params, x, spec)
    else:
        y = switch(branches, _kind_of(slot, spec), params, x, traced(spec))
    return add_skip(slot, x, y, spec)


def apply_eval(
    slot: Slot,
    params: Params,
    x: Array,
    spec: LayerSpec,
    stats: dict[str, Moments],
    collect: Array,
) -> tuple[Array, dict[str, Moments]]:
    """See `choose.Backend`."""
    branches = [functools.partial(layer, slot.stride, kind) for kind in _kinds(slot)]
    if len(branches) == 1:
        y, new = branches[0](params, x, spec, stats, collect)
    else:
        index = _kind_of(slot, spec)
        y, new = select(branches, index, params, x, traced(spec), stats, collect)
    return add_skip(slot, x, y, spec), new


def layer(
    stride: int,
    kind: _Kind,
    params: Params,
    x: Array,
    spec: LayerSpec,
    stats: dict[str, Moments] | None = None,
    collect: Array | bool = False,
) -> tuple[Array, dict[str, Moments]]:
    """A layer of this kind without its skip: x [B, H, W, Cin] -> [B, H/s, W/s, Cout].

    Also the batch's statistics; without `stats`, in training, these are zeros that nobody reads.
    """
    wide, sizes = kind[0], tuple(sorted({choice.kernel for choice in kind}))
    size = 0 if len(sizes) == 1 else jnp.searchsorted(jnp.asarray(sizes), spec.kernel)
    new = parameters.zero_stats(params)

    def norm_here(name: str, h: Array, active: Any, act: int) -> Array:
        h, new[name] = norm(params, name, h, active, act, stats, collect)
        return h

    if wide.op == PASS:
        return x, new
    if wide.op >= OWN:
        name = own.name(wide.op)
        given = None if stats is None else stats[name]
        y, new[name] = own.apply(wide.op, params[name], x, given, collect)
        return y, new
    if wide.op == CONV:
        if sizes == (1,):
            h = convolutions.pointwise(x, parameters.full_weights(params)[0, 0], stride)
        else:
            h = convolutions.conv(x, parameters.full_weights(params), size, sizes, stride)
        return gate(params, norm_here("norm_out", h, spec.cout, wide.act), spec), new
    h = x
    if wide.op == MBCONV:
        h = convolutions.pointwise(x, params["expand"][:, : wide.middle])
        h = norm_here("norm_expand", h, spec.middle, wide.act)
    h = convolutions.depthwise(h, params["depthwise"][..., : wide.middle], size, sizes, stride)
    h = gate(params, norm_here("norm_depthwise", h, spec.middle, wide.act), spec)
    h = convolutions.pointwise(h, params["project"][: wide.middle])
    return norm_here("norm_out", h, spec.cout, NONE), new


def _kinds(slot: Slot) -> tuple[_Kind, ...]:
    """The slot's choices, one group for each branch of code; narrower ones first."""
    groups: dict[tuple[int, int, int], list[LayerSpec]] = {}
    for choice in sorted(slot.choices, key=lambda c: (c.op, c.act, c.middle)):
        groups.setdefault((choice.op, choice.act, choice.middle), []).append(choice)
    return tuple(map(tuple, groups.values()))


def _kind_of(slot: Slot, spec: LayerSpec) -> Array:
    """Index of the first of `_kinds`, hence the narrowest, that `spec` fits into."""
    fits = [
        (spec.op == kind[0].op) & (spec.act == kind[0].act) & (spec.middle <= kind[0].middle)
        for kind in _kinds(slot)
    ]
    return jnp.argmax(jnp.stack([jnp.asarray(fit) for fit in fits]))


@functools.cache  # the same tuple for the same slot, as `switch` compares it by identity
def _branches(slot: Slot) -> tuple[Function, ...]:
    return tuple(_in_training(functools.partial(layer, slot.stride, k)) for k in _kinds(slot))


def _in_training(branch: Callable[..., Any]) -> Function:
    return lambda params, x, spec: branch(params, x, spec)[0]


def traced(spec: LayerSpec) -> LayerSpec:
    """The record as arrays [] int32, which a branch may be given."""
    return LayerSpec(*(jnp.asarray(field, jnp.int32) for field in spec))


def norm(
    params: Params,
    name: str,
    h: Array,
    active: Any,
    act: int,
    stats: dict[str, Moments] | None,
    collect: Array | bool,
) -> tuple[Array, Moments]:
    """`ops.norm_act` by the parameters called `name`, and moments as wide as these.

    In training, without `stats`, the moments are zeros.
    """
    estimate = None if stats is None else stats[name]
    h, moments = ops.norm_act(h, params[name], active, act, estimate, collect)
    if moments is None:
        return h, ops.zero_moments(params[name])
    width = params[name]["scale"].shape[0]
    return h, Moments(*(ops.fit_channels(m, width) for m in moments))


def gate(params: Params, h: Array, spec: LayerSpec) -> Array:
    """Squeeze-excitation of h [B, H, W, C], where the child has it."""
    if "se" not in params:
        return h
    gates = ops.squeeze_excite(h, params["se"], spec.se_hidden, spec.hard_gate)
    # Not a conditional: that would double the code to compile for little time saved.
    return h * jnp.where(spec.se_hidden > 0, gates, 1.0).astype(h.dtype)


def add_skip(slot: Slot, x: Array, y: Array, spec: LayerSpec) -> Array:
    """Y [B, H/s, W/s, Cout] plus what the skip operation makes of x [B, H, W, Cin]."""
    cout = y.shape[-1]

    def pool(x: Array) -> Array:
        # A wider input must not fill channels that this child lacks.
        mask = jnp.arange(cout) < spec.cout
        pooled = convolutions.average_pool(x, slot.stride)
        return ops.fit_channels(pooled, cout) * mask.astype(x.dtype)

    def nothing(x: Array) -> Array:
        return jnp.zeros(y.shape, x.dtype)

    def identity(x: Array) -> Array:
        return ops.fit_channels(x, cout) if slot.stride == 1 else nothing(x)

    operations = [pool, identity, nothing]  # in the order of their codes
    if isinstance(spec.skip, jax.Array):
        return y + lax.switch(spec.skip, operations, x)
    return y if spec.skip == NO_SKIP else y + operations[spec.skip](x)
