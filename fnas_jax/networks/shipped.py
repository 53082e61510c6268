"""The function that ships: a network from pixels as they are stored to answers and scores."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from fnas_jax.core.types import Array


def classify(
    module: nn.Module, normalise: Callable[[Array], Array], variables: Any, images: Array
) -> tuple[Array, Array]:
    """(labels [B] int32, probabilities [B, C] float32) of images [B, H, W, channels] as stored.

    What a latency is the time of, also where a network answers otherwise, which takes as long.
    """
    return labelled(outputs(module, normalise, variables, images))


def labelled(logits: Array) -> tuple[Array, Array]:
    """(labels [B] int32, probabilities [B, C]) of logits [B, C]."""
    return logits.argmax(-1).astype(jnp.int32), jax.nn.softmax(logits)


def outputs(
    module: nn.Module, normalise: Callable[[Array], Array], variables: Any, images: Array
) -> Array:
    """What the network gives [B, ..] for images [B, H, W, channels] as stored."""
    # Accelerators would otherwise multiply in fewer bits than the weights have.
    with jax.default_matmul_precision("highest"):
        return jnp.asarray(module.apply(variables, normalise(images), train=False))
