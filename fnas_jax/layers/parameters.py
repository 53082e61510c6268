"""The parameters of equal layers: how they start, and which of them a child uses.

Tensors are wide enough for every choice of the slot; a child uses leading channels and the centres
of kernels.
"""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp

from fnas_jax.core.types import Array
from fnas_jax.layers import ops, own
from fnas_jax.layers.ops import Params
from fnas_jax.layers.spec import CONV, MBCONV, NORMS, OWN, PASS, SEPCONV, LayerSpec, Slot


class _Axis(NamedTuple):
    """One axis of a tensor of equal layers, stacked along leading axes of some `shape`."""

    size: int  # entries that there are
    active: Array  # `shape` int32, entries that the child uses: the first ones,
    central: bool = False  # or those in the middle

    @property
    def used(self) -> Array:
        """[*shape, size] bool: the child uses this entry."""
        before = (self.size - self.active) // 2 if self.central else jnp.zeros_like(self.active)
        place = jnp.arange(self.size) - before[..., None]
        return (place >= 0) & (place < self.active[..., None])


class _Tensor(NamedTuple):
    """A tensor of a layer, by what the child makes of it."""

    present: Array  # `shape` bool: the child uses any of it
    axes: tuple[_Axis, ...]


def init(slot: Slot, spec: LayerSpec, shape: tuple[int, ...] = ()) -> Params:
    """Parameters, for `ops.realise`, of equal layers stacked along the leading axes `shape`.

    Scaled for the child's `spec`, whose fields have that shape. Tensors that the child does not use
    get numbers, too, scaled for the widest layer of the slot.
    """

    def initial(name: str, tensor: _Tensor) -> Any:
        sizes = tuple(axis.size for axis in tensor.axes)
        if len(sizes) == 1:
            return jnp.full((*shape, *sizes), float(name == "scale"))
        active = functools.reduce(operator.mul, (axis.active for axis in tensor.axes[:-1]))
        widest = math.prod(sizes[:-1])
        present = jnp.broadcast_to(tensor.present, shape)
        fan_in = jnp.where(present, active, widest)
        return ops.he_normal((*shape, *sizes), fan_in.reshape(fan_in.shape + (1,) * len(sizes)))

    return _map_tensors(initial, _tensors(slot, spec, shape)) | {
        own.name(code): own.initial(code, shape) for code in own.codes(slot)
    }


def used(slot: Slot, spec: LayerSpec, shape: tuple[int, ...] = ()) -> Params:
    """Which entries of `init` the child uses, as booleans; none where it has no layer."""

    def entries(name: str, tensor: _Tensor) -> Array:
        mask = tensor.present
        for axis in tensor.axes:
            along = axis.used.reshape(*shape, *(1,) * (mask.ndim - len(shape)), axis.size)
            mask = mask[..., None] & along
        return mask

    return _map_tensors(entries, _tensors(slot, spec, shape)) | {
        own.name(code): own.used(code, jnp.broadcast_to(spec.op == code, shape))
        for code in own.codes(slot)
    }


def shapes(slot: Slot) -> dict[str, Any]:
    """Of the parameters of one layer, but for those of layers of the user's own."""
    widest = LayerSpec(*(slot.widest(field) for field in LayerSpec._fields))
    return _map_tensors(
        lambda _, tensor: tuple(axis.size for axis in tensor.axes), _tensors(slot, widest, ())
    )


def _map_tensors(function: Callable[[str, _Tensor], Any], tree: dict[str, Any]) -> Params:
    return {
        name: function(name, node) if isinstance(node, _Tensor) else _map_tensors(function, node)
        for name, node in tree.items()
    }


def _tensors(slot: Slot, spec: LayerSpec, shape: tuple[int, ...]) -> dict[str, Any]:
    """The parameters of the layers, each a `_Tensor`; see `init`."""

    def axis(size: int, active: Array, central: bool = False) -> _Axis:
        return _Axis(size, jnp.broadcast_to(active, shape).astype(jnp.int32), central)

    spec = LayerSpec(*(jnp.broadcast_to(jnp.asarray(field), shape) for field in spec))
    side = axis(slot.widest("kernel"), spec.kernel, central=True)
    into, out = axis(slot.widest("cin"), spec.cin), axis(slot.widest("cout"), spec.cout)
    middle = axis(slot.widest("middle"), spec.middle)
    full, separable = spec.op == CONV, (spec.op == SEPCONV) | (spec.op == MBCONV)
    tensors: dict[str, Any] = {"norm_out": _norm((spec.op != PASS) & (spec.op < OWN), out)}
    if CONV in slot.ops:
        # What only shortcuts need is a matrix.
        if all(choice.kernel == 1 for choice in slot.choices if choice.op == CONV):
            tensors["shortcut"] = _Tensor(full, (into, out))
        else:
            tensors["conv"] = _Tensor(full, (side, side, into, out))
    if MBCONV in slot.ops:
        tensors["expand"] = _Tensor(spec.op == MBCONV, (into, middle))
        tensors["norm_expand"] = _norm(spec.op == MBCONV, middle)
    if slot.ops & {MBCONV, SEPCONV}:
        tensors["depthwise"] = _Tensor(separable, (side, side, middle))
        tensors["norm_depthwise"] = _norm(separable, middle)
        tensors["project"] = _Tensor(separable, (middle, out))
    if slot.widest("se_hidden"):
        gated = axis(max(middle.size, into.size, out.size), spec.gated)
        hidden = axis(slot.widest("se_hidden"), spec.se_hidden)
        present = spec.se_hidden > 0
        tensors["se"] = {
            "w1": _Tensor(present, (gated, hidden)),
            "b1": _Tensor(present, (hidden,)),
            "w2": _Tensor(present, (hidden, gated)),
            "b2": _Tensor(present, (gated,)),
        }
    return tensors


def full_weights(params: Params) -> Array:
    """[K, K, Cin, Cout] of the full convolution."""
    return params["shortcut"][None, None] if "shortcut" in params else params["conv"]


def zero_stats(params: Params) -> dict[str, Any]:
    """Statistics of the layer with these parameters, all zero."""
    found: dict[str, Any] = {
        name: ops.zero_moments(params[name]) for name in NORMS if name in params
    }
    stacked = params["norm_out"]["scale"].shape[:-1]
    return found | {
        name: own.zero_stats(name, stacked) for name in params if name.startswith(own.PREFIX)
    }


def _norm(present: Array, channels: _Axis) -> dict[str, _Tensor]:
    return {name: _Tensor(present, (channels,)) for name in ("scale", "bias")}
