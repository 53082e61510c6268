"""Batches of children that take long: kept on the way, so that none begins again from zero.

Their children train side by side, in parts of some seconds (`training.streaming`), and not one
after another in one program, which cannot be left. So the devices hold the state of all of them,
and a batch consists of several calls: nothing to those that take long, but those that do not
(`are_long`) stay one program.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fnas_jax.core import devices, hosts, identity
from fnas_jax.core.keep import BATCHES, Keep
from fnas_jax.core.types import Array
from fnas_jax.tasks import protocols
from fnas_jax.tasks.context import TrainContext
from fnas_jax.training import parts, population, streaming
from fnas_jax.training.child import Progress
from fnas_jax.training.minibatches import Data
from fnas_jax.training.parts import Kept
from fnas_jax.training.population import Child, Context, Population, Trained
from fnas_jax.training.streaming import Compiled

SECONDS = 60.0  # of one device: batches that take longer by `RATE` are kept
# Multiply-adds a second of a device in training, about: the kernels for CPUs make 12 to 50 thousand
# million on a core (docs/performance.md). Not measured, because all hosts and all starts of a run
# have to agree on how its children are trained.
RATE = {"cpu": 2e10}
ACCELERATOR = 1e12
PASSES = 3  # of a training step, in those forward


def are_long(ctx: TrainContext) -> bool:
    """Whether a batch of the search's size takes long, were all children the largest ones."""
    # As many as a batch has: the program that says what they cost serves batches, too.
    batch = jnp.tile(jnp.asarray(ctx.space.largest), (ctx.config.search.batch, 1))
    macs = np.asarray(ctx.cost(batch)[1], np.float64).sum()
    settings, images = ctx.settings, len(ctx.dataset.train_labels)
    count = settings.steps * min(settings.batch_size, images)
    rate = RATE.get(jax.default_backend(), ACCELERATOR)
    return PASSES * macs * count / rate > SECONDS


def make(ctx: TrainContext, trained: Context, chunk: int | None) -> Population:
    """As `population.make`, or `streaming.make` where there is a chunk, for batches that are kept.

    With data on the devices, unless it comes in chunks.
    """
    if chunk is not None:
        chunk = streaming.told(chunk, trained)
    return functools.partial(train, ctx, trained, streaming.compiled(trained), chunk)


def train(
    ctx: TrainContext,
    how: Context,
    steps_of: Compiled,
    chunk: int | None,
    data: Data,
    archs: Array,
    active: Array,
    keys: Array,
    steps: Array,
    pool: object = None,
    sources: object = None,
) -> Trained:
    """The population of `make`; its last arguments are those of `population.make`."""
    children = Child(archs, active, population.checked_keys(archs, active, keys), sources)
    total = int(np.asarray(steps))
    begun = steps_of.begin(pool, children)
    of, name = described(ctx, (archs, active, raw(keys)), begun, chunk)
    training = streaming.training_of(how, steps_of, children, total)._replace(name=name, of=of)
    start = kept(ctx.keep, training, begun, how)
    spans = streaming.spans(how.child.settings, how.mesh, data, total, chunk, start.step)
    progress = parts.run(training, start, spans, ctx.keep)
    return streaming.judged(how, steps_of, chunk, data, (progress, children))


def described(
    ctx: TrainContext, given: tuple[Array, Array, Array], begun: Progress, chunk: int | None
) -> tuple[str, str]:
    """(what a batch is of: equal texts, equal numbers at every step; a name that tells batches).

    But for rounding, where an accelerator's backend is chosen anew (`ways.way_of`). `given`
    are architectures, which of them are active, and keys. What they start from, be it a pool or
    not, is in `begun`.
    """
    batch = identity.of_arrays(hosts.gather(given))
    of = {
        "batch": batch,
        "begun": identity.of_arrays(hosts.gather(begun.vector)),
        "children": protocols.of_images(ctx, "begun"),
        "space": ctx.space.key,
        "chunk": chunk,
    }
    return identity.text(of), f"{BATCHES} {batch}"


def raw(keys: Array) -> Array:
    """The data of keys, which may be such."""
    typed = jax.dtypes.issubdtype(keys.dtype, jax.dtypes.prng_key)
    return jax.random.key_data(keys) if typed else keys


def kept(keep: Keep, training: parts.Training, begun: Any, how: Context) -> Kept:
    """The newest state of a batch that was kept, on the devices; `begun` where there is none."""
    first = Kept(0, 0.0, hosts.gather(begun))
    found = keep.load(training.name, training.of, first)
    if not hosts.broadcast(np.int32(found.step)):
        return first._replace(progress=begun)
    found = Kept(*hosts.broadcast(tuple(found)))
    return Kept(int(found.step), float(found.seconds), devices.shard(found.progress, how.mesh))
