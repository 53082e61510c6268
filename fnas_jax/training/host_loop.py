"""The training of a child by programs of its layers, which the host runs one after another.

The steps are those of `child.advance` and `child.collect`, and the numbers are theirs but for
rounding. What a device is given it does in order, so that the host is ahead of it and nobody waits.
"""

from __future__ import annotations

import dataclasses
import functools
import threading
from collections.abc import Callable
from concurrent import futures
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fnas_jax.core.types import Array
from fnas_jax.networks import mobile, regions
from fnas_jax.networks.regions import Regions
from fnas_jax.training import child as child_lib
from fnas_jax.training import minibatches, population, streaming
from fnas_jax.training.child import JudgedBatch, Progress
from fnas_jax.training.layer_programs import OfTraining
from fnas_jax.training.minibatches import Data
from fnas_jax.training.population import Child, Context, Shared, Trained
from fnas_jax.training.streaming import Judged, Part, Span


class Layer(NamedTuple):
    """A layer of a child, on a device."""

    place: int  # among `regions.slots_of`
    spec: Array  # [FIELDS] int32
    programs: futures.Future  # of `layer_programs`


class Now(NamedTuple):
    """A child in training."""

    progress: Progress
    flats: list[Array]  # its parameters: the vectors of the layers at all places,
    end: Any  # and of what follows them
    step: Array  # [] int32, the next


class Common(NamedTuple):
    """The programs between layers, each compiled when it is first needed."""

    ctx: Context
    net: Regions
    begin: Callable[..., Progress]  # (pool, child) -> its progress
    flats: Callable[[Array], tuple[list[Array], Any]]  # vector [P] -> as `_flats` has it
    order: Callable[..., Array]  # (data, key, epoch) -> as `minibatches.order_of`
    # (data, order, key, step, epoch's first step) -> images, labels
    load: Callable[..., tuple[Array, Array]]
    last: Callable[..., tuple[Any, Array, Array]]  # see `_last`
    update: Callable[..., Now]  # see `_update`
    params: Callable[[Array, Progress], Any]
    batch: Callable[..., JudgedBatch]  # (data, step of the judging)
    collect: Callable[..., Any]  # see `_collect`
    stats: Callable[..., Any]  # (sums of each place, batches) -> of the network
    outcome: Callable[[Any], Any]


class Prepared(NamedTuple):
    """A child and all that its training takes, on a device."""

    common: Common
    device: jax.Device
    stop: threading.Event  # set: what is still to be done is asked for by nobody
    trained: tuple[Layer, ...]  # its layers in training; none where it is not active,
    judged: tuple[Layer, ...]  # and as they are judged
    zeros: tuple[Array, ...]  # of each place: the gradient of a layer that is not there


def train_child(one: Prepared, shared: Shared, own: Child, rate: Array | None = None) -> Trained:
    """As `population.train_child`; by the learning rate `rate` [], or that of the settings."""
    ctx, zero = one.common.ctx, jnp.int32(0)
    progress = one.common.begin(shared.pool, own)
    span = Span(shared.data, zero, shared.steps, zero, shared.steps)
    progress = advance_child(one, span, progress, own, rate)
    state = ctx.child.objective.empty(shared.data.eval_labels.shape[0])
    judged = judge_child(one, Part(shared.data, zero), progress, own, state)
    return Trained(one.common.outcome(judged.state), judged.params, judged.stats)


def of_rate(one: Prepared, shared: Shared, own: Child) -> tuple[Array, Array]:
    """As `population.of_rate`."""
    return population.read(train_child(one, shared, own, own.source).outcome)


