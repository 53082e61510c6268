"""The layers of one architecture of a stacked space (MNAS, Macro), as plain Python numbers.

`children.mnas` decides the same things inside one compiled network; the plain networks, their
costs and the extraction of weights start from this list.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from fnas_jax.layers.reference import SE_FRACTION
from fnas_jax.spaces import base, cell, macro, mnas


class Layer(NamedTuple):
    """One layer as `children.blocks` defines it."""

    stack: int  # which stack of the elastic network, counted from 0
    position: int  # which layer of that stack; positions without a layer are left out
    op: str  # "conv" | "sepconv" | "mbconv" | "shortcut"
    kernel: int  # 1 for a shortcut
    expansion: int  # 1 unless mbconv
    stride: int
    cin: int
    cout: int
    se_hidden: int  # hidden units of squeeze-excitation; 0: none
    skip: str  # what is added to the result: "pool" | "identity" | "none"

    @property
    def middle(self) -> int:
        """Channels of the depthwise convolution."""
        return self.expansion * self.cin

    @property
    def gated(self) -> int:
        """Channels that squeeze-excitation scales."""
        return self.cout if self.op == "conv" else self.middle


class Plan(NamedTuple):
    """A whole network of stacked layers."""

    stem: int  # channels
    stem_stride: int
    head: int  # channels; 0: no head
    act: str  # "relu6" | "relu"
    layers: tuple[Layer, ...]

    @property
    def features(self) -> int:
        """Channels that the classifier reads."""
        return self.head or self.layers[-1].cout


def make(spec: mnas.MnasSpec | macro.MacroSpec, arch: Any) -> Plan:
    """The network of `arch` [T]."""
    if isinstance(spec, macro.MacroSpec):
        return Plan(spec.stem, spec.stem_stride, spec.head, "relu", _macro(spec, arch))
    rows = np.asarray(arch).reshape(-1, len(mnas.FIELDS)).tolist()
    layers: list[Layer] = []
    for s, row in enumerate(rows):
        layers += mnas_block(spec, s, row, layers[-1].cout if s else spec.stem)
    return Plan(spec.stem, spec.stem_stride, spec.head, "relu6", tuple(layers))


def mnas_block(spec: mnas.MnasSpec, s: int, row: Sequence[int], cin: int) -> list[Layer]:
    """The layers of block `s` with decisions `row` [7], in the order of `mnas.FIELDS`."""
    op, expansion, kernel = mnas.OPS[row[0]], mnas.EXPANSIONS[row[1]], mnas.KERNELS[row[2]]
    se, skip = mnas.SE_RATIOS[row[3]], mnas.SKIPS[row[4]]
    cout, layers = spec.channels[s][row[5]], []
    for position in range(spec.depths[s][row[6]]):
        stride = 1 if position else spec.strides[s]
        adds = skip != "identity" or (stride == 1 and cin == cout)
        layers.append(
            Layer(
                stack=s,
                position=position,
                op=op,
                kernel=kernel,
                expansion=expansion if op == "mbconv" else 1,
                stride=stride,
                cin=cin,
                cout=cout,
                se_hidden=max(1, cin // SE_FRACTION) if se else 0,
                skip=skip if adds else "none",
            )
        )
        cin = cout
    return layers


def macro_layer(spec: macro.MacroSpec, stage: int, position: int, choice: int) -> Layer | None:
    """The layer of this choice; None for an identity that passes its input on."""
    first = position == 0
    cout = spec.channels[stage]
    if not first and choice == 0:
        return None
    return Layer(
        stack=stage,
        position=position,
        op="mbconv" if choice else "shortcut",
        kernel=spec.kernels[choice] if choice else 1,
        expansion=spec.expansions[choice] if choice else 1,
        stride=spec.strides[stage] if first else 1,
        cin=(spec.stem, *spec.channels)[stage] if first else cout,
        cout=cout,
        se_hidden=0,
        skip="none" if first else "identity",
    )


def _macro(spec: macro.MacroSpec, arch: Any) -> tuple[Layer, ...]:
    places = [(stage, i) for stage, depth in enumerate(spec.stages) for i in range(depth)]
    layers = [
        macro_layer(spec, *place, int(choice))
        for place, choice in zip(places, np.asarray(arch), strict=True)
    ]
    return tuple(layer for layer in layers if layer is not None)


def widen(space: base.Space, width: float) -> base.Space:
    """The space with all channel numbers multiplied by `width` and rounded to multiples of 8.

    Decisions keep their meaning; 1.0 changes nothing. Raises ValueError for a space without
    networks.
    """
    if width == 1.0:
        return space

    def wide(value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(wide(v) for v in value)
        return mnas.round_channels(value * width) if value else 0

    spec = space.spec
    if isinstance(spec, mnas.MnasSpec | macro.MacroSpec):
        stem, head, channels = wide(spec.stem), wide(spec.head), wide(spec.channels)
        return space._replace(spec=spec._replace(stem=stem, head=head, channels=channels))
    if isinstance(spec, cell.CellSpec):
        return space._replace(spec=spec._replace(channels=wide(spec.channels)))
    raise ValueError(f"the space {space.name!r} has no networks")
