"""A mobile network as a chain of layers that children share: what has to be compiled for it is few.

A layer is computed in one of the few sizes of its slot (`layers.cases`), as `branched` does; but
which one is chosen by the host, who knows the architecture, so that each size is a program of its
own and no program is a child's. PyTorch calls that regional compilation.

The parameters of a layer are one vector here, in the order of `ravel_pytree`, so that a program is
given few arrays.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.flatten_util
import numpy as np

from fnas_jax.core.types import Array, UserError
from fnas_jax.layers import branched, cases, choose, ops, parameters
from fnas_jax.layers.ops import Params
from fnas_jax.layers.spec import PASS, LayerSpec, Slot
from fnas_jax.networks import mobile, mobile_spaces
from fnas_jax.networks.base import Stats
from fnas_jax.networks.dense import Dense, Outputs
from fnas_jax.networks.mobile import Context
from fnas_jax.spaces.base import Space

_OF_LAYERS = ("stem", "stem_norm", "head", "head_norm")  # parameters beside those of stacks


class Regions(NamedTuple):
    """The network of a space."""

    context: Context  # of the elastic network whose parameters children have
    spec: Any  # of the space
    dtype: Any  # of convolutions and activations
    some: np.ndarray  # any architecture [T], whose parameters have the shapes of all


class Region(NamedTuple):
    """What a layer's programs are compiled for, with the sizes of images and batch."""

    slot: Slot
    case: LayerSpec  # of Python ints: the size that it is computed in
    dtype: Any  # of convolutions and activations
    root: bool = False  # its input is data, whose derivative nobody needs


class Placed(NamedTuple):
    """A layer of a child."""

    region: Region
    place: int  # among `slots_of` the network
    spec: LayerSpec  # Python ints


def make(space: Space, channels: int, classes: Outputs) -> Regions:
    """Of the network of `elastic.make`. Raises UserError where it is no chain of layers."""
    spec, dtype = space.spec, choose.short_type()
    mobile_, pixels = type(spec) in mobile_spaces.MODULES, isinstance(classes, Dense)
    if not mobile_ or pixels:
        what = "networks that say something of each pixel" if pixels else f"the space {space.name}"
        allowed = "auto, branched, masked, exact and reference" if mobile_ else "auto and branched"
        raise UserError(
            f"children.backend is 'regional', which is not for {what}; allowed are {allowed}"
        )
    context = mobile.elastic(spec, channels, classes, choose.branched_in(dtype))
    return Regions(context, spec, dtype, np.asarray(space.largest, np.int32))


def slots_of(c: Context) -> tuple[Slot, ...]:
    """Those of all layers that a child may have, in order: the stem, stacks, the head."""
    inside = tuple(slot for stack in c.slots for slot in stack)
    head = (mobile.head_slot(c),) if c.head else ()
    return (mobile.stem_slot(c), *inside, *head)


def chain(net: Regions, arch: np.ndarray) -> tuple[Placed, ...]:
    """The layers that the child `arch` [T] has, in order."""
    slots, arch = slots_of(net.context), np.asarray(arch, np.int32)
    rows = LayerSpec(*np.broadcast_arrays(*mobile_spaces.layers(net.spec, arch)))
    inside = [LayerSpec(*(int(field[i]) for field in rows)) for i in range(len(rows.op))]
    of_place = [slots[0].choices[0], *inside]
    if net.context.head:
        of_place.append(slots[-1].choices[0]._replace(cin=inside[-1].cout))
    found = []
    for i, (slot, layer) in enumerate(zip(slots, of_place, strict=True)):
        case = cases.holding(slot, layer)
        if case.op != PASS:  # which hands on what it is given
            found.append(Placed(Region(slot, case, net.dtype, root=i == 0), i, layer))
    return tuple(found)


def split(c: Context, params: Params) -> tuple[list[Params], Params]:
    """(parameters of the layer at each place, those of what follows)."""
    blocks, shared = mobile.split_layers(c, params)
    layers = [block["first"] for block in blocks]
    stem = {"conv": shared["stem"], "norm_out": shared["stem_norm"]}
    head = [{"shortcut": shared["head"], "norm_out": shared["head_norm"]}] if c.head else []
    last = {name: p for name, p in shared.items() if name not in _OF_LAYERS}
    return [stem, *layers, *head], last


def join(c: Context, layers: list[Params], last: Params) -> Params:
    """The inverse of `split`."""
    shared = last | {"stem": layers[0]["conv"], "stem_norm": layers[0]["norm_out"]}
    if c.head:
        shared |= {"head": layers[-1]["shortcut"], "head_norm": layers[-1]["norm_out"]}
    inside = layers[1 : len(layers) - bool(c.head)]
    return mobile.join_layers(c, [{"first": layer} for layer in inside], shared)


def join_stats(c: Context, layers: list[Stats]) -> Stats:
    """Statistics of the whole network, of those of the layer at each place."""
    inside = [{"first": stats} for stats in layers[1 : len(layers) - bool(c.head)]]
    found = mobile.join_layers(c, inside, {"stem": layers[0]["norm_out"]})
    return found | ({"head": layers[-1]["norm_out"]} if c.head else {})


@functools.cache
def like(slot: Slot) -> Params:
    """Parameters of a layer of `slot`, all zero, in numpy arrays."""
    drawn = parameters.init(slot, slot.choices[0])
    shapes = jax.eval_shape(lambda: ops.realise(jax.random.key(0), drawn))
    return jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)


@functools.cache
def zero_stats(slot: Slot) -> Stats:
    """Statistics of a layer of `slot`, all zero, in numpy arrays."""
    shapes = jax.eval_shape(lambda: parameters.zero_stats(like(slot)))
    return jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)


def size(slot: Slot) -> int:
    """Of the vector of a layer's parameters."""
    return sum(leaf.size for leaf in jax.tree.leaves(like(slot)))


def flat(params: Params) -> Array:
    """The vector [n] of a layer's parameters."""
    return jax.flatten_util.ravel_pytree(params)[0]


def unflat(slot: Slot, vector: Array) -> Params:
    """The inverse of `flat`."""
    return jax.flatten_util.ravel_pytree(like(slot))[1](vector)


def apply(region: Region, vector: Array, x: Array, spec: LayerSpec) -> Array:
    """A layer in training; `spec` of arrays [] int32. See `choose.Backend`."""
    params, x = unflat(region.slot, vector), x.astype(region.dtype)
    h, _ = branched.inner(region.slot, region.case, params, x, spec)
    return branched.outer(region.slot, region.case, params, h, x, spec)[0]


def apply_eval(
    region: Region, vector: Array, x: Array, spec: LayerSpec, stats: Stats, collect: Array
) -> tuple[Array, Stats]:
    """A layer outside training, and the batch's statistics."""
    params, x = unflat(region.slot, vector), x.astype(region.dtype)
    return branched.whole(region.slot, region.case, params, x, spec, stats, collect)
