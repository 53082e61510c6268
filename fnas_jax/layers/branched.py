"""Layers by a branch of code for each of a few sizes, of which one runs.

Operations, kernels and widths are static inside a branch (`cases`), so that a layer costs little
more than what it is, also in a batch of children (`switch.select`), and a layer that is not there
costs nothing. A layer is one conditional, as accelerators may ask the host for its index: what is
small is masked instead.
"""

from __future__ import annotations

import functools
from typing import Any

import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from fnas_jax.core.types import Array
from fnas_jax.layers import cases, convolutions, ops, own, parameters, reference, taps
from fnas_jax.layers.ops import Moments, Params
from fnas_jax.layers.spec import CONV, IDENTITY, MBCONV, NONE, OWN, PASS, POOL, LayerSpec, Slot
from fnas_jax.layers.switch import Halves, select, switch

Stats = dict[str, Moments]
PRODUCT = "product"  # the name of what convolutions give, for those who choose what is kept
_product = functools.partial(checkpoint_name, name=PRODUCT)


def apply(
    dtype: Any, slot: Slot, params: Params, x: Array, spec: LayerSpec, root: bool = False
) -> Array:
    """See `choose.Backend`; convolutions and activations in `dtype`, normalisations in float32."""
    del root  # XLA drops by itself what nobody needs
    x, branches = x.astype(dtype), _branches(slot)
    if len(branches) == 1:
        h = branches[0].inner(params, x, spec)
        return branches[0].outer(params, h, x, spec)
    return switch(branches, cases.index_of(slot, spec), params, x, reference.traced(spec))


def apply_eval(
    dtype: Any,
    slot: Slot,
    params: Params,
    x: Array,
    spec: LayerSpec,
    stats: Stats,
    collect: Array,
) -> tuple[Array, Stats]:
    """See `choose.Backend`."""
    x = x.astype(dtype)
    branches = [functools.partial(whole, slot, case) for case in cases.of(slot)]
    if len(branches) == 1:
        return branches[0](params, x, spec, stats, collect)
    index = cases.index_of(slot, spec)
    return select(branches, index, params, x, reference.traced(spec), stats, collect)


@functools.cache  # the same tuple for the same slot, as `switch` compares it by identity
def _branches(slot: Slot) -> tuple[Halves, ...]:
    return tuple(_in_training(slot, case) for case in cases.of(slot))


def _in_training(slot: Slot, case: LayerSpec) -> Halves:
    return Halves(
        lambda params, x, spec: inner(slot, case, params, x, spec)[0],
        lambda params, h, x, spec: outer(slot, case, params, h, x, spec)[0],
    )


def whole(
    slot: Slot,
    case: LayerSpec,
    params: Params,
    x: Array,
    spec: LayerSpec,
    stats: Stats,
    collect: Array,
) -> tuple[Array, Stats]:
    """A layer outside training, and its statistics."""
    h, new = inner(slot, case, params, x, spec, stats, collect)
    y, last = outer(slot, case, params, h, x, spec, stats, collect)
    return y, parameters.zero_stats(params) | new | last


def inner(
    slot: Slot,
    case: LayerSpec,
    params: Params,
    x: Array,
    spec: LayerSpec,
    stats: Stats | None = None,
    collect: Array | bool = False,
) -> tuple[Array, Stats]:
    """The convolutions: x [B, H, W, Cin] -> [B, H/s, W/s, Cout] of the widest; some statistics."""
    if case.op == PASS:
        return x, {}
    if case.op >= OWN:
        name = own.name(case.op)
        given = None if stats is None else stats[name]
        y, moments = own.apply(case.op, params[name], x, given, collect)
        return y, {name: moments}
    widest, x, new = slot.widest("cout"), ops.fit_channels(x, case.cin), {}

    def centre(w: Array) -> Array:
        w = taps.crop(w.astype(x.dtype), case.kernel)
        return taps.centre(w, spec.kernel)

    def norm(name: str, h: Array) -> Array:
        args = (h, spec.middle, case.act, stats, collect)
        h, new[name] = reference.norm(params, name, *args)
        return h

    if case.op == CONV:
        w = parameters.full_weights(params)[:, :, : case.cin, : case.cout]
        if case.kernel == 1:
            w = taps.crop(w, 1)[0, 0].astype(x.dtype)
            h = _product(convolutions.pointwise(x, w, slot.stride))
            return ops.fit_channels(h, widest), new
        h = _product(convolutions.conv(x, centre(w), 0, (case.kernel,), slot.stride))
        return ops.fit_channels(h, widest), new
    h = x
    if case.op == MBCONV:
        w = params["expand"][: case.cin, : case.middle]
        h = norm("norm_expand", _product(convolutions.pointwise(x, w.astype(x.dtype))))
    w = centre(params["depthwise"][..., : case.middle])
    h = _product(convolutions.depthwise(h, w, 0, (case.kernel,), slot.stride))
    h = norm("norm_depthwise", h)
    if case.se_hidden:
        h = reference.gate(params, h, spec)
    w = params["project"][: case.middle, : case.cout]
    h = _product(convolutions.pointwise(h, w.astype(x.dtype)))
    return ops.fit_channels(h, widest), new


def outer(
    slot: Slot,
    case: LayerSpec,
    params: Params,
    h: Array,
    x: Array,
    spec: LayerSpec,
    stats: Stats | None = None,
    collect: Array | bool = False,
) -> tuple[Array, Stats]:
    """The layer of the convolutions' h and input x: normalisation, activation, gate, skip."""
    if case.op == PASS:
        return h, {}
    new = {}
    if case.op < OWN:
        y, act = ops.fit_channels(h, case.cout), case.act if case.op == CONV else NONE
        args = (y, spec.cout, act, stats, collect)
        y, new["norm_out"] = reference.norm(params, "norm_out", *args)
        if case.op == CONV and case.se_hidden:
            y = reference.gate(params, y, spec)
        h = ops.fit_channels(y, h.shape[-1])
    return _with_skip(slot, case, x, h, spec), new


def _with_skip(slot: Slot, case: LayerSpec, x: Array, y: Array, spec: LayerSpec) -> Array:
    """As `reference.add_skip`, without a conditional."""
    cout = y.shape[-1]
    skips = {*slot.skips, *(choice.skip for choice in slot.choices if choice.op == case.op)}
    if isinstance(spec.skip, int):
        skips = {spec.skip}
    if POOL in skips:
        # A wider input must not fill channels that this child lacks.
        wanted = (jnp.arange(cout) < spec.cout) & (spec.skip == POOL)
        pooled = ops.fit_channels(convolutions.average_pool(x, slot.stride), cout)
        y = y + jnp.where(wanted, pooled, 0)
    if IDENTITY in skips and slot.stride == 1:
        y = y + jnp.where(spec.skip == IDENTITY, ops.fit_channels(x, cout), 0)
    return y
