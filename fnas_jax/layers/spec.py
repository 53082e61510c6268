"""What a layer of a mobile network is: one record for all that computes, counts or cuts layers.

conv:    kxk - norm - act - (SE)
sepconv: depthwise kxk - norm - act - (SE) - 1x1 - norm
mbconv:  1x1 to `middle` - norm - act - depthwise kxk - norm - act - (SE) - 1x1 - norm
own:     a Flax module of the user's (`layers.own`)
and to each, `skip` of its input is added. A shortcut, what NAS-Bench-Macro calls identity where
shapes change, is a 1x1 convolution without activation.

MobileNetV2, arXiv 1801.04381; squeeze-excitation with a quarter of the layer's input channels,
as MnasNet, or of those that it weighs, as MobileNetV3 (arXiv 1905.02244). MnasNet names its skip
operations without defining them for every shape (ours): "identity" adds the input where shapes
agree and nothing elsewhere, "pool" adds the 3x3 average of the input at the layer's stride, with
channels cut or filled with zeros.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

# The codes of csrc/layer.h.
PASS, CONV, SEPCONV, MBCONV = range(4)  # op; PASS: no layer, the input goes on
OWN = 4  # and above: layers of the user's own (`layers.own`), which the kernels do not know
POOL, IDENTITY, NO_SKIP = range(3)  # skip
NONE, RELU, RELU6, HARD_SWISH = range(4)  # act
HARD_GATE = 4  # added to act: squeeze-excitation weighs by hard sigmoids, as MobileNetV3
# Their names, for people, programs and spaces of the user's own
OPS = {CONV: "conv", SEPCONV: "sepconv", MBCONV: "mbconv"}
SKIPS = {POOL: "pool", IDENTITY: "identity", NO_SKIP: "none"}
ACTS = {NONE: "none", RELU: "relu", RELU6: "relu6", HARD_SWISH: "hard_swish"}
GATES = {0: "sigmoid", 1: "hard_sigmoid"}
SE_FRACTION = 4  # hidden units of squeeze-excitation: input channels / 4
NORMS = ("norm_expand", "norm_depthwise", "norm_out")  # the normalisations of a layer, in order


class LayerSpec(NamedTuple):
    """One layer as Python ints, as traced int32 [], or many layers as arrays [L].

    It is the row that the kernel reads. Numbers without effect have one value each, so that equal
    records are equal layers.
    """

    op: Any
    kernel: Any  # side of the convolution, odd; 1 for PASS
    cin: Any  # input channels
    middle: Any  # channels of the depthwise convolution; 0 where there is none
    cout: Any  # output channels
    se_hidden: Any  # hidden units of squeeze-excitation; 0: none
    skip: Any  # IDENTITY only where shapes agree
    act: Any  # perhaps with HARD_GATE, where there is squeeze-excitation

    @property
    def gated(self) -> Any:
        """Channels that squeeze-excitation scales."""
        return (self.op == CONV) * self.cout + self.middle

    @property
    def activation(self) -> Any:
        """The activation alone."""
        return self.act % HARD_GATE

    @property
    def hard_gate(self) -> Any:
        """1 where squeeze-excitation weighs by hard sigmoids; else 0."""
        return self.act // HARD_GATE


class Slot(NamedTuple):
    """A place of an elastic network: what its code is compiled for."""

    stride: int
    choices: tuple[LayerSpec, ...]  # what may occur, Python ints, each as wide as it can be
    # (input, output) channels that may occur together; none: those of the choices only
    widths: tuple[tuple[int, int], ...] = ()
    skips: tuple[int, ...] = ()  # that may occur beside those of the choices

    def widest(self, field: str) -> int:
        """The largest number of this field of `LayerSpec`."""
        return max(getattr(choice, field) for choice in self.choices)

    @property
    def ops(self) -> set[int]:
        """The operations that may occur."""
        return {choice.op for choice in self.choices}


def layer(
    xp: Any,
    *,
    op: Any,
    kernel: Any,
    cin: Any,
    cout: Any,
    expansion: Any,
    se: Any,
    skip: Any,
    act: Any,
    stride: Any,
    exists: Any = True,
) -> LayerSpec:
    """The record of what a space decides, by the arrays' module `xp` (numpy or jax.numpy).

    `expansion` counts for mbconv only, `se` is whether there is squeeze-excitation; an identity
    that does not fit is no skip, and where not `exists`, `cout` channels pass.
    """
    misfit = (stride != 1) | (cin != cout)
    widths = xp.where(op == MBCONV, expansion, op == SEPCONV)
    found = LayerSpec(
        op=op,
        kernel=kernel,
        cin=cin,
        middle=widths * cin,
        cout=cout,
        se_hidden=xp.where(se, se_hidden(xp, cin), 0),
        skip=xp.where((skip == IDENTITY) & misfit, NO_SKIP, skip),
        act=act,
    )
    return LayerSpec(
        *(xp.where(exists, a, b) for a, b in zip(found, absent(cout), strict=True)),
    )


def chosen(slots: Sequence[Sequence[Slot]], choices: Any) -> LayerSpec:
    """The layers of all slots of some stacks, of which each is one of the slot's choices.

    `choices` [L] int32 -> fields [L] int32. Numpy arrays make numpy arrays.
    """
    xp = jnp if isinstance(choices, jax.Array) else np
    rows = [slot.choices for stack in slots for slot in stack]
    most = max(map(len, rows))
    # [L, choices, fields]; those with fewer choices repeat the last, which nobody asks for.
    table = np.asarray([[*row, *row[-1:] * (most - len(row))] for row in rows], np.int32)
    return LayerSpec(*xp.asarray(table)[np.arange(len(table)), choices].T)


def absent(channels: Any) -> LayerSpec:
    """No layer: `channels` pass."""
    return LayerSpec(PASS, 1, channels, 0, channels, 0, NO_SKIP, NONE)


def se_hidden(xp: Any, cin: Any) -> Any:
    """Hidden units of squeeze-excitation for a layer of `cin` input channels."""
    return xp.maximum(1, cin // SE_FRACTION)
