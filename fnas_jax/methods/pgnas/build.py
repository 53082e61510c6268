"""PGNAS from a configuration and a task that can train a network for all architectures."""

from __future__ import annotations

import dataclasses
import functools
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from fnas_jax.core.config import read
from fnas_jax.core.types import Array, UserError
from fnas_jax.methods.base import SearchMethod
from fnas_jax.methods.oneshot import stages, supernet
from fnas_jax.methods.oneshot.build import inheriting, initial_of, needs_training
from fnas_jax.methods.oneshot.config import Oneshot
from fnas_jax.methods.pgnas import elbo, method, posterior, step
from fnas_jax.methods.pgnas.config import Pgnas
from fnas_jax.spaces import descend
from fnas_jax.spaces.base import Space

if TYPE_CHECKING:
    from fnas_jax.tasks.base import Evaluator, OneShot, Task


def build(config: Any, space: Space, task: Task, knowledge: Any) -> tuple[SearchMethod, Evaluator]:
    """PGNAS with the numbers of `config.pgnas` and `config.oneshot`. Raises UserError."""
    parts = needs_training(config, task)
    numbers = configure(config, space, parts)
    oneshot = read(Oneshot, config.oneshot)
    steps = -(-oneshot.steps // numbers.mc_samples)
    ctx = context(config, numbers, space, parts, steps)
    stage = stages.Stage(
        functools.partial(method.train, ctx),
        method.steps_done,
        parts.pipeline,
        parts.settings.batch_size,
        parts.mesh,
        method.settle,
    )
    report = functools.partial(method.report, ctx.training.q, space)
    prepare = stages.prepare(stage, report, parts.data, steps, oneshot.every)
    training = {"method": "pgnas", "steps": oneshot.steps, **dataclasses.asdict(numbers)}
    evaluator = inheriting(parts, ctx.training.net, lambda state: state.learnt.weights, training)
    return method.make(ctx, prepare), evaluator


def configure(config: Any, space: Space, parts: OneShot) -> Pgnas:
    """The method's numbers. Raises UserError for an estimator that does not fit the space."""
    numbers = read(Pgnas, config.pgnas)
    if numbers.gradient in elbo.BY_SWITCH and parts.network.apply_mixed is None:
        raise UserError(
            f"pgnas.gradient is {numbers.gradient!r}; the space {space.name!r} allows local and"
            " score only, because its network has no derivatives in the switches of its decisions"
        )
    return numbers


def context(
    config: Any, numbers: Pgnas, space: Space, parts: OneShot, steps: int
) -> method.Context:
    """What a search of `steps` training steps works with. Raises UserError for a tight budget."""
    largest = jnp.asarray(space.largest)
    updates = steps if numbers.average else steps * numbers.mc_samples
    net = supernet.make(
        *(parts.network, parts.settings, largest, updates, parts.vmap, loss(numbers, parts)),
        axis=stages.axis_of(parts.mesh),
    )
    costs = functools.partial(mflops, parts)
    check_budget(numbers, space, costs)
    training = step.Context(
        posterior.of_space(space), net, numbers, len(parts.data.train_labels), costs
    )
    return method.Context(space, training, config.search.batch, initial_of(parts, largest))


def mflops(parts: OneShot, archs: Array) -> Array:
    """[N] of `archs` [N, T]."""
    return parts.cost(archs)[1] / 1e6


def loss(numbers: Pgnas, parts: OneShot) -> supernet.Loss:
    """The supernet's loss, with derivatives in its switches where the estimator needs them."""
    given = parts.network, parts.objective, parts.settings.label_smoothing
    if numbers.gradient not in elbo.BY_SWITCH:
        return functools.partial(supernet.single_path, *given)
    return functools.partial(supernet.mixed, *given)


def check_budget(numbers: Pgnas, space: Space, costs: step.Costs) -> None:
    """Raises UserError where `pgnas.mflops` is less than the cheapest network known has."""
    if numbers.mflops:
        arch, least = descend.cheapest(
            space, jax.jit(space.canonical), lambda archs: np.asarray(costs(archs))
        )
        if least > numbers.mflops:
            raise UserError(
                f"pgnas.mflops is {numbers.mflops:g}; the cheapest network known has"
                f" {np.ceil(least * 1e3) / 1e3:g} MFLOPs ({space.describe(arch)['text']})"
            )
