"""The layers of spaces of the user's own (`spaces.layered`): a stack for each stage."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from fnas_jax.layers import own
from fnas_jax.layers import spec as specs
from fnas_jax.layers.own import Layer
from fnas_jax.layers.spec import ACTS, IDENTITY, NO_SKIP, OPS, RELU, SKIPS, LayerSpec, Slot
from fnas_jax.spaces.layered import Choice, LayeredSpec, places

ACT = RELU
_OPS, _ACTS, _SKIPS = ({name: code for code, name in names.items()} for names in (OPS, ACTS, SKIPS))


@functools.lru_cache(maxsize=64)
def slots(spec: LayeredSpec) -> tuple[tuple[Slot, ...], ...]:
    """The slots of each stage, their choices in the order of the decision's.

    Raises UserError for a layer of the user's own that cannot be made.
    """
    return tuple(
        tuple(
            Slot(stride, tuple(_row(cin, cout, stride, choice) for choice in choices))
            for cin, cout, stride, choices in of_stage
        )
        for of_stage in places(spec)
    )


def _row(cin: int, cout: int, stride: int, choice: Choice) -> LayerSpec:
    if choice.op == "none":
        return specs.absent(cout)
    skip = _SKIPS[choice.skip]
    if skip == IDENTITY and (stride != 1 or cin != cout):
        skip = NO_SKIP
    if choice.op == "own":
        made = Layer(choice.module, choice.options, choice.text, stride, cin, cout)
        return own.row(own.register(made), skip)
    row = specs.layer(
        np,
        op=_OPS[choice.op],
        kernel=choice.kernel,
        cin=cin,
        cout=cout,
        expansion=choice.expansion,
        se=choice.se,
        skip=skip,
        act=_ACTS[choice.act],
        stride=stride,
    )
    return LayerSpec(*map(int, row))


def reference(spec: LayeredSpec) -> np.ndarray:
    """[T] int32: the first choice everywhere."""
    return np.zeros(sum(map(len, slots(spec))), np.int32)


def layers(spec: LayeredSpec, arch: Any) -> LayerSpec:
    """[T] decisions -> the layers of all stacks, one behind the other: fields [L] int32.

    Numpy arrays make numpy arrays.
    """
    return specs.chosen(slots(spec), arch)
