"""Cost of children: exact parameters and multiply-adds by formula, latency by the clock."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from typing import Any

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from fnas_jax.core.types import Array
from fnas_jax.networks import layer_specs
from fnas_jax.networks.layer_specs import Layer
from fnas_jax.spaces import base, cell, macro, mnas

Cost = Callable[[Array], tuple[Array, Array]]
_WARM_UP = 3  # calls before the clock starts


def cost(space: base.Space, image_shape: tuple[int, int, int], classes: int) -> Cost:
    """A pure, jittable function archs [N, T] -> (params [N], multiply-adds of one image [N]).

    `image_shape` is (height, width, channels). Parameters are all that training changes.
    Multiply-adds are those of convolutions and linear layers, squeeze-excitation among them;
    normalisation, biases, activations and pooling do not count. Both are exact int32, unless the
    space has networks of 2^31 or more, where they are float32. Raises ValueError for a space
    without networks.
    """
    spec = space.spec
    if isinstance(spec, mnas.MnasSpec):
        fixed, table = _mnas(spec, image_shape, classes)
    elif isinstance(spec, macro.MacroSpec):
        fixed, table = _macro(spec, image_shape, classes)
    elif isinstance(spec, cell.CellSpec):
        fixed, table = _cell(spec, image_shape, classes)
    else:
        raise ValueError(f"the space {space.name!r} has no networks")
    # The last axis holds (params, multiply-adds); the first the blocks, whose costs are added.
    largest = fixed + table.reshape(len(table), -1, 2).max(1).sum(0)
    dtype = jnp.int32 if largest.max() < 2**31 else jnp.float32
    blocks = np.arange(len(table))

    def of(archs: Array) -> tuple[Array, Array]:
        chex.assert_shape(archs, (None, len(space.cardinalities)))
        index = _mnas_index(archs) if isinstance(spec, mnas.MnasSpec) else (archs,)
        total = jnp.asarray(table, dtype)[blocks, *index].sum(1) + jnp.asarray(fixed, dtype)
        return total[:, 0], total[:, 1]

    return of


def one_cost(
    space: base.Space, arch: Any, image_shape: tuple[int, int, int], classes: int
) -> tuple[int, int]:
    """Exact parameters and multiply-adds of one architecture [T], without `cost`'s preparation."""
    spec = space.spec
    if isinstance(spec, cell.CellSpec):
        total, edges = _cell(spec, image_shape, classes)
        total += edges[np.arange(len(cell.EDGES)), np.asarray(arch)].sum(0)
    elif isinstance(spec, mnas.MnasSpec | macro.MacroSpec):
        network = layer_specs.make(spec, arch)
        (stem_size,) = _sizes(image_shape, (network.stem_stride,))
        total, (height, width) = _stack(network.layers, stem_size)
        total += _ends(
            network.stem,
            network.head,
            network.layers[-1].cout,
            (*stem_size, image_shape[2]),
            height * width,
            classes,
        )
    else:
        raise ValueError(f"the space {space.name!r} has no networks")
    return int(total[0]), int(total[1])


def layer_cost(layer: Layer, height: int, width: int) -> tuple[int, int]:
    """Parameters and multiply-adds of one layer on [height, width, cin]."""
    v, pixels = layer, height * width
    out = _half(height, v.stride) * _half(width, v.stride)
    if v.op == "conv":
        weights = v.kernel**2 * v.cin * v.cout
        params, macs = weights + 2 * v.cout, weights * out
    elif v.op == "shortcut":
        weights = v.cin * v.cout
        params, macs = weights + 2 * v.cout, weights * out
    else:
        weights = v.kernel**2 * v.middle + v.middle * v.cout
        params, macs = weights + 2 * (v.middle + v.cout), weights * out
        if v.op == "mbconv":
            params += v.cin * v.middle + 2 * v.middle
            macs += v.cin * v.middle * pixels
    if v.se_hidden:
        gates = 2 * v.gated * v.se_hidden
        params, macs = params + gates + v.gated + v.se_hidden, macs + gates
    return params, macs


