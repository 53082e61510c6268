"""The block space of MnasNet (Tan et al., CVPR 2019, arXiv 1807.11626, section 4.1).

Seven blocks, each a stack of equal layers. Per block: operation, expansion ratio, kernel size,
squeeze-excitation ratio, skip operation, filters relative to MobileNetV2 and number of layers
relative to MobileNetV2. For small images the number of blocks, the width, the strides, the stem
and the head are options.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import chex
import jax.numpy as jnp
import numpy as np

from fnas_jax.core.types import Array, UserError
from fnas_jax.spaces import base

OPS = ("conv", "sepconv", "mbconv")
EXPANSIONS = (3, 6)
KERNELS = (3, 5)
SE_RATIOS = (0.0, 0.25)
SKIPS = ("pool", "identity", "none")
FILTERS = (0.75, 1.0, 1.25)
LAYERS = (-1, 0, 1)
FIELDS = ("op", "expansion", "kernel", "se", "skip", "filters", "layers")
CHOICES = (OPS, EXPANSIONS, KERNELS, SE_RATIOS, SKIPS, FILTERS, LAYERS)
COUNTS = tuple(len(c) for c in CHOICES)

# MobileNetV2 (arXiv 1801.04381, table 2): filters, layers and stride of its seven stages.
MOBILENET_V2 = (
    (16, 1, 1),
    (24, 2, 2),
    (32, 3, 2),
    (64, 4, 2),
    (96, 3, 1),
    (160, 3, 2),
    (320, 1, 1),
)


class MnasSpec(NamedTuple):
    """The fixed part of the network; entries of tuples are per block."""

    stem: int  # filters of the 3x3 stem
    stem_stride: int
    head: int  # filters of the 1x1 head; 0: no head
    strides: tuple[int, ...]
    channels: tuple[tuple[int, ...], ...]  # filters for each choice of "filters"
    depths: tuple[tuple[int, ...], ...]  # layers for each choice of "layers"


def round_channels(value: float, divisor: int = 8) -> int:
    """The nearest multiple of `divisor`, at most 10% below `value` (as MobileNets round)."""
    rounded = max(divisor, int(value + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * value else rounded


def make(
    blocks: int = 7,
    width: float = 1.0,
    strides: tuple[int, ...] = (),
    stem: int = 32,
    stem_stride: int = 2,
    head: int = 1280,
) -> base.Space:
    """The space with the first `blocks` blocks; `strides` replaces MobileNetV2's.

    Raises UserError where `blocks` is not 1..7 or `strides` has another length.
    """
    if not 1 <= blocks <= len(MOBILENET_V2):
        raise UserError(f"space.blocks is {blocks}; allowed are 1 to {len(MOBILENET_V2)}")
    strides = tuple(strides) or tuple(s for _, _, s in MOBILENET_V2[:blocks])
    if len(strides) != blocks or any(s not in (1, 2) for s in strides):
        raise UserError(f"space.strides is {strides}; it needs {blocks} entries, each 1 or 2")
    spec = MnasSpec(
        stem=round_channels(stem * width),
        stem_stride=stem_stride,
        head=round_channels(head * width) if head else 0,
        strides=strides,
        channels=tuple(
            tuple(round_channels(c * width * f) for f in FILTERS)
            for c, _, _ in MOBILENET_V2[:blocks]
        ),
        depths=tuple(tuple(max(1, n + d) for d in LAYERS) for _, n, _ in MOBILENET_V2[:blocks]),
    )
    cardinalities = COUNTS * blocks
    return base.Space(
        name="mnas",
        cardinalities=cardinalities,
        names=tuple(f"block{s}/{f}" for s in range(blocks) for f in FIELDS),
        sample=partial(base.sample_uniform, cardinalities),
        validate=partial(base.in_range, cardinalities),
        canonical=partial(canonical, spec),
        describe=partial(describe, spec),
        parse=partial(parse, spec),
        blocks=partial(descriptors, spec),
        graph=partial(graph, spec),
        num_ops=2 + int(np.prod(COUNTS)),
        spec=spec,
        words=tuple(tuple(map(str, values)) for values in CHOICES) * blocks,
    )


class Blocks(NamedTuple):
    """The decisions of a batch by meaning; every field [N, S] int32."""

    op: Array
    expansion: Array
    kernel: Array
    se: Array
    skip: Array
    filters: Array
    layers: Array


def split(archs: Array) -> Blocks:
    """[N, 7 S] int32 -> the decisions by field, as indices into this module's choices."""
    chex.assert_rank(archs, 2)
    by_block = archs.reshape(archs.shape[0], -1, len(FIELDS))
    return Blocks(*(by_block[:, :, i] for i in range(len(FIELDS))))


def channels_of(spec: MnasSpec, blocks: Blocks) -> tuple[Array, Array, Array]:
    """Input channels, output channels and number of layers of each block, each [N, S] int32."""
    stage = np.arange(len(spec.strides))
    cout = jnp.asarray(spec.channels, jnp.int32)[stage, blocks.filters]
    cin = jnp.concatenate([jnp.full_like(cout[:, :1], spec.stem), cout[:, :-1]], axis=1)
    return cin, cout, jnp.asarray(spec.depths, jnp.int32)[stage, blocks.layers]


