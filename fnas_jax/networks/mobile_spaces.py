"""Spaces whose networks are a stem, stacks of mobile layers and a head.

A space has a module with four names: `slots(spec)`, what its network is compiled for;
`layers(spec, arch)`, what a child's layers are; `ACT`, the activation of stem and head; and
`reference(spec)`, the architecture that winners are compared with.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np

from fnas_jax.layers.spec import PASS, LayerSpec, Slot
from fnas_jax.networks import layered, macro, mnas, mobilenetv3
from fnas_jax.spaces.layered import LayeredSpec
from fnas_jax.spaces.macro import MacroSpec
from fnas_jax.spaces.mnas import MnasSpec
from fnas_jax.spaces.mobilenetv3 import MobileNetV3Spec

MODULES: dict[type, ModuleType] = {
    MnasSpec: mnas,
    MacroSpec: macro,
    LayeredSpec: layered,
    MobileNetV3Spec: mobilenetv3,
}
BY_LAYER = (MacroSpec, LayeredSpec, MobileNetV3Spec)  # spaces whose blocks are layers


def slots(spec: Any) -> tuple[tuple[Slot, ...], ...]:
    """The slots of each stack: the first layer's, then those of the equal ones behind it."""
    return MODULES[type(spec)].slots(spec)


def layers(spec: Any, arch: Any) -> LayerSpec:
    """Decisions [T] -> the layers of all slots, one behind the other: fields [L] int32.

    Numpy arrays make numpy arrays.
    """
    return MODULES[type(spec)].layers(spec, arch)


def act(spec: Any) -> int:
    """The activation of stem and head."""
    return MODULES[type(spec)].ACT


def mix(spec: Any) -> int:
    """Units of the linear layer between average and classifier; 0: none."""
    return getattr(spec, "mix", 0)


def reference(spec: Any) -> np.ndarray:
    """[T] int32: the space's own standard."""
    return MODULES[type(spec)].reference(spec)


def layers_of(spec: Any, arch: Any) -> tuple[tuple[int, int, int, LayerSpec], ...]:
    """The layers that one architecture [T] has: (stack, position in it, stride, Python ints)."""
    places = [(s, i, slot.stride) for s, st in enumerate(slots(spec)) for i, slot in enumerate(st)]
    rows = np.stack(np.broadcast_arrays(*layers(spec, np.asarray(arch))), axis=-1).tolist()
    found = [(*place, LayerSpec(*row)) for place, row in zip(places, rows, strict=True)]
    return tuple(layer for layer in found if layer[-1].op != PASS)
