"""The plain Flax network of one cell (NAS-Bench-201, arXiv 2001.00326, section 2.1)."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from fnas_jax.core.types import Array
from fnas_jax.networks.dense import Dense, Outputs
from fnas_jax.networks.flax_mobile import average, conv, logits, norm, score, score_name
from fnas_jax.spaces.cells import Running


class CellNetwork(nn.Module):
    """Stem, stages of equal cells with residual reductions between them, linear classifier.

    `Dense`: logits at every pixel, by every stage.
    """

    spec: Any  # one of `cells.SPECS`
    edges: tuple[Running, ...]  # the operations of each cell
    classes: Outputs
    fast: bool = True

    @nn.compact
    def __call__(self, images: Array, train: bool) -> Array:
        """Images [B, H, W, channels] -> logits, see `Outputs`."""
        x = conv(self.fast, "stem", self.spec.channels, 3)(images)
        x, scores = norm("stem_norm", train)(x), []
        for s in range(self.spec.stages):
            if s:
                if isinstance(self.classes, Dense):
                    skip = nn.relu(norm(f"{score_name(s - 1)}_norm", train)(x))
                    scores.append(score(s - 1, self.classes)(skip))
                x = Reduction(self.fast, name=f"reduction{s - 1}")(x, train)
            for c in range(self.spec.cells_per_stage):
                x = Cell(self.edges, self.fast, name=f"stage{s}_cell{c}")(x, train)
        x = nn.relu(norm("last_norm", train)(x))
        return logits(self.classes, scores, x, images)


class Cell(nn.Module):
    """Four nodes; each is the sum of its incoming edges."""

    edges: tuple[Running, ...]
    fast: bool

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        """[B, H, W, C] -> the same shape."""
        nodes = [x, jnp.zeros_like(x), jnp.zeros_like(x), jnp.zeros_like(x)]
        for source, target, op, name in self.edges:
            h = nodes[source]
            if op == "avg_pool_3x3":
                h = average(h, 3, 1)
            elif op != "skip_connect":
                h = conv(self.fast, f"{name}_conv", h.shape[-1], int(op[-1]))(nn.relu(h))
                h = norm(f"{name}_norm", train)(h)
            nodes[target] = nodes[target] + h
        return nodes[-1]


class Reduction(nn.Module):
    """Residual block of two 3x3 convolutions; the shortcut averages 2x2 pixels."""

    fast: bool

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        """[B, H, W, C] -> [B, H/2, W/2, 2 C]."""
        width = 2 * x.shape[-1]
        h = conv(self.fast, "conv1", width, 3, 2)(nn.relu(x))
        h = nn.relu(norm("norm1", train)(h))
        h = conv(self.fast, "conv2", width, 3)(h)
        h = norm("norm2", train)(h)
        x = average(x, 2, 2)
        return h + conv(self.fast, "shortcut", width, 1)(x)
