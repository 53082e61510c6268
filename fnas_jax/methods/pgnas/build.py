"""PGNAS from a configuration and a task that can train a network for all architectures."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from fnas_jax.core.types import Array, UserError
from fnas_jax.layers.ops import Params
from fnas_jax.methods.base import SearchMethod
from fnas_jax.methods.oneshot import supernet
from fnas_jax.methods.oneshot.build import initial_of, needs_training
from fnas_jax.methods.pgnas import elbo, posterior
from fnas_jax.methods.pgnas import method as pgnas
from fnas_jax.spaces.base import Space
from fnas_jax.spaces.macro import MacroSpec

if TYPE_CHECKING:
    from fnas_jax.tasks.base import Evaluator, OneShot, Task


def build(config: Any, space: Space, task: Task, knowledge: Any) -> tuple[SearchMethod, Evaluator]:
    """PGNAS with the numbers of `config.pgnas` and `config.oneshot`. Raises UserError."""
    parts = needs_training(config, task)
    numbers = configure(config, space)
    return assemble(config, numbers, space, parts)


def configure(config: Any, space: Space) -> pgnas.Config:
    """The method's numbers. Raises UserError for an estimator that does not fit the space."""
    numbers = pgnas.Config(**{name: config.pgnas[name] for name in pgnas.Config._fields})
    if numbers.gradient in elbo.BY_SWITCH and not isinstance(space.spec, MacroSpec):
        raise UserError(
            f"pgnas.gradient is {numbers.gradient!r}; the space {space.name!r} allows local and"
            " score only, because its decisions are not operations of their own"
        )
    return numbers


def assemble(
    config: Any, numbers: pgnas.Config, space: Space, parts: OneShot
) -> tuple[SearchMethod, Evaluator]:
    """The method and the evaluator that uses its weights."""
    q = posterior.make(space.cardinalities)
    largest = jnp.asarray(space.cardinalities, jnp.int32) - 1
    steps = -(-config.oneshot.steps // numbers.mc_samples)
    updates = steps if numbers.average else steps * numbers.mc_samples
    net = supernet.make(
        parts.network, parts.settings, largest, updates, parts.vmap, loss(numbers, parts)
    )

    def costs(archs: Array) -> Array:
        return parts.cost(archs)[1] / 1e6

    _check_budget(numbers, space, costs)
    step = pgnas.make_step(q, net, numbers, len(parts.data.train_labels), costs)

    def of_state(
        state: pgnas.State, images: Array, labels: Array, key: Array
    ) -> tuple[pgnas.State, dict[str, Array]]:
        learnt, scalars = step(state.learnt, images, labels, key)
        return state._replace(learnt=learnt), scalars

    def steps_done(state: pgnas.State) -> Array:
        return state.learnt.steps

    run = supernet.runner(of_state, steps_done, parts.pipeline, parts.settings.batch_size)
    method = pgnas.make(
        space,
        q,
        net,
        numbers,
        config.search.batch,
        costs,
        initial_of(parts, largest),
        supernet.stages(
            run,
            steps_done,
            functools.partial(pgnas.report, q, space),
            parts.data,
            steps,
            config.oneshot.every,
        ),
    )
    hooks = parts.evaluator.hooks
    load = hooks.load_weights
    assert load is not None
    return method, parts.evaluator._replace(
        hooks=hooks._replace(
            load_weights=lambda known, state: load(known, net.params(state.learnt.weights.vector))
        )
    )


def loss(numbers: pgnas.Config, parts: OneShot) -> supernet.Loss:
    """The supernet's loss, with derivatives in its switches where the estimator needs them."""
    if numbers.gradient not in elbo.BY_SWITCH:
        return supernet.single_path(parts.network, parts.settings.label_smoothing)
    apply_mixed = parts.network.apply_mixed
    assert apply_mixed is not None  # `configure` has refused the other spaces

    def of(params: Params, arch: Array, z: Array, images: Array, labels: Array) -> Array:
        logits = apply_mixed(params, arch, z, images)
        return supernet.nll(logits, labels, parts.settings.label_smoothing)

    return of


def _check_budget(numbers: pgnas.Config, space: Space, costs: pgnas.Costs) -> None:
    if numbers.mflops:
        drawn = costs(space.sample(jax.random.key(0), 10_000))
        if float(drawn.min()) > numbers.mflops:
            raise UserError(
                f"pgnas.mflops is {numbers.mflops:g}; the cheapest of 10,000 random architectures"
                f" has {np.ceil(float(drawn.min()) * 1e3) / 1e3:g} MFLOPs"
            )
