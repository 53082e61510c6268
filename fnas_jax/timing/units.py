"""The operations that networks consist of, as a table of latencies has rows for them.

An operation is what compilers run as one step: a convolution with the normalisation and activation
behind it, a squeeze-excitation, a sum. Layers (`layers.spec`) are several of them: a table by whole
layers would have a row for each combination of expansion, kernel, squeeze-excitation and skip.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from fnas_jax.core.types import UserError
from fnas_jax.layers import own
from fnas_jax.layers.spec import (
    ACTS,
    CONV,
    IDENTITY,
    MBCONV,
    NONE,
    OWN,
    POOL,
    RELU,
    SEPCONV,
    LayerSpec,
)
from fnas_jax.networks import mobile_spaces
from fnas_jax.networks.dense import Dense, Outputs
from fnas_jax.spaces import cells
from fnas_jax.spaces.base import Space


class Unit(NamedTuple):
    """An operation at the size at which it occurs: all that its time depends on.

    Numbers without effect have one value each, so that equal records are equal operations.
    """

    kind: str  # a name in `operations.OPERATIONS`
    height: int  # of its input
    width: int
    cin: int
    cout: int  # channels of its output; of a squeeze-excitation ("gate"), its hidden units
    kernel: int = 1
    stride: int = 1
    act: int = NONE

    @property
    def key(self) -> str:
        """Its name in a table, e.g. "conv 3x3/2 8x8x16-24 relu6"; different for different units."""
        size = f"{self.kernel}x{self.kernel}/{self.stride}"
        shape = f"{self.height}x{self.width}x{self.cin}-{self.cout}"
        act = "" if self.act == NONE else f" {ACTS[self.act]}"
        return f"{self.kind} {size} {shape}{act}"

    @property
    def family(self) -> str:
        """Operations that compilers treat alike: the kind, and 1x1 convolutions apart."""
        return "pointwise" if self.kind == "conv" and self.kernel == 1 else self.kind


class Place(NamedTuple):
    """Where a layer stands: of the layer's input."""

    stride: int
    height: int
    width: int

    @property
    def after(self) -> tuple[int, int]:
        """Height and width of the layer's output."""
        return half(self.height, self.stride), half(self.width, self.stride)


IN, STRIDED, OUT = range(3)  # an operation sees the layer's input (at its stride) or its output


class Part(NamedTuple):
    """The operations of one kind in layers: numbers, or arrays [L] for L layers."""

    kind: str
    where: int
    present: Any  # bool: whether the layer has it
    cin: Any
    cout: Any
    kernel: Any = 1
    act: Any = NONE


def parts_of(v: LayerSpec) -> tuple[Part, ...]:
    """What layers consist of: at most one operation of each part."""
    deep = (v.op == SEPCONV) | (v.op == MBCONV)
    return (
        Part("conv", STRIDED, v.op == CONV, v.cin, v.cout, v.kernel, v.activation),
        Part("conv", IN, v.op == MBCONV, v.cin, v.middle, 1, v.activation),
        Part("depthwise", STRIDED, deep, v.middle, v.middle, v.kernel, v.activation),
        Part("gate", OUT, v.se_hidden > 0, v.gated, v.se_hidden),
        Part("conv", OUT, deep, v.middle, v.cout),
        Part("pool", STRIDED, v.skip == POOL, v.cin, v.cout, 3),
        Part("add", OUT, v.skip == IDENTITY, v.cout, v.cout),
    )


def unit_of(part: Part, place: Place) -> Unit:
    """The operation of a part whose fields are numbers."""
    height, width = place.after if part.where == OUT else (place.height, place.width)
    stride = place.stride if part.where == STRIDED else 1
    shape = (height, width, int(part.cin), int(part.cout))
    return Unit(part.kind, *shape, int(part.kernel), stride, int(part.act))


