"""The training stage of a one-shot method: minibatches, on all devices, and reports now and then.

Minibatches, augmentation and keys are functions of the stage's key and the number of the step, so
that a training cut anywhere goes on as if it had not been. It is cut at reports and, where these
are far apart, every few seconds.

Each device has its part of every minibatch, as in `training.parallel`; all of them draw the same
architectures and make the same step.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from fnas_jax.core import devices
from fnas_jax.core.types import Array, Failed
from fnas_jax.training import minibatches, parts
from fnas_jax.training.minibatches import Data, Pipeline

# (state, images, labels, key) -> (state, scalars or small arrays to average over steps)
Step = Callable[[Any, Array, Array, Array], tuple[Any, dict[str, Array]]]
# (state, means over the steps since the last one) -> what is logged
Report = Callable[[Any, dict[str, Any]], dict[str, Any]]
LOSS = "nll"  # of the scalars of a step, the one that is none where all weights are


class Tally(NamedTuple):
    """What the steps since the last report came to; a part of the method's state."""

    steps: Array  # [] int32
    sums: dict[str, Array]  # of the scalars of a step


class Stage(NamedTuple):
    """What a training works with; nothing that changes.

    Its state is the method's, a NamedTuple whose `tally` it keeps.
    """

    step: Step
    steps_done: Callable[[Any], Array]  # state -> [] int32
    pipeline: Pipeline
    batch_size: int
    mesh: Mesh | None = None  # of devices that share each minibatch; None: one has all of it
    settle: Callable[[Any], Any] = lambda state: state  # without what only a training needs


def nothing(names: tuple[str, ...]) -> Tally:
    """Before the first step, of scalars with these names."""
    return Tally(jnp.int32(0), {name: jnp.zeros(()) for name in names})


def axis_of(mesh: Mesh | None) -> str:
    """Of the devices that share each minibatch; "" where one has all of it."""
    return "" if mesh is None or mesh.size == 1 else devices.BATCH


def run(
    stage: Stage, state: Any, tally: Tally, key: Array, data: Data, count: Array
) -> tuple[Any, Tally]:
    """`state` and `tally` after `count` [] steps more, on one of the devices."""
    key_order, key_augment, key_step = jax.random.split(key, 3)
    keys, axis = (key_order, key_augment), axis_of(stage.mesh)
    batches = minibatches.make(data, stage.pipeline, stage.batch_size, *keys, axis)

    def train_step(i: Array, carry: Any, images: Array, labels: Array) -> Any:
        state, sums = carry
        state, scalars = stage.step(state, images, labels, jax.random.fold_in(key_step, i))
        return state, jax.tree.map(jnp.add, sums, scalars)

    first = stage.steps_done(state)
    order = minibatches.order_of(batches, first // batches.per_epoch)
    start = (state, tally.sums)
    state, sums = minibatches.over_steps(
        batches, train_step, start, first, first + count, epoch_start=0, order=order
    )
    return state, Tally(tally.steps + count, sums)


def compiled(stage: Stage) -> Callable[..., tuple[Any, Tally]]:
    """`run` for all devices of the stage."""
    one = functools.partial(run, stage)
    if stage.mesh is None or stage.mesh.size == 1:
        return jax.jit(one)
    everywhere = PartitionSpec()
    return jax.jit(
        jax.shard_map(
            one,
            mesh=stage.mesh,
            in_specs=everywhere,
            out_specs=everywhere,
            check_vma=False,  # equal on all devices, as gradients are
        )
    )


def means(tally: Tally) -> dict[str, Any]:
    """Of each scalar over the steps."""
    found = jax.device_get(tally)
    return jax.tree.map(lambda s: s / np.float32(found.steps), found.sums)


def check(tally: Tally, done: int, total: int) -> None:
    """Raises Failed where the loss of the steps of `tally` is no number, as all later ones' is."""
    if np.isnan(jax.device_get(tally.sums.get(LOSS, 0.0))):
        raise Failed(
            "the training of one network for all architectures failed: its loss is not finite after"
            f" {done} of {total} steps; a lower children.lr, in another workdir, may do"
        )


def prepare(
    stage: Stage, report: Report, data: Data, total: int, every: int
) -> Callable[[Any, Array], Iterator[tuple[Any, dict[str, Any]]]]:
    """The `prepare` of a method: `total` steps, with a report each `every`; goes on where it is.

    Between two reports it hands over states, too, so that they can be kept.
    """
    return functools.partial(_prepare, stage, compiled(stage), report, data, total, every)


def _prepare(
    stage: Stage,
    run: Callable[..., tuple[Any, Tally]],
    report: Report,
    data: Data,
    total: int,
    every: int,
    state: Any,
    key: Array,
) -> Iterator[tuple[Any, dict[str, Any]]]:
    done, tallied, size = int(stage.steps_done(state)), int(state.tally.steps), 1
    if done >= total:
        return
    state, key, data = _everywhere(stage.mesh, (state, key, data))
    blank = _everywhere(stage.mesh, jax.tree.map(jnp.zeros_like, state.tally))
    while done < total:
        due = min(done - tallied + every, total)
        count = min(size, due - done)
        steps = functools.partial(run, state, state.tally, key, data, np.int32(count))
        (state, tally), seconds = parts.timed(steps)
        size, done, tallied = (
            parts.steps_of_part(size, seconds / count),
            done + count,
            tallied + count,
        )
        check(tally, done, total)
        if done < due:
            state = state._replace(tally=tally)
            yield _first(state, stage.mesh), {"steps": (done, total)}
            continue
        state, tallied = state._replace(tally=blank), 0
        if done == total:
            state = stage.settle(state)
        reported = _first(state, stage.mesh)
        yield reported, report(reported, means(tally)) | {"steps": (done, total)}


def _everywhere(mesh: Mesh | None, tree: Any) -> Any:
    """`tree` on all devices of `mesh`; as it is where one trains."""
    return tree if mesh is None or mesh.size == 1 else devices.replicate(tree, mesh)


def _first(tree: Any, mesh: Mesh | None) -> Any:
    """What all devices of `mesh` have, on the first: the search goes on there."""
    if mesh is None or mesh.size == 1:
        return tree
    return jax.tree.map(lambda leaf: leaf.addressable_data(0), tree)
