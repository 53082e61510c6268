"""Training of a population step by step, all children of a batch side by side.

For images that do not fit into the devices' memory: they stay with the host and come in chunks;
while the children train on one chunk, which they share, the next one is on its way. A chunk is a
random share of the images, other in every epoch, so that batches are drawn without replacement, as
`child.train` draws them from all. And for batches that take long, which are kept on the way.
"""

from __future__ import annotations

import functools
import itertools
import logging
import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from fnas_jax.core import devices, hosts
from fnas_jax.core.keep import NOWHERE
from fnas_jax.core.types import Array
from fnas_jax.objectives.base import State
from fnas_jax.training import child, parts, population, prefetch
from fnas_jax.training.child import Outcome, Progress
from fnas_jax.training.config import Children
from fnas_jax.training.minibatches import Data
from fnas_jax.training.parts import Training
from fnas_jax.training.population import Child, Context, Population, Trained
from fnas_jax.training.prefetch import Pace

LOG = logging.getLogger(__name__)
QUIET = 10.0  # seconds of a batch of which nothing is shown


class Compiled(NamedTuple):
    """The compiled parts of a training in chunks, for all children at once."""

    begin: Callable[[Any, Child], Progress]
    advance: Callable[[Span, Progress, Child], Progress]  # may overwrite the progress
    lost: Callable[[Progress, Child], Array]  # [] bool: every child that is trained
    empty: Callable[[int, int], State]  # (children, evaluation images) -> states, leaves [N, ..]
    # (a part of the images and the place of its first, progress, children, states) -> what each
    # child's network holds, and its state with this part
    judge: Callable[[Part, Progress, Child, State], Judged]
    end: Callable[[State], Outcome]  # of all children


class Span(NamedTuple):
    """A chunk, and the steps that are made on it."""

    data: Data
    first: Array  # [] int32, as the others
    last: Array  # the one after its last
    epoch_start: Array  # an epoch begins here, no later than `first`
    steps: Array  # of the whole training


class Part(NamedTuple):
    """Some of the evaluation images."""

    data: Data
    first: Array  # [] int32, the place of its first one among all


class Judged(NamedTuple):
    """A child's network, and its answers so far; leaves [N, ..] of all."""

    params: Any  # None unless `Context` asks for them
    stats: Any
    state: State


def make(ctx: Context, chunk: int) -> Population:
    """`population.make` for `Data` of numpy arrays, of which `chunk` images are on a device.

    A chunk holds a batch at least. Data that is one chunk gives the numbers of that; otherwise
    batches are drawn in another order, and what an epoch's last chunk would not fill is left out
    of it.
    """
    return functools.partial(train, ctx, compiled(ctx), told(chunk, ctx))


def told(chunk: int, ctx: Context) -> int:
    """Images that come at a time, which is said: `chunk`, and a minibatch at least."""
    chunk = with_a_batch(chunk, ctx)
    LOG.info("images come to the devices %d at a time", chunk)
    return chunk


def with_a_batch(chunk: int, ctx: Context) -> int:
    """`chunk` images, and a minibatch at least."""
    return max(chunk, ctx.child.settings.batch_size)


def compiled(ctx: Context) -> Compiled:
    """The steps below for all children at once."""
    return Compiled(
        begin=jax.jit(population.over_children(ctx, begin_child)),  # no layer of a child is run
        advance=population.compiled(ctx, advance_child, overwrites=True),
        lost=jax.jit(lost, out_shardings=NamedSharding(ctx.mesh, PartitionSpec())),
        empty=functools.partial(empty, ctx),
        judge=population.compiled(ctx, judge_child),
        end=jax.jit(jax.vmap(functools.partial(child.outcome, ctx.child))),
    )


def begin_child(ctx: Context, pool: Any, own: Child) -> Progress:
    """A child before its first step."""
    start = None if ctx.start is None else ctx.start(pool, own.arch, own.source)
    return child.begin(ctx.child, own.arch, own.key, start)


def advance_child(ctx: Context, span: Span, progress: Progress, own: Child) -> Progress:
    """A child after the steps of a chunk."""
    last = span.last
    if ctx.group == 1:  # together, a number per child would make the loop select
        last = jnp.where(own.active, span.last, span.first)
    given = ctx.child, span.data, own.arch, own.key, progress, span.first, last, span.steps
    return child.advance(*given, span.epoch_start)


def lost(progress: Progress, children: Child) -> Array:
    """[] bool: nothing will come of any child (`child.lost`)."""
    return jnp.all(child.lost(progress.vector) | ~children.active)


def empty(ctx: Context, children: int, total: int) -> State:
    """The objective's states of so many children before the first of `total` images."""
    one = ctx.child.objective.empty(total)
    return jax.tree.map(lambda x: jnp.broadcast_to(x, (children, *x.shape)), one)


def judge_child(ctx: Context, part: Part, progress: Progress, own: Child, state: State) -> Judged:
    """How a child does on a part of the evaluation images."""
    params = child.params_of(ctx.child, own.arch, progress)
    active = own.active if ctx.group == 1 else jnp.bool_(True)
    stats, state = child.collect(ctx.child, part.data, own.arch, params, active, state, part.first)
    handed = population.handed_over(ctx, None, params, stats)
    return Judged(handed.params, handed.stats, state)


def train(
    ctx: Context,
    steps_of: Compiled,
    chunk: int,
    data: Data,
    archs: Array,
    active: Array,
    keys: Array,
    steps: Array,
    pool: Any = None,
    sources: Any = None,
) -> Trained:
    """The population of `make`; its last arguments are those of `population.make`."""
    children = Child(archs, active, population.checked_keys(archs, active, keys), sources)
    start = parts.Kept(0, 0.0, steps_of.begin(pool, children))
    training = training_of(ctx, steps_of, children, int(steps))
    given = spans(ctx.child.settings, ctx.mesh, data, int(steps), chunk)
    progress = parts.run(training, start, given, NOWHERE)
    return judged(ctx, steps_of, chunk, data, (progress, children))


