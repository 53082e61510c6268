"""The layers of the MobileNetV3 space: its first layer, then a stack for each stage."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fnas_jax.layers import spec as specs
from fnas_jax.layers.spec import (
    HARD_GATE,
    HARD_SWISH,
    IDENTITY,
    MBCONV,
    NO_SKIP,
    RELU,
    SEPCONV,
    LayerSpec,
    Slot,
)
from fnas_jax.spaces import mobilenetv3
from fnas_jax.spaces.mnas import round_channels
from fnas_jax.spaces.mobilenetv3 import EXPANSIONS, KERNELS, MOST, MobileNetV3Spec

ACT = HARD_SWISH
# Of the first layer, then of the stages (arXiv 1905.02244, table 1)
_ACTS = (RELU, RELU, RELU, HARD_SWISH, HARD_SWISH, HARD_SWISH)
_SE = (False, False, True, False, True, True)
_SE_FRACTION = 4  # hidden units of squeeze-excitation: channels that it weighs / 4


@functools.lru_cache(maxsize=64)
def slots(spec: MobileNetV3Spec) -> tuple[tuple[Slot, ...], ...]:
    """The slots of each stack; the choices are those of `spaces.mobilenetv3.kinds`, in order."""
    width = spec.channels[0]
    skip = IDENTITY if spec.stem == width else NO_SKIP
    row = LayerSpec(SEPCONV, 3, spec.stem, spec.stem, width, 0, skip, _ACTS[0])
    stacks: list[tuple[Slot, ...]] = [(Slot(spec.strides[0], (row,)),)]
    for s in range(1, len(spec.channels)):
        cin, cout = spec.channels[s - 1 : s + 1]
        places = [(spec.strides[s], cin), *[(1, cout)] * (MOST - 1)]
        stacks.append(
            tuple(
                Slot(stride, _choices(s, stride, width, cout, i > 0))
                for i, (stride, width) in enumerate(places)
            )
        )
    return tuple(stacks)


def _choices(s: int, stride: int, cin: int, cout: int, optional: bool) -> tuple[LayerSpec, ...]:
    found = [
        layer(s, stride, kernel, cin, expansion * cin, cout)
        for kernel in KERNELS
        for expansion in EXPANSIONS
    ]
    return (*found, specs.absent(cout)) if optional else tuple(found)


def layer(s: int, stride: int, kernel: int, cin: int, middle: int, cout: int) -> LayerSpec:
    """A layer of stage `s`, counted from 1, with `middle` channels in its depthwise convolution."""
    hidden = round_channels(middle / _SE_FRACTION) if _SE[s] else 0
    skip = IDENTITY if stride == 1 and cin == cout else NO_SKIP
    act = _ACTS[s] + HARD_GATE * _SE[s]
    return LayerSpec(MBCONV, kernel, cin, middle, cout, hidden, skip, act)


def reference(spec: MobileNetV3Spec) -> np.ndarray:
    """[T] int32: MobileNetV3-Large, whose expansions of 2.3 and 2.5 are 3 here."""
    stages = (
        ((3, 4), (3, 3)),
        ((5, 3), (5, 3), (5, 3)),
        ((3, 6), (3, 3), (3, 3), (3, 3)),
        ((3, 6), (3, 6)),
        ((5, 6), (5, 6), (5, 6)),
    )
    words = ["-".join(f"k{k}e{e}" for k, e in stage) for stage in stages[: len(spec.channels) - 1]]
    return mobilenetv3.parse(spec, " ".join(words))


def layers(spec: MobileNetV3Spec, arch: Any) -> LayerSpec:
    """[T] decisions -> the layers of all stacks, one behind the other: fields [L] int32.

    Numpy arrays make numpy arrays.
    """
    xp = jnp if isinstance(arch, jax.Array) else np
    return specs.chosen(slots(spec), xp.concatenate([np.zeros(1, int), mobilenetv3.kinds(arch)]))