def half(size: int, stride: int) -> int:
    """Pixels behind a stride, 'SAME' padding."""
    return -(-size // stride)


def of_network(
    space: Space, arch: Any, image_shape: tuple[int, int, int], classes: int
) -> list[Unit]:
    """The operations of one network `arch` [T], in order.

    `image_shape` is (height, width, channels). Raises ValueError for a space without networks.
    """
    if type(space.spec) in mobile_spaces.MODULES:
        refuse_own(space)
        return list(_mobile(space.spec, arch, image_shape, classes))
    if isinstance(space.spec, cells.SPECS):
        return list(_cells(space.spec, arch, image_shape, classes))
    raise ValueError(f"the space {space.name!r} has no networks")


def refuse_own(space: Space) -> None:
    """Raises UserError for a space with layers of the user's own: their operations are unknown."""
    ops = [op for stack in mobile_spaces.slots(space.spec) for slot in stack for op in slot.ops]
    if max(ops) >= OWN:
        raise UserError(
            f"the space {space.name!r} has the layer {own.of(max(ops)).module} of your own, which a"
            " table of latencies has no row for; latency.source=device times whole networks"
        )


def of_images(outputs: Outputs) -> int:
    """How many numbers a network gives of an image. Raises UserError where they are of pixels."""
    if isinstance(outputs, Dense):
        raise UserError(
            "a table of latencies has no row for answers of every pixel; latency.source=device"
            " times whole networks"
        )
    return outputs


def _mobile(
    spec: Any, arch: Any, image_shape: tuple[int, int, int], classes: int
) -> Iterator[Unit]:
    stem = stem_of(spec, image_shape)
    yield stem
    height, width, features = half(stem.height, stem.stride), half(stem.width, stem.stride), 0
    for _, _, stride, layer in mobile_spaces.layers_of(spec, arch):
        place = Place(stride, height, width)
        yield from (unit_of(part, place) for part in parts_of(layer) if part.present)
        (height, width), features = place.after, layer.cout
    yield from ends_of(spec, (height, width), features, classes)


def stem_of(spec: Any, image_shape: tuple[int, int, int]) -> Unit:
    """The first convolution of a mobile network."""
    act = mobile_spaces.act(spec)
    return Unit("conv", *image_shape, spec.stem, 3, spec.stem_stride, act)


def ends_of(spec: Any, size: tuple[int, int], features: int, classes: int) -> Iterator[Unit]:
    """Head and classifier of a mobile network, behind `features` channels of this size."""
    mix = mobile_spaces.mix(spec)
    if spec.head:
        yield Unit("conv", *size, features, spec.head, act=mobile_spaces.act(spec))
    if mix:
        yield Unit("classifier", *size, spec.head or features, mix)
        size = (1, 1)
    yield Unit("classifier", *size, mix or spec.head or features, classes)


def _cells(spec: Any, arch: Any, image_shape: tuple[int, int, int], classes: int) -> Iterator[Unit]:
    height, width, channels = image_shape
    yield Unit("conv", height, width, channels, spec.channels, 3)
    for stage in range(spec.stages):
        if stage:
            before = Unit("reduction", height, width, spec.channels * 2 ** (stage - 1), 0)
            yield before._replace(cout=2 * before.cin, kernel=3, stride=2)
            height, width = half(height, 2), half(width, 2)
        for _ in range(spec.cells_per_stage):
            yield from cell_units(spec, arch, (height, width, spec.channels * 2**stage))
    yield from cell_ends(spec, (height, width), classes)


def cell_units(spec: Any, arch: Any, shape: tuple[int, int, int]) -> Iterator[Unit]:
    """The operations of a cell [H, W, C], those that matter."""
    channels = shape[2]
    for op in (one.op for one in cells.running(spec, arch)):
        if op == "avg_pool_3x3":
            yield Unit("average", *shape, channels, 3)
        elif op.startswith("nor_conv"):
            yield Unit("edge", *shape, channels, int(op[-1]))
    for _ in range(cells.added(spec, cells.switches(spec, np.asarray(arch)))):
        yield Unit("add", *shape, channels)


def cell_ends(spec: Any, size: tuple[int, int], classes: int) -> Iterator[Unit]:
    """What stands behind the last cell."""
    channels = spec.channels * 2 ** (spec.stages - 1)
    yield Unit("norm", *size, channels, channels, act=RELU)
    yield Unit("classifier", *size, channels, classes)
