"""What the builders of one-shot methods share."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import jax

from fnas_jax.core.types import Array, UserError
from fnas_jax.layers.ops import Params

if TYPE_CHECKING:
    from fnas_jax.tasks.base import OneShot, Task


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
