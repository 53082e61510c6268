"""Layers by one piece of code for all kinds of layer, with zeros where the child has nothing.

Full and separable convolutions are computed once each, at their largest, whatever the child has.
"""

from __future__ import annotations

import functools
from typing import Any

import jax.numpy as jnp

from fnas_jax.core.types import Array
from fnas_jax.layers import convolutions, ops, own, parameters, reference, taps
from fnas_jax.layers.ops import Moments, Params
from fnas_jax.layers.spec import CONV, MBCONV, NONE, PASS, SEPCONV, LayerSpec, Slot


def apply(
    dtype: Any, slot: Slot, params: Params, x: Array, spec: LayerSpec, root: bool = False
) -> Array:
    """See `choose.Backend`; convolutions and activations in `dtype`, normalisations in float32."""
    del root  # XLA drops by itself what nobody needs
    return _layer(slot, params, x.astype(dtype), spec, None, False)[0]


def apply_eval(
    dtype: Any,
    slot: Slot,
    params: Params,
    x: Array,
    spec: LayerSpec,
    stats: dict[str, Moments],
    collect: Array,
) -> tuple[Array, dict[str, Moments]]:
    """See `choose.Backend`."""
    return _layer(slot, params, x.astype(dtype), spec, stats, collect)


def _layer(
    slot: Slot,
    params: Params,
    x: Array,
    spec: LayerSpec,
    stats: dict[str, Moments] | None,
    collect: Array | bool,
) -> tuple[Array, dict[str, Moments]]:
    full, (deep, new) = _full(slot, params, x, spec), _deep(slot, params, x, spec, stats, collect)
    is_full = jnp.asarray(spec.op == CONV)
    if full is None or deep is None:
        y = deep if full is None else full
    else:
        y = jnp.where(is_full, full, deep)
    if y is not None:
        y, new["norm_out"] = reference.norm(params, "norm_out", y, spec.cout, NONE, stats, collect)
        acts = _acts(slot, CONV)
        gated = any(choice.op == CONV and choice.se_hidden for choice in slot.choices)
        if acts - {NONE} or gated:
            activated = reference.gate(params, _activate(acts, spec.act, y), spec)
            y = jnp.where(is_full, activated, y)
    for code in own.codes(slot):
        name = own.name(code)
        given = None if stats is None else stats[name]
        h, new[name] = own.apply(code, params[name], x, given, collect)
        y = h if y is None else jnp.where(jnp.asarray(spec.op == code), h, y)
    assert y is not None  # a slot in which nothing may occur
    y = reference.add_skip(slot, x, y, spec)
    if PASS in slot.ops:
        y = jnp.where(jnp.asarray(spec.op != PASS), y, x)
    return y, new


def _full(slot: Slot, params: Params, x: Array, spec: LayerSpec) -> Array | None:
    """The largest full convolution, None where there is none."""
    if CONV not in slot.ops:
        return None
    if "shortcut" in params:
        return convolutions.pointwise(x, params["shortcut"].astype(x.dtype), slot.stride)
    w = taps.centre(params["conv"].astype(x.dtype), spec.kernel)
    return convolutions.conv(x, w, 0, w.shape[:1], slot.stride)


def _deep(
    slot: Slot,
    params: Params,
    x: Array,
    spec: LayerSpec,
    stats: dict[str, Moments] | None,
    collect: Array | bool,
) -> tuple[Array | None, dict[str, Moments]]:
    """The largest separable convolution up to its projection, and its statistics."""
    new, acts = parameters.zero_stats(params), _acts(slot, SEPCONV, MBCONV)
    if not slot.ops & {SEPCONV, MBCONV}:
        return None, new

    def norm(name: str, h: Array) -> Array:
        # One activation is a part of the normalisation, which is faster.
        act = min(acts) if len(acts) == 1 else NONE
        h, new[name] = reference.norm(params, name, h, spec.middle, act, stats, collect)
        return h if len(acts) == 1 else _activate(acts, spec.act, h)

    h = x
    if MBCONV in slot.ops:
        h = norm("norm_expand", convolutions.pointwise(x, params["expand"].astype(x.dtype)))
    if SEPCONV in slot.ops:
        is_separable = jnp.asarray(spec.op == SEPCONV)
        h = jnp.where(is_separable, ops.fit_channels(x, h.shape[-1]), h)
    w = taps.centre(params["depthwise"].astype(x.dtype), spec.kernel)
    h = convolutions.depthwise(h, w, 0, w.shape[:1], slot.stride)
    h = reference.gate(params, norm("norm_depthwise", h), spec)
    return convolutions.pointwise(h, params["project"].astype(x.dtype)), new


def _acts(slot: Slot, *operations: int) -> set[int]:
    """The activations that may occur with these operations."""
    return {choice.act for choice in slot.choices if choice.op in operations}


def _activate(acts: set[int], act: Any, x: Array) -> Array:
    """The activation `act`, one of `acts`."""
    results = [(a, ops.activate(a, x)) for a in sorted(acts)]
    return functools.reduce(
        lambda y, other: jnp.where(jnp.asarray(act == other[0]), other[1], y),
        results[1:],
        results[0][1],
    )
