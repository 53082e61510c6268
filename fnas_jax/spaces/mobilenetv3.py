"""The MobileNetV3 space of Once-for-all (Cai et al., ICLR 2020, arXiv 1908.09791).

Five stages of 2, 3 or 4 inverted bottlenecks; each has a kernel and an expansion of its own. What
MobileNetV3-Large (Howard et al., ICCV 2019, arXiv 1905.02244) has at a stage, activation, width,
stride and whether squeeze-excitation, is fixed. In front of them stand its stem and its first
layer, which are no decisions. For small images the width, the number of stages and the strides
are options.
"""

from __future__ import annotations

import re
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fnas_jax.core.types import Array, UserError
from fnas_jax.spaces import base
from fnas_jax.spaces.categorical import chain
from fnas_jax.spaces.mnas import round_channels

DEPTHS = (2, 3, 4)
KERNELS = (3, 5, 7)
EXPANSIONS = (3, 4, 6)
MOST = max(DEPTHS)
FIELDS = 1 + 2 * MOST  # decisions of a stage: its depth, then kernel and expansion of each layer
KINDS = len(KERNELS) * len(EXPANSIONS)  # of layers

# MobileNetV3-Large (arXiv 1905.02244, table 1): filters and stride of its first layer, then of
# the stages; filters of the stem, and behind the stages before and after the average.
WIDTHS = (16, 24, 40, 80, 112, 160)
STRIDES = (1, 2, 2, 2, 1, 2)
STEM, HEAD, MIX = 16, 6, 1280  # HEAD: times the filters of the last stage


class MobileNetV3Spec(NamedTuple):
    """The fixed part of the network; entries of tuples are of the first layer, then of stages."""

    stem: int  # filters of the 3x3 stem
    stem_stride: int
    strides: tuple[int, ...]
    channels: tuple[int, ...]
    head: int  # filters of the 1x1 convolution before the average
    mix: int  # units of the linear layer behind it


def make(
    stages: int = 5, width: float = 1.0, strides: tuple[int, ...] = (), stem_stride: int = 2
) -> base.Space:
    """The space with the first `stages` stages; `strides` replaces those of MobileNetV3-Large.

    With all 5 stages 7,371^5, about 2.2e19 networks. Raises UserError where `stages` is not 1..5
    or `strides` has another length.
    """
    most = len(WIDTHS) - 1
    if not 1 <= stages <= most:
        raise UserError(f"space.stages is {stages}; allowed are 1 to {most}")
    strides = tuple(strides) or STRIDES[1 : stages + 1]
    if len(strides) != stages or any(s not in (1, 2) for s in strides):
        raise UserError(f"space.strides is {strides}; it needs {stages} entries, each 1 or 2")
    spec = MobileNetV3Spec(
        stem=round_channels(STEM * width),
        stem_stride=stem_stride,
        strides=(STRIDES[0], *strides),
        channels=tuple(round_channels(c * width) for c in WIDTHS[: stages + 1]),
        head=round_channels(HEAD * WIDTHS[stages] * width),
        mix=round_channels(MIX * width),
    )
    cardinalities = tuple(map(len, _choices())) * stages
    return base.Space(
        name="mobilenetv3",
        cardinalities=cardinalities,
        names=tuple(f"stage{s}/{name}" for s in range(stages) for name in _names()),
        sample=partial(base.sample_uniform, cardinalities),
        validate=partial(base.in_range, cardinalities),
        canonical=canonical,
        describe=partial(describe, spec),
        parse=partial(parse, spec),
        blocks=descriptors,
        graph=graph,
        num_ops=2 + KINDS + 1,
        spec=spec,
        words=tuple(tuple(map(str, values)) for values in _choices()) * stages,
    )


def _choices() -> tuple[tuple[int, ...], ...]:
    """What the choices of a stage's decisions stand for."""
    return (DEPTHS, *(KERNELS, EXPANSIONS) * MOST)


def _names() -> list[str]:
    return ["depth", *(f"layer{i}/{of}" for i in range(MOST) for of in ("kernel", "expansion"))]


class Decisions(NamedTuple):
    """The decisions by meaning, as indices into this module's choices: arrays [.., stages, MOST].

    `exists` says which layers their stage has.
    """

    exists: Any
    kernel: Any
    expansion: Any