def training_of(ctx: Context, steps_of: Compiled, children: Child, steps: int) -> Training:
    """The training of `children`, which has no name yet."""

    def advance(data: Data, progress: Progress, done: int, upto: int, first: int) -> Progress:
        span = span_of(ctx.mesh, data, done, upto, first, steps)
        return steps_of.advance(span, progress, children)

    def all_lost(progress: Progress) -> bool:
        return bool(np.asarray(steps_of.lost(progress, children)))

    label, host = f"{len(children.active)} children", hosts.gather
    made = Training("", "", label, steps, advance, host, quiet=QUIET, together=True)
    return made._replace(lost=all_lost)


def span_of(mesh: Mesh, data: Data, done: int, upto: int, first: int, steps: int) -> Span:
    """The `Span` on the devices of what `parts.Training.advance` is given, of `steps` in all."""
    numbers = tuple(map(np.int32, (done, upto, first, steps)))
    return Span(data, *devices.replicate(numbers, mesh))


def spans(
    settings: Children, mesh: Mesh, data: Data, steps: int, chunk: int | None, done: int = 0
) -> Iterator[tuple[Data, int, int]]:
    """(images on the devices, the first step that is made of them, the one after the last).

    `chunk` images at a time; None: all of them, which are there. Without what is `done` already.
    """
    if chunk is None:
        yield data, 0, steps
        return
    # Three chunks at most: in use, next, and on its way.
    for part, (first, last) in prefetched(data, settings, steps, chunk, mesh, done):
        yield part, first, last


def judged(
    ctx: Context, steps_of: Compiled, chunk: int | None, data: Data, trained: tuple[Progress, Child]
) -> Trained:
    """The children on all evaluation images, a chunk at a time."""
    total = len(data.eval_labels)
    # Nothing but parameters is looked at, and these are large.
    trained = trained[0]._replace(momentum=None), trained[1]
    state = steps_of.empty(len(trained[1].active), total)
    state = devices.shard(state, ctx.mesh)
    for given in _given(ctx, data, chunk):
        found = steps_of.judge(given, *trained, state)
        state = found.state
    # Statistics come from training images and are those of every part; but where parts are
    # less than a batch, those of another one may come from batches of one image more.
    return Trained(steps_of.end(state), found.params, found.stats)


def _given(ctx: Context, data: Data, chunk: int | None) -> Iterator[Part]:
    """Parts of the evaluation images on the devices, where all are for a chunk of None."""
    if chunk is None:
        yield Part(data, devices.replicate(np.int32(0), ctx.mesh))
        return
    for first, rows in eval_parts(data, ctx.child.settings, chunk):
        yield devices.replicate(Part(rows, jnp.int32(first)), ctx.mesh)


def prefetched(
    data: Data, settings: Children, steps: int, chunk: int, mesh: Mesh, done: int = 0
) -> Iterator[tuple[Data, tuple[int, int]]]:
    """(chunk on the devices, its first step and the one after its last); a thread reads the next.

    Without the chunks whose steps are `done` already.
    """
    every = visits(len(data.train_labels), settings.batch_size, steps, chunk)
    wanted = (visit for visit in every if visit[1][1] > done)
    read = functools.partial(placed, data, mesh)
    for (_, span), part in prefetch.ahead(wanted, read, functools.partial(_tell, chunk)):
        yield part, span


def placed(data: Data, mesh: Mesh, visit: tuple[np.ndarray, tuple[int, int]]) -> Data:
    """The images of a chunk on all devices; of evaluation images one, which no step looks at."""
    rows, _ = visit
    images, labels = data.train_images[rows], data.train_labels[rows]
    return devices.replicate(Data(images, labels, data.eval_images[:1], data.eval_labels[:1]), mesh)


def _tell(chunk: int, pace: Pace) -> None:
    """Says so where the devices waited long for chunks."""
    if told := prefetch.starved(pace, chunk):
        LOG.warning(told)


def visits(
    count: int, batch: int, steps: int, chunk: int
) -> Iterator[tuple[np.ndarray, tuple[int, int]]]:
    """(sorted rows of a chunk, its span of steps) until there are `steps`.

    All chunks have the same size, so that one program serves all; what is left of an epoch is left
    out of it.
    """
    if count <= chunk:
        yield np.arange(count), (0, steps)
        return
    per_chunk = chunk // batch
    done = 0
    for epoch in range(steps + 1):
        order = np.random.default_rng(epoch).permutation(count)
        for i in range(count // chunk):
            if done >= steps:
                return
            last = min(done + per_chunk, steps)
            yield np.sort(order[i * chunk : (i + 1) * chunk]), (done, last)
            done = last


def eval_parts(data: Data, settings: Children, chunk: int) -> Iterator[tuple[int, Data]]:
    """(place of its first, part of the evaluation images), each with what statistics need."""
    enough = settings.calibration * settings.eval_batch
    images, labels = data.train_images[:enough], data.train_labels[:enough]

    def read(part: slice) -> Data:
        return Data(images, labels, data.eval_images[part], data.eval_labels[part])

    for part, rows in prefetch.ahead(iter(_parts(len(data.eval_labels), chunk)), read):
        yield part.start, rows


def _parts(count: int, chunk: int) -> list[slice]:
    """Slices of about equal size, none larger than `chunk`."""
    edges = np.linspace(0, count, math.ceil(count / chunk) + 1).astype(int)
    return [slice(a, b) for a, b in itertools.pairwise(edges)]
