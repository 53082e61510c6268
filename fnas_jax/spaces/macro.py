"""The space of NAS-Bench-Macro (Su et al., CVPR 2021, arXiv 2103.11922).

Eight layers in stages of 2, 3 and 3; each is an identity or one of two inverted bottlenecks. The
first layer of a stage halves the resolution and doubles the channels, so its identity is really a
strided 1x1 convolution with batch normalisation and never without effect.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import chex
import jax.numpy as jnp
import numpy as np

from fnas_jax.core.types import Array, UserError
from fnas_jax.spaces import base
from fnas_jax.spaces.categorical import chain

LAYERS = 8
CARDINALITIES = (3,) * LAYERS
CHOICES = ("identity", "mbconv_e3_k3", "mbconv_e6_k5")
_FIRST = np.array([1, 0, 1, 0, 0, 1, 0, 0], bool)  # first layers of the stages


class MacroSpec(NamedTuple):
    """What the network of an architecture consists of, beside the eight decisions."""

    stages: tuple[int, ...] = (2, 3, 3)  # layers per stage
    strides: tuple[int, ...] = (2, 2, 2)  # of the first layer of each stage; the others have 1
    channels: tuple[int, ...] = (64, 128, 256)  # output of each stage
    stem: int = 32  # output channels of the 3x3 convolution in front
    stem_stride: int = 1
    head: int = 1280  # channels of the 1x1 convolution before pooling
    expansions: tuple[int, ...] = (0, 3, 6)  # by choice; 0: identity
    kernels: tuple[int, ...] = (0, 3, 5)  # by choice; 0: identity


def make(spec: MacroSpec | None = None) -> base.Space:
    """The space of 3^8 = 6,561 decision vectors, which are 3,969 different networks.

    The text form is the one of the published table: eight digits, e.g. "22212220". `spec` changes
    the network's widths and strides, not the decisions.
    """
    spec = MacroSpec() if spec is None else spec
    if spec.stages != (2, 3, 3):
        raise UserError(f"the macro space has stages of (2, 3, 3) layers, got {spec.stages}")
    return base.Space(
        name="macro",
        cardinalities=CARDINALITIES,
        names=tuple(f"stage{s}/layer{i}" for s, n in enumerate(spec.stages) for i in range(n)),
        sample=partial(base.sample_uniform, CARDINALITIES),
        validate=partial(base.in_range, CARDINALITIES),
        canonical=canonical,
        describe=partial(_describe, spec),
        parse=_parse,
        blocks=_blocks,
        graph=_graph,
        num_ops=2 + 2 * len(CHOICES),
        spec=spec,
        words=(CHOICES,) * sum(spec.stages),
    )


def canonical(archs: Array) -> Array:
    """[N, 8] -> [N, 8]: identities that do nothing stand at the end of their stage.

    Past the first layer of a stage an identity passes its input on, so only the order of the
    other layers counts. A stage has at most two such layers: if the earlier one is an identity,
    the later one takes its place.
    """
    chex.assert_shape(archs, (None, LAYERS))
    columns = [archs[:, t] for t in range(LAYERS)]
    for earlier, later in ((3, 4), (6, 7)):
        a, b = columns[earlier], columns[later]
        columns[earlier] = jnp.where(a == 0, b, a)
        columns[later] = jnp.where(a == 0, 0, b)
    return jnp.stack(columns, axis=1)


def _describe(spec: MacroSpec, arch: Any) -> dict[str, Any]:
    choices = [int(a) for a in np.asarray(arch)]
    ends = np.cumsum(spec.stages)
    layers = [CHOICES[c] for c in choices]
    return {
        "text": "".join(map(str, choices)),
        "stages": [layers[end - n : end] for end, n in zip(ends, spec.stages, strict=True)],
    }


def _parse(text: str) -> np.ndarray:
    if len(text) != LAYERS or any(c not in "012" for c in text):
        raise UserError(f"{text!r} is not a macro architecture: eight digits of 0, 1, 2")
    return np.array([int(c) for c in text], np.int32)


def _blocks(archs: Array) -> Array:
    """[N, 8, 4]: of the canonical form, is identity, is mbconv, expansion / 6, kernel / 5."""
    table = np.array([[1, 0, 0, 0], [0, 1, 3 / 6, 3 / 5], [0, 1, 1, 1]], np.float32)
    return jnp.asarray(table)[canonical(archs)]


def _graph(archs: Array) -> tuple[Array, Array]:
    """A chain of the canonical form; strided layers have operations 2..4, the others 5..7."""
    offset = np.where(_FIRST, 2, 2 + len(CHOICES)).astype(np.int32)
    return chain(canonical(archs) + offset)
