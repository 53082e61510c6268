"""The function that ships: a network from pixels as they are stored to labels and probabilities."""

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

    It is what is exported, and what a latency is the time of.
    """
    # Accelerators would otherwise multiply in fewer bits than the weights have.
    with jax.default_matmul_precision("highest"):
        logits = jnp.asarray(module.apply(variables, normalise(images), train=False))
    return logits.argmax(-1).astype(jnp.int32), jax.nn.softmax(logits)
