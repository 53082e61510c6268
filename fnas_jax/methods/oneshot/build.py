"""What the builders of one-shot methods share."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import jax

from fnas_jax.core import identity
from fnas_jax.core.types import Array, UserError
from fnas_jax.layers.ops import Params
from fnas_jax.methods.oneshot.supernet import Supernet, Weights

if TYPE_CHECKING:
    from fnas_jax.tasks.base import Evaluator, OneShot, Task


def needs_training(config: Any, task: Task) -> OneShot:
    """The task's parts. Raises UserError for a task whose architectures are only looked up."""
    if task.oneshot is None:
        raise UserError(
            f"method.name is {config.method.name!r}, which trains a network itself; task.name"
            f" {task.name!r} only looks architectures up, so use images/NAME"
        )
    return task.oneshot()


def initial_of(parts: OneShot, arch: Array) -> Callable[[Array], Params]:
    """The parameters that the supernet of a task starts from, as a function of a key.

    `arch` [T] is any architecture; fresh weights are scaled for it.
    """
    return lambda key: parts.start(jax.jit(parts.network.init)(key, arch))


def inheriting(
    parts: OneShot, net: Supernet, weights: Callable[[Any], Weights], training: dict[str, Any]
) -> Evaluator:
    """The task's evaluator, which takes the supernet's `weights` out of the method's state.

    `training` are the numbers by which they were learnt; they enter its protocol.
    """
    hooks = parts.evaluator.hooks
    assert hooks.load_weights is not None
    load = functools.partial(_load, hooks.load_weights, net, weights)
    return parts.evaluator._replace(
        hooks=hooks._replace(load_weights=load),
        protocol=identity.extend(parts.evaluator.protocol, supernet=training),
    )


def _load(
    load: Callable[[Any, Params], Any],
    net: Supernet,
    weights: Callable[[Any], Weights],
    known: Any,
    state: Any,
) -> Any:
    return load(known, net.params(weights(state).vector))
