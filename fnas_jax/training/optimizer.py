"""SGD with Nesterov's momentum, warm-up and cosine decay: the same for children and supernets.

Parameters are one vector, because an update per tensor would be most of what is compiled.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.flatten_util
import jax.numpy as jnp
import optax

from fnas_jax.core.types import Array
from fnas_jax.layers.ops import Params
from fnas_jax.training.config import Children


def learning_rate(settings: Children, step: Array, steps: Array) -> Array:
    """Linear warm-up over `warmup * steps` steps, then cosine to 0 at `steps`."""
    warm = jnp.maximum(settings.warmup * steps, 1.0)
    progress = jnp.clip((step - warm) / jnp.maximum(steps - warm, 1.0), 0.0, 1.0)
    return settings.lr * jnp.minimum((step + 1) / warm, 0.5 * (1 + jnp.cos(jnp.pi * progress)))


def sgd(settings: Children, decayed: Array | None = None) -> optax.GradientTransformation:
    """Everything but the learning rate, which needs the number of steps.

    Weights marked in `decayed` [P] decay by `settings.weight_decay`, after the gradient was
    clipped; None: losses that have the decay in them.
    """
    decay = optax.identity()
    if decayed is not None:
        decay = optax.stateless(functools.partial(_decay, settings.weight_decay, decayed))
    return optax.chain(
        optax.clip_by_global_norm(settings.max_grad_norm),
        decay,
        optax.trace(settings.momentum, nesterov=True),
    )


def _decay(rate: float, decayed: Array, gradient: Array, params: Array) -> Array:
    return gradient + rate * decayed * params


def is_weight(path: tuple[Any, ...]) -> bool:
    """Whether the parameter at `path` is neither a bias nor a scale of a normalisation."""
    return getattr(path[-1], "key", "") not in ("scale", "bias", "b1", "b2")


def weights(params: Params) -> Params:
    """1 for weights and 0 for biases and scales, of the shapes and types of `params`."""
    return jax.tree_util.tree_map_with_path(
        lambda path, p: jnp.full(p.shape, is_weight(path), p.dtype), params
    )
