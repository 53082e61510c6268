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
from jax import lax

from fnas_jax.core.types import Array
from fnas_jax.training import child

# (state, images, labels, key) -> (state, scalars or small arrays to average over steps)
Step = Callable[[Any, Array, Array, Array], tuple[Any, dict[str, Array]]]


class Stage(NamedTuple):
    """What a training works with; nothing that changes. Its state is the method's."""

    step: Step
    steps_done: Callable[[Any], Array]  # state -> [] int32
    pipeline: child.Pipeline
    batch_size: int


class Keys(NamedTuple):
    """Of a stage, for the order of images, their augmentation, and the steps."""

    order: Array
    augment: Array
    step: Array


def run(
    stage: Stage, state: Any, key: Array, data: child.Data, count: Array
) -> tuple[Any, dict[str, Array]]:
    """(the state `count` [] steps on, mean scalars of these steps)."""
    total = data.train_labels.shape[0]
    per_epoch = total // min(stage.batch_size, total)
    keys = Keys(*jax.random.split(key, 3))
    one = functools.partial(_one, stage, keys, data)
    shuffle = functools.partial(_shuffle, keys, total)

    def body(_: Array, carry: tuple[Any, Array, Any]) -> tuple[Any, Array, Any]:
        state, order, sums = carry
        i = stage.steps_done(state)
        order = lax.cond(i % per_epoch == 0, lambda: shuffle(i // per_epoch), lambda: order)
        state, scalars = one(i, state, order)
        return state, order, jax.tree.map(jnp.add, sums, scalars)

    order = shuffle(stage.steps_done(state) // per_epoch)
    shapes = jax.eval_shape(lambda: one(jnp.int32(0), state, order)[1])
    sums = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
    state, _, sums = lax.fori_loop(0, count, body, (state, order, sums))
    return state, jax.tree.map(lambda s: s / count, sums)


def _shuffle(keys: Keys, total: int, epoch: Array) -> Array:
    """[total] int32: the images in the order of an epoch []."""
    return jax.random.permutation(jax.random.fold_in(keys.order, epoch), total)


def _one(
    stage: Stage, keys: Keys, data: child.Data, i: Array, state: Any, order: Array
) -> tuple[Any, dict[str, Array]]:
    """Step `i` [] of the stage with its minibatch."""
    batch = min(stage.batch_size, len(order))
    rows = lax.dynamic_slice(order, ((i % (len(order) // batch)) * batch,), (batch,))
    images = stage.pipeline.normalise(data.train_images[rows])
    images = stage.pipeline.augment(jax.random.fold_in(keys.augment, i), images)
    return stage.step(state, images, data.train_labels[rows], jax.random.fold_in(keys.step, i))


def prepare(
    stage: Stage,
    report: Callable[[Any, dict[str, Any]], dict[str, Any]],
    data: child.Data,
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
    data: child.Data,
    total: int,
    every: int,
    state: Any,
    key: Array,
) -> Iterator[tuple[Any, dict[str, Any]]]:
    while int(steps_done(state)) < total:
        count = min(every, total - int(steps_done(state)))
        state, scalars = run(state, key, data, jnp.int32(count))
        yield state, report(state, jax.device_get(scalars))
