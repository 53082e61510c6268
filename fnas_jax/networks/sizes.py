"""Bytes of networks in training: parameters, and what layers keep; by formula, or traced.

The kernels for CPUs keep what layers/csrc/kept.h says, as much as the child at hand needs; all
other code is XLA's, and keeps what JAX's derivative of it does, of the widest child.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fnas_jax.layers import own
from fnas_jax.layers.spec import CONV, MBCONV, NO_SKIP, OWN, PASS, LayerSpec
from fnas_jax.networks import cost, mobile_spaces
from fnas_jax.networks.base import Network
from fnas_jax.networks.dense import Outputs
from fnas_jax.spaces.base import Space
from fnas_jax.spaces.cell import CellSpec
from fnas_jax.spaces.cells import SPECS, edges_of, everywhere
from fnas_jax.spaces.mixed_cell import OPS

FLOAT, SHORT = 4, 2  # bytes of a float32 and of a bfloat16
_LANES = 16  # floats to whose multiple kernels round channels, at most (csrc/vector.h)
# Tensors that an operation of a cell keeps at most: rectified, convolved, normalised, ..
_OF_OPERATION = 5
_OF_OWN = 4  # outputs of a layer of the user's own that it may keep; nobody knows


class Kept(NamedTuple):
    """Bytes, of an image or of some."""

    layers: float  # that all layers keep until their backward pass
    largest: float  # that the layer with the most of them works in besides


def by_kernels(
    space: Space, image_shape: tuple[int, int, int], arch: Any, number_bytes: int = FLOAT
) -> Kept:
    """Of an image through the child `arch` [T] of an elastic network, by the kernels.

    `number_bytes`: of a result of a convolution, which is kept, FLOAT, or SHORT by "kernels_bf16".
    """
    fields = np.broadcast_arrays(*mobile_spaces.layers(space.spec, np.asarray(arch)))
    choices = [[LayerSpec(*row)] for row in np.stack(fields, 1).tolist()]
    return _mobile(space.spec, image_shape, choices, number_bytes)


def numbers_kept(space: Space, image_shape: tuple[int, int, int], arch: Any) -> float:
    """What the layers of `by_kernels` write of an image, and read again; of whatever type."""
    return by_kernels(space, image_shape, arch).layers / FLOAT


def work(
    space: Space, image_shape: tuple[int, int, int], archs: Any, macs: np.ndarray, moved: float
) -> np.ndarray:
    """[N] `macs` [N] of children `archs` [N, T], and `moved` for each number that they keep.

    0: nothing is asked of the layers, so that the space may be any.
    """
    if not moved:
        return macs
    kept = [numbers_kept(space, image_shape, arch) for arch in np.asarray(archs)]
    return macs + moved * np.array(kept)


def widest(space: Space, image_shape: tuple[int, int, int], number_bytes: int = FLOAT) -> Kept:
    """Of an image through a network that has the largest layer at every place: no child keeps more.

    `number_bytes` as in `by_kernels`. Raises ValueError for a space without networks.
    """
    if isinstance(space.spec, SPECS):
        return _cells(space.spec, image_shape)
    if type(space.spec) not in mobile_spaces.MODULES:
        raise ValueError(f"the space {space.name!r} has no networks")
    slots = [slot for stack in mobile_spaces.slots(space.spec) for slot in stack]
    return _mobile(space.spec, image_shape, [slot.choices for slot in slots], number_bytes)


def traced(network: Network, decisions: int, images: tuple[int, int, int, int]) -> Kept:
    """Of a batch `images` [B, H, W, C] through an elastic network, by JAX's derivative of it.

    Nothing is compiled; tracing may take a minute where layers are many.
    """
    key, arch = jax.random.key(0), jax.ShapeDtypeStruct((decisions,), jnp.int32)
    params = jax.eval_shape(network.init, key, arch)

    def derivative(params: Any, arch: Any, images: Any) -> Any:
        return jax.vjp(lambda own: network.apply(own, arch, images), params)[1]

    batch = jax.ShapeDtypeStruct(images, jnp.float32)
    kept = [_bytes(x) for x in jax.tree.leaves(jax.eval_shape(derivative, params, arch, batch))]
    # The parameters are among what is kept. A layer's backward pass holds its largest tensor, its
    # cotangent and one between them.
    return Kept(max(sum(kept) - _bytes(params), 0.0), 3.0 * max(kept))


def parameters(network: Network, decisions: int) -> float:
    """Bytes of the parameters of a network, traced."""
    arch = jax.ShapeDtypeStruct((decisions,), jnp.int32)
    return float(_bytes(jax.eval_shape(network.init, jax.random.key(0), arch)))


def most_parameters(space: Space, image_shape: tuple[int, int, int], classes: Outputs) -> float:
    """No fewer bytes than the elastic network of `space` has of parameters; by formula."""
    if isinstance(space.spec, CellSpec):  # all edges have both convolutions, one of them 1x1
        arch = everywhere(space.spec, "nor_conv_3x3")
        return 2.0 * FLOAT * cost.one_cost(space, arch, image_shape, classes)[0]
    if isinstance(space.spec, SPECS):
        return FLOAT * float(cost.one_cost(space, space.largest, image_shape, classes)[0])
    largest = FLOAT * float(cost.one_cost(space, space.largest, image_shape, classes)[0])
    total = 0.0
    for slot in (slot for stack in mobile_spaces.slots(space.spec) for slot in stack):
        for op in slot.ops:  # each has tensors of its own
            total += max(_parameters(v, image_shape) for v in slot.choices if v.op == op)
    return largest + FLOAT * total


def _parameters(v: LayerSpec, image_shape: tuple[int, int, int]) -> float:
    size = image_shape[:2]
    return float(own.cost(v.op, *size)[0] if v.op >= OWN else cost.layer_cost(v, 1, *size)[0])


class _Place(NamedTuple):
    stride: int
    cin: int  # of the array that comes in
    cout: int
    choices: Sequence[LayerSpec]  # that one may occur of
    number_bytes: int


def _mobile(
    spec: Any,
    image_shape: tuple[int, int, int],
    choices: Sequence[Sequence[LayerSpec]],
    number_bytes: int,
) -> Kept:
    """Of stem, slots and head, where each slot has one of its `choices`, the largest.

    Slots with layers of the user's own run without kernels, in float32.
    """
    slots = [slot for stack in mobile_spaces.slots(spec) for slot in stack]
    height, width, channels = image_shape
    act, last = mobile_spaces.act(spec), slots[-1].widest("cout")
    stem = LayerSpec(CONV, 3, channels, 0, spec.stem, 0, NO_SKIP, act)
    head = [LayerSpec(CONV, 1, last, 0, spec.head, 0, NO_SKIP, act)] if spec.head else []
    places = [_Place(spec.stem_stride, channels, spec.stem, [stem], number_bytes)]
    for slot, found in zip(slots, choices, strict=True):
        size = FLOAT if own.codes(slot) else number_bytes
        widths = slot.widest("cin"), slot.widest("cout")
        places.append(_Place(slot.stride, *widths, found, size))
    places += [_Place(1, last, spec.head, [one], number_bytes) for one in head]
    layers = largest = 0.0
    for stride, cin, cout, found, size in places:
        inside = height * width
        height, width = -(-height // stride), -(-width // stride)
        out = height * width
        kept = size * max(_layer(one, inside, out) for one in found)
        layers += kept + FLOAT * out * cout
        # Cotangents of all that it kept, of its input and of its output
        largest = max(largest, kept + FLOAT * (inside * cin + out * cout))
    return Kept(layers, largest)


def _layer(v: LayerSpec, inside: int, out: int) -> float:
    """Numbers that a layer keeps of an image with `inside` pixels, `out` behind it."""
    if v.op == PASS:
        return 0.0
    if v.op > MBCONV:
        return float(_OF_OWN * out * v.cout)
    expanded = _whole(v.middle) if v.op == MBCONV else 0
    return float(inside * expanded + out * (_whole(v.middle) + _whole(v.cout)))


def _bytes(tree: Any) -> int:
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def _whole(channels: int) -> int:
    return -(-channels // _LANES) * _LANES


def _cells(spec: Any, image_shape: tuple[int, int, int]) -> Kept:
    """Of all edges of all cells, each with the operation that keeps most, or with all of them."""
    height, width, _ = image_shape
    most = len(edges_of(spec)) * (1 if isinstance(spec, CellSpec) else len(OPS))
    layers = largest = 0.0
    for stage in range(spec.stages):
        tensor = FLOAT * height * width * spec.channels * 2**stage
        layers += tensor * _OF_OPERATION * most * spec.cells_per_stage
        largest = max(largest, 3 * tensor)
        height, width = -(-height // 2), -(-width // 2)
    return Kept(layers, largest)
