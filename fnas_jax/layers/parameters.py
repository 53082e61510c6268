"""The parameters of equal layers: how they start, and which of them a child uses.

Tensors are wide enough for every child; a child uses leading channels and the centres of kernels.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp

from fnas_jax.core.types import Array
from fnas_jax.layers import ops, reference
from fnas_jax.layers.ops import Params
from fnas_jax.layers.reference import Setting, Variant


class Axis(NamedTuple):
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


class Tensor(NamedTuple):
    """A tensor of a layer, by what the child makes of it."""

    present: Array  # `shape` bool: the child uses any of it
    axes: tuple[Axis, ...]


def init_layers(
    shape: tuple[int, ...],
    cin: int,
    cout: int,
    setting: Setting,
    variants: tuple[Variant, ...],
    variant: Array,
    se: bool,
) -> Params:
    """Parameters, for `ops.realise`, of equal layers stacked along the leading axes `shape`.

    Wide enough for all `variants`, scaled for the child's `variant`, int32 of shape [] or `shape`.
    """

    def initial(name: str, tensor: Tensor) -> Any:
        sizes = tuple(axis.size for axis in tensor.axes)
        if len(sizes) == 1:
            return jnp.full((*shape, *sizes), float(name == "scale"))
        fan_in = functools.reduce(operator.mul, (axis.active for axis in tensor.axes[:-1]))
        return ops.he_normal((*shape, *sizes), fan_in.reshape(fan_in.shape + (1,) * len(sizes)))

    return _map_tensors(initial, _tensors(shape, cin, cout, setting, variants, variant, se))


def used_layers(
    shape: tuple[int, ...],
    cin: int,
    cout: int,
    setting: Setting,
    variants: tuple[Variant, ...],
    variant: Array,
    se: bool,
) -> Params:
    """Which entries of `init_layers` the child uses, as booleans.

    None where `variant` is beyond the last of `variants`: there the child has no layer.
    """

    def used(name: str, tensor: Tensor) -> Array:
        mask = tensor.present
        for axis in tensor.axes:
            along = axis.used.reshape(*shape, *(1,) * (mask.ndim - len(shape)), axis.size)
            mask = mask[..., None] & along
        return mask

    return _map_tensors(used, _tensors(shape, cin, cout, setting, variants, variant, se))


def _map_tensors(function: Callable[[str, Tensor], Any], tree: dict[str, Any]) -> Params:
    return {
        name: function(name, node) if isinstance(node, Tensor) else _map_tensors(function, node)
        for name, node in tree.items()
    }


def _tensors(
    shape: tuple[int, ...],
    cin: int,
    cout: int,
    setting: Setting,
    variants: tuple[Variant, ...],
    variant: Array,
    se: bool,
) -> dict[str, Any]:
    """The parameters of the layers, each a `Tensor`; see `init_layers`."""

    def of_variant(values: Sequence[Any]) -> Array:
        return jnp.broadcast_to(jnp.asarray(values)[variant], shape)

    def axis(size: int, active: Array, central: bool = False) -> Axis:
        return Axis(size, jnp.broadcast_to(active, shape).astype(jnp.int32), central)

    kernel = max(k for v in variants for k in v.kernels)
    sizes = jnp.asarray(reference.kernel_table(variants))
    side = axis(kernel, sizes[variant, setting.kernel], central=True)
    expansions = of_variant([v.expansion for v in variants])
    into, out = axis(cin, setting.cin), axis(cout, setting.cout)
    middle = axis(max(v.expansion for v in variants) * cin, expansions * setting.cin)
    exists = jnp.broadcast_to(variant < len(variants), shape)

    def among(*names: str) -> Array:
        return exists & of_variant([v.op in names for v in variants])

    def norm(present: Array, channels: Axis) -> dict[str, Tensor]:
        return {name: Tensor(present, (channels,)) for name in ("scale", "bias")}

    names = {v.op for v in variants}
    separable = among("mbconv", "sepconv")
    tensors: dict[str, Any] = {"norm_out": norm(exists, out)}
    if "shortcut" in names:
        tensors["shortcut"] = Tensor(among("shortcut"), (into, out))
    if "conv" in names:
        tensors["conv"] = Tensor(among("conv"), (side, side, into, out))
    if "mbconv" in names:
        tensors["expand"] = Tensor(among("mbconv"), (into, middle))
        tensors["norm_expand"] = norm(among("mbconv"), middle)
    if names & {"mbconv", "sepconv"}:
        tensors["depthwise"] = Tensor(separable, (side, side, middle))
        tensors["norm_depthwise"] = norm(separable, middle)
        tensors["project"] = Tensor(separable, (middle, out))
    if se:
        gates = jnp.where(of_variant([v.op == "conv" for v in variants]), setting.cout, 0)
        gated = axis(max(middle.size, cout), jnp.where(gates > 0, gates, middle.active))
        hidden = axis(max(1, cin // reference.SE_FRACTION), reference.se_hidden(setting.cin))
        present = exists & setting.se
        tensors["se"] = {
            "w1": Tensor(present, (gated, hidden)),
            "b1": Tensor(present, (hidden,)),
            "w2": Tensor(present, (hidden, gated)),
            "b2": Tensor(present, (gated,)),
        }
    return tensors
