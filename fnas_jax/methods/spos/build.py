"""SPOS from a configuration and a task that can train a network for all architectures."""

from __future__ import annotations

import functools
import logging
from typing import TYPE_CHECKING, Any

import jax.numpy as jnp

from fnas_jax.core.config import read
from fnas_jax.methods.base import SearchMethod
from fnas_jax.methods.oneshot import stages, supernet
from fnas_jax.methods.oneshot.build import inheriting, initial_of, needs_training
from fnas_jax.methods.oneshot.config import Oneshot
from fnas_jax.methods.spos import method
from fnas_jax.methods.spos.config import Spos
from fnas_jax.spaces.base import Space

if TYPE_CHECKING:
    from fnas_jax.tasks.base import Evaluator, Task

LOG = logging.getLogger(__name__)


def build(config: Any, space: Space, task: Task, knowledge: Any) -> tuple[SearchMethod, Evaluator]:
    """SPOS with the numbers of the sections `spos`, `oneshot` and `children`. Raises UserError."""
    parts, numbers = needs_training(config, task), read(Oneshot, config.oneshot)
    settings = parts.settings
    largest = jnp.asarray(space.largest)
    loss = functools.partial(
        supernet.single_path, parts.network, parts.objective, settings.label_smoothing
    )
    net = supernet.make(
        *(parts.network, settings, largest, numbers.steps, parts.vmap, loss),
        axis=stages.axis_of(parts.mesh),
    )
    own = read(Spos, config.spos)
    if own.sampling == "evolution" and config.search.budget <= own.start:
        LOG.info(
            "spos.start is %d, and search.budget %d: all networks are uniform ones, and none is a"
            " child of the best",
            own.start,
            config.search.budget,
        )
    ctx = method.Context(
        *(space, net, own, settings.weight_decay, config.search.batch),
        initial=initial_of(parts, largest),
        allowed=task.allowed,
    )
    stage = stages.Stage(
        functools.partial(method.train, ctx),
        method.steps_done,
        parts.pipeline,
        settings.batch_size,
        parts.mesh,
        method.settle,
    )
    prepare = stages.prepare(stage, method.report, parts.data, numbers.steps, numbers.every)
    training = {"method": "spos", "steps": numbers.steps}
    return method.make(ctx, prepare), inheriting(parts, net, lambda state: state.weights, training)
