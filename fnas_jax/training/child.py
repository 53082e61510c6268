"""Training of a child: one loop for every network.

The loop is the same for every child, and its number of steps is data: a child, a longer training
and a place left empty in a batch run the same compiled program.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
from jax import lax

from fnas_jax.core.types import Array
from fnas_jax.layers.ops import Moments, Params
from fnas_jax.networks.base import Network, Stats
from fnas_jax.objectives.base import Objective, State
from fnas_jax.training import minibatches, optimizer
from fnas_jax.training import recipe as recipes
from fnas_jax.training.config import Children, Recipe
from fnas_jax.training.minibatches import Data, Minibatches, Pipeline
from fnas_jax.training.recipe import Batch

# Folded into a child's key for mixed images; beyond what the key is split into.
_MIX = 3
# Of the images that are judged at once, where a step of training has no more: 256 of 64x64. A layer
# of larger ones would take more memory when it is judged than a whole network in training.
_PIXELS = 2**20


class Context(NamedTuple):
    """What is trained and how; nothing that changes."""

    network: Network
    settings: Children
    pipeline: Pipeline
    objective: Objective
    recipe: Recipe = Recipe()  # children have none of it
    # Of the mesh whose devices share each minibatch, under `shard_map` (`training.parallel`); "":
    # one has all of it
    axis: str = ""


class Outcome(NamedTuple):
    """How a child did."""

    # [] float32, of the evaluation images: the objective's metric, or its negative where less is
    # better (`Measure`); 0 of a failed child
    accuracy: Array
    loss: Array  # [] float32, the objective's loss there, neither smoothed nor weighted
    ok: Array  # [] bool: loss and metric stayed finite
    # All metrics of the objective, [] float32 each; None of what was not judged
    figures: dict[str, Array] | None = None
    # [] int32 as `Metrics.stopped`: then `accuracy` is expected, the others are as they were read
    stopped: Array | None = None


class Progress(NamedTuple):
    """A child in training."""

    vector: Array  # [P] all parameters, in the order of `Network.packing`
    momentum: Any  # of the optimizer
    average: Array | None = None  # [P] of the parameters so far; None: none is taken
    loss: Array | None = None  # [] sum over the steps so far; None: nobody asks


def begin(ctx: Context, arch: Array, key: Array, start: Params | None = None) -> Progress:
    """The child `arch` [T] before its first step, with the parameters `start` or fresh ones."""
    params = ctx.network.init(jax.random.split(key, 3)[0], arch) if start is None else start
    vector = raveled(ctx, params)
    momentum = optimizer.sgd(ctx.settings, jnp.ones(())).init(vector)
    return Progress(vector, momentum, vector if ctx.recipe.ema else None)


def lost(vector: Array) -> Array:
    """[..] bool: no parameter of [.., P] is a number, and no step will make it one.

    So it is from the step on of which the loss was none, as gradients are clipped by the norm of
    all; the outcome is that of a failed training.
    """
    return jnp.isnan(vector).all(axis=-1)


def params_of(ctx: Context, arch: Array, progress: Progress) -> Params:
    """The parameters of a child in training, or their average, as its network has them."""
    return ctx.network.packing.unpack(decayed(ctx, arch)[1](vector_of(progress)))


def vector_of(progress: Progress) -> Array:
    """[P] the parameters of a child in training, or their average."""
    return progress.vector if progress.average is None else progress.average


def raveled(ctx: Context, params: Params) -> Array:
    """[P] `params`, or their derivatives, as `Progress.vector`."""
    return jax.flatten_util.ravel_pytree(ctx.network.packing.pack(params))[0]


def decayed(ctx: Context, arch: Array | np.ndarray) -> tuple[Array, Callable[[Array], Any]]:
    """([P] 1 for weights and 0 for others, vector [P] -> packed parameters)."""
    shapes = jax.eval_shape(ctx.network.init, jax.random.key(0), arch)
    return jax.flatten_util.ravel_pytree(ctx.network.packing.pack(optimizer.weights(shapes)))


def minibatches_of(ctx: Context, data: Data, key: Array) -> Minibatches:
    """Those that a child with this `key` is trained on."""
    _, order, augment = jax.random.split(key, 3)
    size = ctx.settings.batch_size
    return minibatches.make(data, ctx.pipeline, size, order, augment, ctx.axis)


def loss(ctx: Context, params: Params, arch: Array, batch: Batch) -> Array:
    """[] float32: what training minimises on a minibatch."""
    outputs, smoothing = ctx.network.apply(params, arch, batch.images), ctx.settings.label_smoothing
    own = ctx.objective.loss(outputs, batch.labels, smoothing)
    if batch.others is None:
        return own
    # Losses that images may be mixed with are linear in their targets (`Objective.loss`).
    share = batch.others.share
    return (1 - share) * own + share * ctx.objective.loss(outputs, batch.others.labels, smoothing)


def advance(
    ctx: Context,
    data: Data,
    arch: Array,
    key: Array,
    progress: Progress,
    first: Array | int,
    last: Array,
    steps: Array,
    epoch_start: Array | int | None = None,
) -> Progress:
    """A child of `begin` after steps `first` to `last` of `steps`, all [] int32.

    An epoch begins at `epoch_start` (None: at `first`), so that a training may be cut anywhere.
    """
    epoch_start = first if epoch_start is None else epoch_start
    key_mix, batches = jax.random.fold_in(key, _MIX), minibatches_of(ctx, data, key)
    weights, as_params = decayed(ctx, arch)

    def train_step(step: Array, now: Progress, images: Array, labels: Array) -> Progress:
        batch = recipes.mix(ctx.recipe, key_mix, step, images, labels)
        found = jax.value_and_grad(lambda vector: loss(ctx, as_params(vector), arch, batch))(
            now.vector
        )
        # The mean of the devices' means is that of the minibatch, as their parts are of one size.
        value, gradient = lax.pmean(found, ctx.axis) if ctx.axis else found
        return updated(ctx, weights, now, value, gradient, step, steps)

    return minibatches.over_steps(batches, train_step, progress, first, last, epoch_start)


def updated(
    ctx: Context,
    weights: Array,
    now: Progress,
    value: Array,
    gradient: Array,
    step: Array,
    steps: Array,
) -> Progress:
    """After a step whose loss has the `value` [] and the `gradient` [P]; `weights` decay."""
    chain = optimizer.sgd(ctx.settings, weights)
    update, momentum = chain.update(gradient, now.momentum, now.vector)
    rate = optimizer.learning_rate(ctx.settings, step, steps)
    vector, average = now.vector - rate * update, now.average
    if average is not None:
        average = recipes.averaged(ctx.recipe, step, average, vector)
    return Progress(vector, momentum, average, None if now.loss is None else now.loss + value)


def train(
    ctx: Context, data: Data, arch: Array, key: Array, steps: Array, start: Params | None = None
) -> Params:
    """Parameters of the child `arch` [T] after `steps` [] steps of SGD from `start`.

    None: from fresh ones. With `Recipe.ema`, their average; `evaluate` estimates the statistics of
    normalisations anew, so that they are the average's own.
    """
    progress = begin(ctx, arch, key, start)
    return params_of(ctx, arch, advance(ctx, data, arch, key, progress, 0, steps, steps))


def evaluate(
    ctx: Context, data: Data, arch: Array, params: Params, active: Array
) -> tuple[Stats, Outcome]:
    """Re-estimates normalisation statistics on training images, then judges the child.

    `active` [] bool: False skips the work, and the outcome means nothing.
    """
    start = ctx.objective.empty(data.eval_labels.shape[0])
    stats, state = collect(ctx, data, arch, params, active, start, jnp.int32(0))
    return stats, outcome(ctx, state)


def outcome(ctx: Context, state: State) -> Outcome:
    """How the child did whose answers to all evaluation images `state` holds."""
    figures = {n: x.astype(jnp.float32) for n, x in ctx.objective.figures(state).items()}
    measure = ctx.objective.measure
    value, loss = figures[measure.name], figures["loss"]
    ok = jnp.isfinite(loss) & jnp.isfinite(value)
    return Outcome(jnp.where(ok, measure.sign * value, 0.0), loss, ok, figures)


def collect(
    ctx: Context,
    data: Data,
    arch: Array,
    params: Params,
    active: Array,
    state: State,
    first: Array,
) -> tuple[Stats, State]:
    """(statistics of normalisations, the objective's `state` with the evaluation images of `data`).

    These are its images from `first` [] int32 on, of as many as it was made for. Training and
    evaluation batches run through one loop, so that the network is compiled once.
    """
    packing = ctx.network.packing
    params = packing.pack(params)
    batch, calibration = judged_at_once(ctx.settings, data)
    batches = calibration + -(-data.eval_labels.shape[0] // batch)

    def step(i: Array, carry: tuple[Stats, State]) -> tuple[Stats, State]:
        sums, state = carry
        given = judged_batch(ctx, data, i)
        estimate, counted = given.estimates, given.counted
        outputs, moments = ctx.network.apply_eval(
            params, average(sums, calibration), arch, given.images, estimate
        )
        sums = added(sums, moments, estimate)
        return sums, ctx.objective.collect(
            state, outputs, given.labels, first + given.rows, counted
        )

    start = (packing.pack_stats(ctx.network.init_stats()), state)
    sums, state = lax.fori_loop(0, jnp.where(active, batches, 0), step, start)
    return packing.unpack_stats(average(sums, calibration)), state


class JudgedBatch(NamedTuple):
    """What a step of `collect` looks at."""

    estimates: Array  # [] bool: statistics, of training images
    images: Array  # [B, H, W, C]
    # Of evaluation images; no matter where statistics are estimated
    labels: Array  # [B, ..]
    rows: Array  # [B] int32
    counted: Array  # [B] bool: judged, and not only there to fill the batch


def judged_batch(ctx: Context, data: Data, i: Array) -> JudgedBatch:
    """The images of step `i` [] int32."""
    batch, calibration = judged_at_once(ctx.settings, data)
    count, total = data.train_labels.shape[0], data.eval_labels.shape[0]
    estimates = i < calibration
    train_rows = (i * batch + jnp.arange(batch)) % count
    rows = (i - calibration) * batch + jnp.arange(batch)
    counted, rows = ~estimates & (rows < total), jnp.clip(rows, 0, total - 1)
    images = jnp.where(estimates, data.train_images[train_rows], data.eval_images[rows])
    return JudgedBatch(
        estimates, ctx.pipeline.normalise(images), data.eval_labels[rows], rows, counted
    )


def added(sums: Stats, moments: Stats, estimates: Array) -> Stats:
    """Sums of means and mean squares with those of a batch, where it `estimates` [] bool any."""
    raw = jax.tree.map(lambda m: Moments(m.mean, m.var + m.mean**2), moments, is_leaf=_leaf)
    return jax.tree.map(lambda s, m: jnp.where(estimates, s + m, s), sums, raw)


def judged_at_once(settings: Children, data: Data) -> tuple[int, int]:
    """(images of a step of `collect`, how many steps estimate the statistics).

    `Children.eval_batch`, or an equal part of these where images are large: no more than a step of
    training has, or than have `_PIXELS`. Statistics come from as many images in all.
    """
    most = min(settings.eval_batch, data.train_labels.shape[0], data.eval_labels.shape[0])
    pixels = math.prod(data.train_images.shape[1:-1])
    parts = -(-most // max(settings.batch_size, _PIXELS // pixels))
    return -(-most // parts), settings.calibration * parts


def _leaf(node: Any) -> bool:
    return isinstance(node, Moments)


def average(sums: Stats, batches: Array | int) -> Stats:
    """Sums of means and of mean squares -> mean and variance over all batches together."""

    def moments(s: Moments) -> Moments:
        mean = s.mean / batches
        return Moments(mean, jnp.maximum(s.var / batches - mean**2, 0.0))

    return jax.tree.map(moments, sums, is_leaf=_leaf)
