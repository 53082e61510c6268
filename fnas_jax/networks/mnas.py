"""The layers of the MNAS space: a stack of equal layers for each block."""

from __future__ import annotations

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fnas_jax.layers import spec as specs
from fnas_jax.layers.spec import CONV, MBCONV, NO_SKIP, RELU6, SEPCONV, SKIPS, LayerSpec, Slot
from fnas_jax.spaces import mnas
from fnas_jax.spaces.mnas import EXPANSIONS, KERNELS, MnasSpec

ACT = RELU6
_OPS = np.asarray([CONV, SEPCONV, MBCONV])  # of spaces.mnas.OPS; skips have the same codes


def slots(spec: MnasSpec) -> tuple[tuple[Slot, ...], ...]:
    """The slots of each stack: the first layer's, then those of the equal ones behind it."""
    widths = ((spec.stem,), *(tuple(sorted(set(c))) for c in spec.channels))
    skips = tuple(SKIPS)
    stacks = []
    for s, stride in enumerate(spec.strides):
        cin, cout = max(widths[s]), max(widths[s + 1])
        pairs = tuple(itertools.product(widths[s], widths[s + 1]))
        first = Slot(stride, _choices(cin, cout), pairs, skips)
        same = tuple((width, width) for width in widths[s + 1])
        rest = Slot(1, (*_choices(cout, cout), specs.absent(cout)), same, skips)
        stacks.append((first, *[rest] * (max(spec.depths[s]) - 1)))
    return tuple(stacks)


def _choices(cin: int, cout: int) -> tuple[LayerSpec, ...]:
    kinds = [(CONV, 0), (SEPCONV, cin), *((MBCONV, e * cin) for e in EXPANSIONS)]
    hidden = int(specs.se_hidden(np, cin))
    return tuple(
        LayerSpec(op, kernel, cin, middle, cout, hidden, NO_SKIP, ACT)
        for op, middle in kinds
        for kernel in KERNELS
    )


def reference(spec: MnasSpec) -> np.ndarray:
    """[T] int32: MobileNetV2 in this space: mbconv, expansion 6, kernel 3, identity, no SE."""
    block = (mnas.OPS.index("mbconv"), 1, 0, 0, mnas.SKIPS.index("identity"), 1, 1)
    return np.tile(np.asarray(block, np.int32), len(spec.strides))


def layers(spec: MnasSpec, arch: Any) -> LayerSpec:
    """[T] decisions -> the layers of all stacks, one behind the other: fields [L] int32.

    Numpy arrays make numpy arrays.
    """
    xp = jnp if isinstance(arch, jax.Array) else np
    most = [max(depths) for depths in spec.depths]
    stack = np.repeat(np.arange(len(most)), most)  # [L]
    position = np.concatenate([np.arange(depth) for depth in most])
    op, expansion, kernel, se, skip, filters, depth = arch.reshape(-1, len(mnas.FIELDS))[stack].T
    cout = xp.asarray(spec.channels)[stack, filters]
    return specs.layer(
        xp,
        op=xp.asarray(_OPS)[op],
        kernel=xp.asarray(KERNELS)[kernel],
        # A layer that is not there has its stack's width, too.
        cin=xp.concatenate([xp.asarray([spec.stem]), cout[:-1]]),
        cout=cout,
        expansion=xp.asarray(EXPANSIONS)[expansion],
        se=se == 1,
        skip=skip,
        act=ACT,
        stride=np.where(position == 0, np.asarray(spec.strides)[stack], 1),
        exists=position < xp.asarray(spec.depths)[stack, depth],
    )