def advance_child(
    one: Prepared, span: Span, progress: Progress, own: Child, rate: Array | None = None
) -> Progress:
    """As `streaming.advance_child`; by the `rate` [], or that of the settings."""
    programs, data, settings = one.common, span.data, one.common.ctx.child.settings
    first, last, epoch_start = (int(n) for n in (span.first, span.last, span.epoch_start))
    if not one.trained or first >= last:
        return progress
    layers = [(layer.place, layer.spec, layer.programs.result()) for layer in one.trained]
    size = minibatches.size_of(data, settings.batch_size)
    per_epoch = data.train_labels.shape[0] // size
    # What was computed is bound to its device, what is given need not be: two programs of each.
    given = progress, span.first, np.float32(settings.lr) if rate is None else rate
    progress, step, rate = jax.device_put(given, one.device)
    now = Now(progress, *programs.flats(progress.vector), step)
    order = None
    for number in range(first, last):
        if one.stop.is_set():
            break
        position = (number - epoch_start) % per_epoch
        if order is None or not position:
            order = programs.order(data, own.key, np.int32((number - position) // per_epoch))
        batch = programs.load(data, order, own.key, now.step, span.epoch_start)
        found = gradients(one, layers, now, *batch)
        now = programs.update(now, *found, span.steps, rate)
    return now.progress


def gradients(
    one: Prepared, layers: list[tuple[int, Array, OfTraining]], now: Now, x: Array, labels: Array
) -> tuple[list[Array], Any, Array]:
    """(of each place, of what follows the layers, the loss) of the images x and their labels."""
    done = []
    for place, spec, programs in layers:
        result, kept = programs.forward(now.flats[place], x, spec)
        done.append((place, spec, programs.backward, x, kept))
        x = result
    of_end, g, value = one.common.last(now.end, x, labels)
    found = list(one.zeros)
    while done:  # what a layer has kept is free again behind it
        place, spec, backward, x, kept = done.pop()
        found[place], *before = backward(now.flats[place], x, spec, kept, g)
        g = before[0] if before else g  # the derivative of data is not asked for
    return found, of_end, value


def judge_child(one: Prepared, part: Part, progress: Progress, own: Child, state: Any) -> Judged:
    """As `streaming.judge_child`."""
    programs, ctx = one.common, one.common.ctx
    batch, calibration = child_lib.judged_at_once(ctx.child.settings, part.data)
    count = calibration + -(-part.data.eval_labels.shape[0] // batch)
    flats, end = programs.flats(child_lib.vector_of(progress))
    slots = regions.slots_of(programs.net.context)
    state = jax.device_put(state, one.device)
    sums = [jax.device_put(regions.zero_stats(slot), one.device) for slot in slots]
    layers = [(layer.place, layer.spec, layer.programs.result()) for layer in one.judged]
    batches = jnp.int32(calibration)
    for i in range(count if layers else 0):
        if one.stop.is_set():
            break
        of = programs.batch(part.data, np.int32(i))
        x = of.images
        for place, spec, judge in layers:
            x, sums[place] = judge(flats[place], x, spec, sums[place], of.estimates, batches)
        if i >= calibration:
            state = programs.collect(end, x, state, of, part.first)
    params = programs.params(own.arch, progress)
    stats = programs.stats(sums, batches) if ctx.keep else None
    handed = population.handed_over(ctx, None, params, stats)
    return Judged(handed.params, handed.stats, state)


# ---- what is between layers


def common(net: Regions, ctx: Context) -> Common:
    """Those for the children of `net`. Raises ValueError for a recipe that mixes images."""
    recipe = ctx.child.recipe
    if recipe.mixup or recipe.cutmix:
        raise ValueError("images of children that are trained layer by layer are not mixed")
    one, bind = ctx.child, functools.partial
    return Common(
        ctx,
        net,
        begin=jax.jit(bind(streaming.begin_child, ctx)),
        flats=jax.jit(bind(_flats, net, one)),
        order=jax.jit(bind(_order, one)),
        load=jax.jit(bind(_load, one)),
        last=jax.jit(bind(_last, net, one)),
        update=jax.jit(bind(_update, net, one)),
        params=jax.jit(bind(child_lib.params_of, one)),
        batch=jax.jit(bind(child_lib.judged_batch, one)),
        collect=jax.jit(bind(_collect, net, one)),
        stats=jax.jit(bind(_stats, net, one)),
        outcome=jax.jit(bind(child_lib.outcome, one)),
    )


def _flats(net: Regions, one: child_lib.Context, vector: Array) -> tuple[list[Array], Any]:
    """(the vectors of the layers at all places, parameters of what follows them)."""
    unravel = child_lib.decayed(one, net.some)[1]
    params = one.network.packing.unpack(unravel(vector))
    layers, last = regions.split(net.context, params)
    return [regions.flat(layer) for layer in layers], last


def _order(one: child_lib.Context, data: Data, key: Array, epoch: Array) -> Array:
    return minibatches.order_of(child_lib.minibatches_of(one, data, key), epoch)


def _load(
    one: child_lib.Context, data: Data, order: Array, key: Array, step: Array, first: Array
) -> tuple[Array, Array]:
    batches = child_lib.minibatches_of(one, data, key)
    return minibatches.load(batches, order, (step - first) % batches.per_epoch, step)


def _last(
    net: Regions, one: child_lib.Context, last: Any, x: Array, labels: Array
) -> tuple[Any, Array, Array]:
    """(derivative of what follows the layers, that of their result x, loss)."""

    def loss(last: Any, x: Array) -> Array:
        outputs = mobile.logits(net.context, last, [], x, x)
        return one.objective.loss(outputs, labels, one.settings.label_smoothing)

    value, found = jax.value_and_grad(loss, (0, 1))(last, x)
    return *found, value


def _update(
    net: Regions,
    one: child_lib.Context,
    now: Now,
    of_places: list[Array],
    of_end: Any,
    value: Array,
    steps: Array,
    rate: Array,
) -> Now:
    """After a step with these `gradients`, of so many `steps` by a `rate` [] at most."""
    changed: dict[str, Any] = {"lr": rate}
    settings = dataclasses.replace(one.settings, **changed)
    one = one._replace(settings=settings)
    slots = regions.slots_of(net.context)
    layers = [regions.unflat(slot, g) for slot, g in zip(slots, of_places, strict=True)]
    gradient = child_lib.raveled(one, regions.join(net.context, layers, of_end))
    weights = child_lib.decayed(one, net.some)[0]
    given = weights, now.progress, value, gradient, now.step, steps
    progress = child_lib.updated(one, *given)
    return Now(progress, *_flats(net, one, progress.vector), now.step + 1)


def _collect(
    net: Regions,
    one: child_lib.Context,
    last: Any,
    x: Array,
    state: Any,
    of: JudgedBatch,
    first: Array,
) -> Any:
    """The objective's state with the answers to a batch of the images from `first` on."""
    outputs = mobile.logits(net.context, last, [], x, x)
    return one.objective.collect(state, outputs, of.labels, first + of.rows, of.counted)


def _stats(net: Regions, one: child_lib.Context, sums: list[Any], batches: Array) -> Any:
    found = regions.join_stats(net.context, sums)
    return one.network.packing.unpack_stats(child_lib.average(found, batches))
