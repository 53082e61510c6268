"""The layers of NAS-Bench-Macro (arXiv 2103.11922): a stack for each stage, chosen one by one.

An identity is a shortcut in the first layer of a stage and no layer elsewhere.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fnas_jax.layers import spec as specs
from fnas_jax.layers.spec import CONV, IDENTITY, MBCONV, NO_SKIP, NONE, RELU, LayerSpec, Slot
from fnas_jax.spaces.macro import CHOICES, MacroSpec

ACT = RELU


def slots(spec: MacroSpec) -> tuple[tuple[Slot, ...], ...]:
    """The slots of each stack, their choices in the order of the decision's."""
    widths = (spec.stem, *spec.channels)
    stacks = []
    for s, (depth, stride) in enumerate(zip(spec.stages, spec.strides, strict=True)):
        cin, cout = widths[s : s + 2]
        first = Slot(stride, tuple(_first(spec, k, cin, cout) for k in range(3)))
        rest = Slot(1, tuple(_other(spec, k, cout) for k in range(3)))
        stacks.append((first, *[rest] * (depth - 1)))
    return tuple(stacks)


def _first(spec: MacroSpec, choice: int, cin: int, cout: int) -> LayerSpec:
    """The first layer of a stage, which changes shapes, so that no residual is possible."""
    if choice == 0:
        return LayerSpec(CONV, 1, cin, 0, cout, 0, NO_SKIP, NONE)
    middle = spec.expansions[choice] * cin
    return LayerSpec(MBCONV, spec.kernels[choice], cin, middle, cout, 0, NO_SKIP, ACT)


def _other(spec: MacroSpec, choice: int, width: int) -> LayerSpec:
    if choice == 0:
        return specs.absent(width)
    return _first(spec, choice, width, width)._replace(skip=IDENTITY)


def reference(spec: MacroSpec) -> np.ndarray:
    """[T] int32: the widest layer everywhere."""
    return np.full(sum(spec.stages), CHOICES.index("mbconv_e6_k5"), np.int32)


def layers(spec: MacroSpec, arch: Any) -> LayerSpec:
    """[T] decisions -> the layers of all stacks, one behind the other: fields [L] int32.

    Numpy arrays make numpy arrays.
    """
    return specs.chosen(slots(spec), arch)