def split(archs: Any) -> Decisions:
    """[.., T] int32 -> the decisions of each layer; numpy arrays make numpy arrays."""
    xp = jnp if isinstance(archs, jax.Array) else np
    by_stage = archs.reshape(*archs.shape[:-1], -1, FIELDS)
    depth = xp.asarray(DEPTHS)[by_stage[..., :1]]
    return Decisions(np.arange(MOST) < depth, by_stage[..., 1::2], by_stage[..., 2::2])


def canonical(archs: Array) -> Array:
    """[N, T] -> [N, T]: decisions on layers that are not there take their first choice."""
    d = split(archs)
    layers = jnp.stack([d.kernel, d.expansion], axis=-1) * d.exists[..., None]
    depth = archs.reshape(len(archs), -1, FIELDS)[..., :1]
    rows = jnp.concatenate([depth, layers.reshape(*depth.shape[:2], -1)], axis=-1)
    return rows.reshape(archs.shape).astype(jnp.int32)


def kinds(archs: Any) -> Any:
    """[.., T] -> [.., L] int32: kernel and expansion as one number; `KINDS` where no layer is."""
    xp = jnp if isinstance(archs, jax.Array) else np
    d = split(archs)
    kind = xp.where(d.exists, d.kernel * len(EXPANSIONS) + d.expansion, KINDS)
    return kind.reshape(*archs.shape[:-1], -1)


def descriptors(archs: Array) -> Array:
    """[N, T] -> [N, 1 + L, 3] float32: whether the layer is there, kernel / 7, expansion / 6.

    The first one is the layer that is no decision.
    """
    rows = [(1, k / KERNELS[-1], e / EXPANSIONS[-1]) for k in KERNELS for e in EXPANSIONS]
    table = jnp.asarray([*rows, (0, 0, 0)], jnp.float32)
    found = table[kinds(archs)]
    first = jnp.asarray((1, 3 / KERNELS[-1], 1 / EXPANSIONS[-1]), jnp.float32)
    return jnp.concatenate([jnp.broadcast_to(first, (len(archs), 1, 3)), found], axis=1)


def graph(archs: Array) -> tuple[Array, Array]:
    """A chain of input, L layers and output: with 5 stages 22 nodes."""
    return chain(kinds(archs) + 2)


def describe(spec: MobileNetV3Spec, arch: Any) -> dict[str, Any]:
    """[T] -> {"text": .., "stages": [{"filters": .., "stride": .., "layers": ["k3e4", ..]}, ..]}.

    The text has a word for each stage; what is decided about layers that are not there stands
    behind a slash, where it is no first choice.
    """
    d, words, stages = split(np.asarray(arch, np.int64)), [], []
    for s in range(len(spec.channels) - 1):
        layers = [
            f"k{KERNELS[k]}e{EXPANSIONS[e]}"
            for k, e in zip(d.kernel[s], d.expansion[s], strict=True)
        ]
        there = int(d.exists[s].sum())
        idle = "/" + "-".join(layers[there:])
        words.append("-".join(layers[:there]) + idle * bool(set(layers[there:]) - {_first()}))
        sizes = {"filters": spec.channels[s + 1], "stride": spec.strides[s + 1]}
        stages.append(sizes | {"layers": layers[:there]})
    return {"text": " ".join(words), "stages": stages}


def _first() -> str:
    return f"k{KERNELS[0]}e{EXPANSIONS[0]}"


def parse(spec: MobileNetV3Spec, text: str) -> np.ndarray:
    """The inverse of `describe(..)["text"]`: [T] int32. Raises UserError."""
    words, stages = text.split(), len(spec.channels) - 1
    if len(words) != stages:
        raise UserError(f"{text!r} has {len(words)} stages; the space has {stages}")
    arch: list[int] = []
    for word in words:
        there, slash, idle = word.partition("/")
        layers = there.split("-")
        if len(layers) not in DEPTHS:
            raise UserError(f"stage {word!r} has {len(layers)} layers; allowed are 2, 3 and 4")
        missing = MOST - len(layers)
        rest = idle.split("-") if slash else [_first()] * missing
        if len(rest) != missing:
            raise UserError(f"stage {word!r} needs {missing} layers behind the slash")
        arch.append(DEPTHS.index(len(layers)))
        for layer in layers + rest:
            arch += _parse_layer(layer)
    return np.asarray(arch, np.int32)


def _parse_layer(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"k([357])e([346])", text)
    if found is None:
        raise UserError(f"layer {text!r} is not k3, k5 or k7 and e3, e4 or e6, such as {_first()}")
    return KERNELS.index(int(found[1])), EXPANSIONS.index(int(found[2]))
