"""Cost of children: exact parameters and multiply-adds, by formula."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np

from fnas_jax.core.types import Array
from fnas_jax.layers import own
from fnas_jax.layers.spec import CONV, MBCONV, OWN, PASS, LayerSpec
from fnas_jax.networks import dense, mobile_spaces
from fnas_jax.networks.dense import Dense, Outputs
from fnas_jax.spaces import base, cells, mixed_cell

Cost = Callable[[Array], tuple[Array, Array]]


def cost(space: base.Space, image_shape: tuple[int, int, int], classes: Outputs) -> Cost:
    """A pure, jittable function archs [N, T] -> (params [N], multiply-adds of one image [N]).

    `image_shape` is (height, width, channels). Parameters are all that training changes.
    Multiply-adds are those of convolutions and linear layers, squeeze-excitation among them;
    normalisation, biases, activations, pooling and enlarging do not count. All forms of a network
    cost the same: edges of a cell that change nothing are free. Both are exact int32, unless the
    space has networks of 2^31 or more, where they are float32. Raises ValueError for a space
    without networks.
    """
    dtype = jnp.int32 if _largest(space, image_shape, classes) < 2**31 else jnp.float32

    def of(archs: Array) -> tuple[Array, Array]:
        chex.assert_shape(archs, (None, len(space.cardinalities)))
        total = functools.partial(_total, space, image_shape, classes, dtype)
        return jax.vmap(total)(jnp.asarray(archs))

    return jax.jit(of)


def one_cost(
    space: base.Space, arch: Any, image_shape: tuple[int, int, int], classes: Outputs
) -> tuple[int, int]:
    """Exact parameters and multiply-adds of one architecture [T]; raises as `cost` does."""
    params, macs = _total(space, image_shape, classes, np.int64, np.asarray(arch))
    return int(params), int(macs)


def _total(
    space: base.Space, image_shape: tuple[int, int, int], classes: Outputs, dtype: Any, arch: Any
) -> tuple[Any, Any]:
    """Parameters and multiply-adds of `arch` [T], each [] of `dtype`; numpy in, numpy out."""
    spec = space.spec
    if isinstance(spec, cells.SPECS):
        fixed, ops = _cell(spec, image_shape, classes)
        xp = jnp if isinstance(arch, jax.Array) else np
        running = cells.switches(spec, arch).sum(0).astype(dtype)  # [4] edges with each operation
        found = (running[:, None] * xp.asarray(ops, dtype)).sum(0)
        params, macs = found + xp.asarray(fixed, dtype)
        return params, macs
    _check(space)
    layers = mobile_spaces.layers(spec, arch)
    sizes, (height, width) = _layer_sizes(spec, image_shape)
    strides, heights, widths = (np.asarray(of_slots, dtype) for of_slots in sizes)
    own_params, own_macs = _own(spec, layers.op, dtype, *sizes[1:])
    layers = LayerSpec(*(field.astype(dtype) for field in layers))
    params, macs = layer_cost(layers, strides, heights, widths)
    scores = _scores(layers.cin, strides, heights * widths, classes)
    params, macs = params + own_params + scores[0], macs + own_macs + scores[1]
    ends = _mobile_ends(spec, layers.cout[-1], image_shape, height * width, classes)
    return params.sum(dtype=dtype) + ends[0], macs.sum(dtype=dtype) + ends[1]


def layer_cost(v: LayerSpec, stride: Any, height: Any, width: Any) -> tuple[Any, Any]:
    """Parameters and multiply-adds of a layer on [height, width, cin]: numbers, or arrays [L].

    Nothing of layers of the user's own.
    """
    pixels, out = height * width, _half(height, stride) * _half(width, stride)
    expand = (v.op == MBCONV) * v.cin * v.middle
    weights = v.kernel**2 * v.middle + v.middle * v.cout  # `middle` is 0 where there is none
    weights = weights + (v.op == CONV) * v.kernel**2 * v.cin * v.cout
    gates = 2 * v.gated * v.se_hidden
    norms = ((v.op != PASS) & (v.op < OWN)) * v.cout + v.middle + (v.op == MBCONV) * v.middle
    biases = (v.se_hidden > 0) * (v.gated + v.se_hidden)
    return expand + weights + 2 * norms + gates + biases, expand * pixels + weights * out + gates


def _own(spec: Any, op: Any, dtype: Any, heights: list[int], widths: list[int]) -> tuple[Any, Any]:
    """Parameters and multiply-adds [L] of `dtype`, of layers of the user's own.

    0 where `op` [L] is another operation.
    """
    slots = [slot for stack in mobile_spaces.slots(spec) for slot in stack]
    codes = sorted({code for slot in slots for code in own.codes(slot)})
    found = np.zeros((2, len(slots), 1 + len(codes)), np.int64)
    for i, (slot, height, width) in enumerate(zip(slots, heights, widths, strict=True)):
        for code in own.codes(slot):
            found[:, i, codes.index(code)] = own.cost(code, height, width)
    is_code = op[:, None] == np.asarray([*codes, -1])
    return tuple((is_code * table.astype(dtype)).sum(-1) for table in found)


def _largest(space: base.Space, image_shape: tuple[int, int, int], classes: Outputs) -> int:
    """No network of the space has more parameters or multiply-adds."""
    spec = space.spec
    if isinstance(spec, cells.SPECS):
        fixed, ops = _cell(spec, image_shape, classes)
        edge = ops.sum(0) if isinstance(spec, cells.MIXED) else ops.max(0)
        return int((fixed + len(cells.edges_of(spec)) * edge).max())
    _check(space)
    slots = [slot for stack in mobile_spaces.slots(spec) for slot in stack]
    sizes, (height, width) = _layer_sizes(spec, image_shape)
    features = slots[-1].widest("cout")
    total = np.asarray(_mobile_ends(spec, features, image_shape, height * width, classes))
    for slot, *size in zip(slots, *sizes, strict=True):
        costs = [
            own.cost(choice.op, *size[1:]) if choice.op >= OWN else layer_cost(choice, *size)
            for choice in slot.choices
        ]
        stride, height, width = size
        scores = _scores(slot.widest("cin"), stride, height * width, classes)
        total += np.max(costs, axis=0) + scores
    return int(total.max())


def _check(space: base.Space) -> None:
    if type(space.spec) not in mobile_spaces.MODULES:
        raise ValueError(f"the space {space.name!r} has no networks")


def _half(size: Any, stride: Any) -> Any:
    return -(-size // stride)


def _layer_sizes(
    spec: Any, image_shape: tuple[int, int, int]
) -> tuple[tuple[list[int], list[int], list[int]], tuple[int, int]]:
    """(stride, height, width) of each slot's input, and the resolution behind them all."""
    strides = [slot.stride for stack in mobile_spaces.slots(spec) for slot in stack]
    sizes = _sizes(image_shape, (spec.stem_stride, *strides))
    heights, widths = zip(*sizes[:-1], strict=True)
    return (strides, list(heights), list(widths)), sizes[-1]


