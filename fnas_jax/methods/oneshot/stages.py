"""The training stage of a one-shot method: minibatches, and reports of a part of the steps each.

Minibatches, augmentation and keys are functions of the stage's key and the number of the step, so
that a training cut anywhere goes on as if it had not been.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fnas_jax.core.types import Array
from fnas_jax.training import minibatches
from fnas_jax.training.minibatches import Data, Pipeline

# (state, images, labels, key) -> (state, scalars or small arrays to average over steps)
Step = Callable[[Any, Array, Array, Array], tuple[Any, dict[str, Array]]]


class Stage(NamedTuple):
    """What a training works with; nothing that changes. Its state is the method's."""

    step: Step
    steps_done: Callable[[Any], Array]  # state -> [] int32
    pipeline: Pipeline
    batch_size: int


def run(
    stage: Stage, state: Any, key: Array, data: Data, count: Array
) -> tuple[Any, dict[str, Array]]:
    """(the state `count` [] steps on, mean scalars of these steps)."""
    key_order, key_augment, key_step = jax.random.split(key, 3)
    batches = minibatches.make(data, stage.pipeline, stage.batch_size, key_order, key_augment)

    def train_step(i: Array, carry: Any, images: Array, labels: Array) -> Any:
        state, sums = carry
        state, scalars = stage.step(state, images, labels, jax.random.fold_in(key_step, i))
        return state, jax.tree.map(jnp.add, sums, scalars)

    first = stage.steps_done(state)
    order = minibatches.order_of(batches, first // batches.per_epoch)
    batch = minibatches.load(batches, order, jnp.int32(0), first)
    shapes = jax.eval_shape(lambda: stage.step(state, *batch, key_step)[1])
    sums = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
    start = (state, sums)
    state, sums = minibatches.over_steps(
        batches, train_step, start, first, first + count, epoch_start=0, order=order
    )
    return state, jax.tree.map(lambda s: s / count, sums)


def prepare(
    stage: Stage,
    report: Callable[[Any, dict[str, Any]], dict[str, Any]],
    data: Data,
    total: int,
    every: int,
) -> Callable[[Any, Array], Iterator[tuple[Any, dict[str, Any]]]]:
    """The `prepare` of a method: `total` steps, with a report each `every`; goes on where it is."""
    compiled = jax.jit(functools.partial(run, stage))
    return functools.partial(_prepare, compiled, stage.steps_done, report, data, total, every)


def _prepare(
    run: Callable[..., tuple[Any, dict[str, Array]]],
    steps_done: Callable[[Any], Array],
    report: Callable[[Any, dict[str, Any]], dict[str, Any]],
    data: Data,
    total: int,
    every: int,
    state: Any,
    key: Array,
) -> Iterator[tuple[Any, dict[str, Any]]]:
    while int(steps_done(state)) < total:
        count = min(every, total - int(steps_done(state)))
        state, scalars = run(state, key, data, jnp.int32(count))
        yield state, report(state, jax.device_get(scalars))
