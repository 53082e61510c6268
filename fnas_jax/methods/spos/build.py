"""SPOS from a configuration and a task that can train a network for all architectures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jax.numpy as jnp

from fnas_jax.core.types import Array
from fnas_jax.methods.base import SearchMethod
from fnas_jax.methods.oneshot import supernet
from fnas_jax.methods.oneshot.build import initial_of, needs_training
from fnas_jax.methods.spos import method as spos
from fnas_jax.spaces.base import Space

if TYPE_CHECKING:
    from fnas_jax.tasks.base import Evaluator, Task


def build(config: Any, space: Space, task: Task, knowledge: Any) -> tuple[SearchMethod, Evaluator]:
    """SPOS with the numbers of `config.oneshot` and `config.children`. Raises UserError."""
    parts, section = needs_training(config, task), config.oneshot
    largest = jnp.asarray(space.cardinalities, jnp.int32) - 1
    net = supernet.make(
        parts.network,
        parts.settings,
        largest,
        section.steps,
        parts.vmap,
        supernet.single_path(parts.network, parts.settings.label_smoothing),
    )
    step = spos.make_step(space, net, parts.settings.weight_decay)

    def steps_done(state: spos.State) -> Array:
        return state.weights.step

    run = supernet.runner(step, steps_done, parts.pipeline, parts.settings.batch_size)
    prepare = supernet.stages(
        run, steps_done, spos.report, parts.data, section.steps, section.every
    )
    method = spos.make(space, net, config.search.batch, initial_of(parts, largest), prepare)
    hooks = parts.evaluator.hooks
    load = hooks.load_weights
    assert load is not None
    return method, parts.evaluator._replace(
        hooks=hooks._replace(
            load_weights=lambda known, state: load(known, net.params(state.weights.vector))
        )
    )