def _scores(channels: Any, stride: Any, pixels: Any, classes: Outputs) -> tuple[Any, Any]:
    """Of the scores of pixels by a layer's input, where that is the last of its resolution."""
    if not isinstance(classes, Dense):
        return 0 * channels, 0 * channels
    weights = (stride > 1) * channels * dense.count(classes)
    return weights, weights * pixels


def _mobile_ends(
    spec: Any, features: Any, image_shape: tuple[int, int, int], last: int, classes: Outputs
) -> tuple[Any, Any]:
    (stem_size,) = _sizes(image_shape, (spec.stem_stride,))
    shape = (*stem_size, image_shape[2])
    mix = mobile_spaces.mix(spec)
    return _ends(spec.stem, spec.head, features, shape, last, classes, mix)


def _ends(
    stem: int,
    head: int,
    features: Any,
    shape: tuple[int, int, int],
    last: int,
    classes: Outputs,
    mix: int = 0,
) -> tuple[Any, Any]:
    """Of stem, head and classifier, which reads the average of `last` pixels or each of them.

    `shape` is the stem's output; `mix` are the units of a linear layer before the classifier.
    """
    stem_weights = 9 * shape[2] * stem
    head_weights = features * head
    outputs = dense.count(classes)
    wide, read = head or features, last if isinstance(classes, Dense) else 1
    linear = wide * mix + (mix or wide) * outputs
    params = stem_weights + 2 * stem + head_weights + 2 * head + linear + mix + outputs
    return params, stem_weights * shape[0] * shape[1] + head_weights * last + linear * read


def _sizes(image_shape: tuple[int, int, int], strides: tuple[int, ...]) -> list[tuple[int, int]]:
    """Height and width behind each of `strides`."""
    sizes, (height, width, _) = [], image_shape
    for stride in strides:
        height, width = _half(height, stride), _half(width, stride)
        sizes.append((height, width))
    return sizes


def _cell(
    spec: Any, image_shape: tuple[int, int, int], classes: Outputs
) -> tuple[np.ndarray, np.ndarray]:
    """Fixed cost [2]; that of each operation [4, 2], the same on all edges."""
    sizes = _sizes(image_shape, (1, *(2,) * (spec.stages - 1)))
    widths = [spec.channels * 2**s for s in range(spec.stages)]
    last = sizes[-1][0] * sizes[-1][1]
    ends = _ends(spec.channels, 0, widths[-1], (*sizes[0], image_shape[2]), last, classes)
    fixed = np.array(ends, np.int64)
    fixed[0] += 2 * widths[-1]  # the last normalisation
    if isinstance(classes, Dense):
        for (height, width), c in zip(sizes[:-1], widths, strict=False):
            weights = c * dense.count(classes)
            fixed += [weights + 2 * c, weights * height * width]
    for (height, width), c in zip(sizes[1:], widths, strict=False):
        weights = 9 * c * 2 * c + 9 * (2 * c) ** 2 + c * 2 * c
        fixed += [weights + 2 * (2 * c + 2 * c), weights * height * width]
    edge = np.zeros((len(mixed_cell.OPS), 2), np.int64)
    for name, taps in (("nor_conv_1x1", 1), ("nor_conv_3x3", 9)):
        for (height, width), c in zip(sizes, widths, strict=True):
            weights = taps * c * c
            edge[mixed_cell.OPS.index(name)] += [weights + 2 * c, weights * height * width]
    return fixed, edge * spec.cells_per_stage