def canonical(spec: MnasSpec, archs: Array) -> Array:
    """[N, T] -> [N, T]: decisions without effect take their first equivalent choice."""
    b = split(archs)
    cin, cout, depth = channels_of(spec, b)
    first = _first_equal(spec.channels), _first_equal(spec.depths)
    stage = np.arange(len(spec.strides))
    # A lone layer that changes resolution or channels has no identity branch to add.
    no_identity = (depth == 1) & ((jnp.asarray(spec.strides) != 1) | (cin != cout))
    b = b._replace(
        expansion=jnp.where(b.op == OPS.index("mbconv"), b.expansion, 0),
        skip=jnp.where(
            no_identity & (b.skip == SKIPS.index("identity")), SKIPS.index("none"), b.skip
        ),
        filters=first[0][stage, b.filters],
        layers=first[1][stage, b.layers],
    )
    return jnp.stack(b, axis=-1).reshape(archs.shape).astype(jnp.int32)


def descriptors(spec: MnasSpec, archs: Array) -> Array:
    """[N, T] -> [N, S, 11] float32: op and skip one-hot, the numbers scaled to [0, 1]."""
    b = split(canonical(spec, archs))
    numbers = (
        (b.expansion, EXPANSIONS),
        (b.kernel, KERNELS),
        (b.se, SE_RATIOS),
        (b.filters, FILTERS),
        (b.layers, LAYERS),
    )
    scaled = [index / (len(choices) - 1) for index, choices in numbers]
    return jnp.concatenate(
        [
            (b.op[..., None] == jnp.arange(len(OPS))).astype(jnp.float32),
            (b.skip[..., None] == jnp.arange(len(SKIPS))).astype(jnp.float32),
            jnp.stack(scaled, axis=-1).astype(jnp.float32),
        ],
        axis=-1,
    )


def graph(spec: MnasSpec, archs: Array) -> tuple[Array, Array]:
    """A chain of S + 2 nodes: input (0), one operation a block (2..), output (1)."""
    b = split(canonical(spec, archs))
    code = jnp.zeros_like(b.op)
    for index, count in zip(b, COUNTS, strict=True):
        code = code * count + index
    n, s = code.shape
    ends = jnp.zeros((n, 1), jnp.int32)
    ops = jnp.concatenate([ends, code + 2, ends + 1], axis=1)
    adjacency = jnp.broadcast_to(jnp.eye(s + 2, k=1, dtype=bool), (n, s + 2, s + 2))
    return ops, adjacency


def descriptor_weights(weights: Sequence[float]) -> np.ndarray:
    """[11] float32: weights by field, in the order of FIELDS, for the entries of `blocks`."""
    by_field = dict(zip(FIELDS, weights, strict=True))
    one_hot = [by_field["op"]] * len(OPS) + [by_field["skip"]] * len(SKIPS)
    numbers = [by_field[name] for name in ("expansion", "kernel", "se", "filters", "layers")]
    return np.asarray(one_hot + numbers, np.float32)


def _first_equal(table: tuple[tuple[int, ...], ...]) -> Array:
    """For each row and choice, the first choice of that row with the same value."""
    return jnp.asarray([[row.index(v) for v in row] for row in table], jnp.int32)


def describe(spec: MnasSpec, arch: Any) -> dict[str, Any]:
    """[T] -> {"text": .., "blocks": [{"op": .., "filters": channels, "layers": n, ..}, ..]}."""
    rows = np.asarray(arch, np.int64).reshape(-1, len(FIELDS))
    blocks, texts = [], []
    for s, row in enumerate(rows):
        op, expansion, kernel, se, skip, filters, layers = (
            choices[i] for choices, i in zip(CHOICES, row, strict=True)
        )
        texts.append(f"{op}-e{expansion}-k{kernel}-se{se:g}-{skip}-f{filters:g}-l{layers:+d}")
        blocks.append(
            {
                "op": op,
                "expansion": expansion if op == "mbconv" else None,
                "kernel": kernel,
                "se": se,
                "skip": skip,
                "filters": spec.channels[s][row[5]],
                "layers": spec.depths[s][row[6]],
                "stride": spec.strides[s],
            }
        )
    return {"text": " ".join(texts), "blocks": blocks}


def parse(spec: MnasSpec, text: str) -> np.ndarray:
    """The inverse of `describe(..)["text"]`: [T] int32. Raises UserError."""
    words = text.split()
    if len(words) != len(spec.strides):
        raise UserError(f"{text!r} has {len(words)} blocks; the space has {len(spec.strides)}")
    names = [
        list(OPS),
        [f"e{v}" for v in EXPANSIONS],
        [f"k{v}" for v in KERNELS],
        [f"se{v:g}" for v in SE_RATIOS],
        list(SKIPS),
        [f"f{v:g}" for v in FILTERS],
        [f"l{v:+d}" for v in LAYERS],
    ]
    arch = []
    for word in words:
        # "l-1" holds the separator itself, so the last field is cut off by its letter.
        head, _, last = word.rpartition("-l")
        fields = [*head.split("-"), f"l{last}"]
        if len(fields) != len(FIELDS):
            raise UserError(f"block {word!r} is not op-expansion-kernel-se-skip-filters-layers")
        for field, allowed in zip(fields, names, strict=True):
            if field not in allowed:
                raise UserError(f"{field!r} in block {word!r} is not one of {', '.join(allowed)}")
            arch.append(allowed.index(field))
    return np.asarray(arch, np.int32)