def _half(size: int, stride: int) -> int:
    return -(-size // stride)


def _ends(
    stem: int, head: int, features: int, shape: tuple[int, int, int], last: int, classes: int
) -> np.ndarray:
    """[2] of stem, head and classifier; `shape` is the stem's output, `last` the head's pixels."""
    stem_weights = 9 * shape[2] * stem
    head_weights = features * head
    linear = (head or features) * classes
    params = stem_weights + 2 * stem + head_weights + 2 * head + linear + classes
    return np.array([params, stem_weights * shape[0] * shape[1] + head_weights * last + linear])


def _sizes(image_shape: tuple[int, int, int], strides: tuple[int, ...]) -> list[tuple[int, int]]:
    """Height and width behind each of `strides`."""
    sizes, (height, width, _) = [], image_shape
    for stride in strides:
        height, width = _half(height, stride), _half(width, stride)
        sizes.append((height, width))
    return sizes


def _mnas_index(archs: Array) -> tuple[Array, ...]:
    """Indices, each [N, S], of `_mnas`'s table behind its first axis."""
    b = mnas.split(archs)
    before = jnp.concatenate([jnp.zeros_like(b.filters[:, :1]), b.filters[:, :-1]], axis=1)
    return before, b.op, b.expansion, b.kernel, b.se, b.filters, b.layers


def _mnas(
    spec: mnas.MnasSpec, image_shape: tuple[int, int, int], classes: int
) -> tuple[np.ndarray, np.ndarray]:
    """Fixed cost [2]; table [S, filters of the block before, the decisions but skip .., 2].

    The head and the classifier count to the last block, on whose filters they depend.
    """
    sizes = _sizes(image_shape, (spec.stem_stride, *spec.strides))
    fields = [range(n) for f, n in zip(mnas.FIELDS, mnas.COUNTS, strict=True) if f != "skip"]
    table = np.zeros((len(spec.strides), len(mnas.FILTERS), *map(len, fields), 2), np.int64)
    skip = mnas.FIELDS.index("skip")
    stem_shape = (*sizes[0], image_shape[2])
    for s in range(len(spec.strides)):
        for before in range(len(mnas.FILTERS)):
            cin = spec.channels[s - 1][before] if s else spec.stem
            for choice in itertools.product(*fields):
                row = [*choice[:skip], 0, *choice[skip:]]
                table[s, before][choice] = _stack(
                    layer_specs.mnas_block(spec, s, row, cin), sizes[s]
                )[0]
    height, width = sizes[-1]
    for filters, features in enumerate(spec.channels[-1]):
        ends = _ends(spec.stem, spec.head, features, stem_shape, height * width, classes)
        table[-1, ..., filters, :, :] += ends
    return np.zeros(2, np.int64), table


def _stack(layers: Sequence[Layer], size: tuple[int, int]) -> tuple[np.ndarray, tuple[int, int]]:
    """[2] of layers one behind the other, and the resolution behind them."""
    total = np.zeros(2, np.int64)
    for layer in layers:
        total += layer_cost(layer, *size)
        size = (_half(size[0], layer.stride), _half(size[1], layer.stride))
    return total, size


def _macro(
    spec: macro.MacroSpec, image_shape: tuple[int, int, int], classes: int
) -> tuple[np.ndarray, np.ndarray]:
    """Fixed cost [2]; table [8, 3, 2]."""
    sizes = _sizes(image_shape, (spec.stem_stride, *spec.strides))
    table = []
    for stage, depth in enumerate(spec.stages):
        for position in range(depth):
            size = sizes[stage + 1] if position else sizes[stage]
            layers = [
                layer_specs.macro_layer(spec, stage, position, c) for c in range(len(macro.CHOICES))
            ]
            table.append([layer_cost(layer, *size) if layer else (0, 0) for layer in layers])
    height, width = sizes[-1]
    stem_shape = (*sizes[0], image_shape[2])
    last = height * width
    fixed = _ends(spec.stem, spec.head, spec.channels[-1], stem_shape, last, classes)
    return fixed, np.array(table, np.int64)


def _cell(
    spec: cell.CellSpec, image_shape: tuple[int, int, int], classes: int
) -> tuple[np.ndarray, np.ndarray]:
    """Fixed cost [2]; table [6, 5, 2], the same for all edges."""
    sizes = _sizes(image_shape, (1, *(2,) * (spec.stages - 1)))
    widths = [spec.channels * 2**s for s in range(spec.stages)]
    fixed = _ends(spec.channels, 0, widths[-1], (*sizes[0], image_shape[2]), 0, classes)
    fixed[0] += 2 * widths[-1]  # the last normalisation
    for (height, width), c in zip(sizes[1:], widths, strict=False):
        weights = 9 * c * 2 * c + 9 * (2 * c) ** 2 + c * 2 * c
        fixed += [weights + 2 * (2 * c + 2 * c), weights * height * width]
    edge = np.zeros((len(cell.OPS), 2), np.int64)
    for name, taps in (("nor_conv_1x1", 1), ("nor_conv_3x3", 9)):
        for (height, width), c in zip(sizes, widths, strict=True):
            weights = taps * c * c
            edge[cell.OPS.index(name)] += [weights + 2 * c, weights * height * width]
    return fixed, np.broadcast_to(edge * spec.cells_per_stage, (len(cell.EDGES), *edge.shape))


def measure_latency_ms(
    module: nn.Module,
    variables: Any,
    image_shape: tuple[int, int, int],
    batch_size: int,
    repeats: int,
) -> float:
    """Median milliseconds of `repeats` inferences of a batch on JAX's default device.

    `variables` as `module.apply` takes them; `image_shape` is (height, width, channels).
    """
    infer = jax.jit(lambda variables, images: module.apply(variables, images, train=False))
    variables = jax.device_put(variables)
    images = jax.random.normal(jax.random.key(0), (batch_size, *image_shape))
    seconds = []
    for _ in range(_WARM_UP + repeats):
        start = time.perf_counter()
        jax.block_until_ready(infer(variables, images))
        seconds.append(time.perf_counter() - start)
    return float(np.median(seconds[_WARM_UP:])) * 1e3
