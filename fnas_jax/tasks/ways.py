"""How children are trained here: by which code, how many at once, on how many images."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from fnas_jax.core import devices, hosts
from fnas_jax.core.types import Array, UserError
from fnas_jax.networks import elastic, regions
from fnas_jax.networks.base import Network
from fnas_jax.networks.dense import Outputs
from fnas_jax.spaces.base import Space
from fnas_jax.tasks.context import TrainContext
from fnas_jax.tasks.data import Dataset
from fnas_jax.training import autotune, child, parts, population, regional
from fnas_jax.training.autotune import Way
from fnas_jax.training.config import Children
from fnas_jax.training.minibatches import Data

TIMED_STEPS = 8  # by which ways of training are compared
ALONE = 4  # children that are compiled to time programs for each


def images_at_once(wanted: int, dataset: Dataset, mesh: Mesh) -> int | None:
    """How many images are on a device at a time; None: all of them.

    `wanted` 0: all, if they take at most half of the device's memory, else as many as take a sixth
    of it, as three such parts may be there at a time. CPUs share the host's memory.
    """
    count = max(len(dataset.train_labels), len(dataset.val_labels))
    if not wanted:
        parts = (dataset.train_images, dataset.val_images)
        memory = devices.memory(mesh)
        if sum(part.nbytes for part in parts) <= memory / 2:
            return None
        wanted = int(memory / 6 / (dataset.train_images.nbytes / len(dataset.train_labels)))
    return wanted if wanted < count else None


def children_by(ctx: TrainContext, network: Network, mesh: Mesh) -> population.Context:
    """How children of `network` are trained on `mesh`: by the way that is the fastest there."""
    way = way_of(ctx, mesh)
    # What children share is that of the first backend, also where each has a program of its own.
    if way.backend in (*elastic.NOT_SHARED, shared_backends(ctx)[0]):
        return _by(ctx, network, way, mesh)
    return _by(ctx, _network(ctx, way.backend), way, mesh)


def shared_backends(ctx: TrainContext) -> tuple[str, ...]:
    """Those that run programs of many children."""
    found = _backends(ctx)
    return tuple(name for name in found if name not in elastic.NOT_SHARED) or found


def _backends(ctx: TrainContext) -> tuple[str, ...]:
    return elastic.backends(ctx.space, ctx.settings.backend, ctx.dataset.outputs)


def _by(ctx: TrainContext, network: Network, way: Way, mesh: Mesh) -> population.Context:
    trained = child.Context(network, ctx.settings, ctx.pipeline, ctx.objective)
    sizes = ctx.space, ctx.dataset.image_shape[-1], ctx.dataset.outputs
    return trained_by(way.backend, population.Context(trained, mesh, way.group), *sizes)


def trained_by(
    backend: str, ctx: population.Context, space: Space, channels: int, classes: Outputs
) -> population.Context:
    """`ctx`, whose children are trained by `backend`, which its network is of."""
    sizes = space, channels, classes
    if backend == elastic.EXACT:
        return ctx._replace(own=functools.partial(elastic.exact_network, *sizes))
    if backend == elastic.REGIONAL:
        return ctx._replace(by=functools.partial(regional.compiled, regions.make(*sizes)))
    return ctx


def _network(ctx: TrainContext, backend: str) -> Network:
    dataset = ctx.dataset
    return elastic.make(ctx.space, dataset.image_shape[-1], dataset.outputs, backend)


def way_of(ctx: TrainContext, mesh: Mesh) -> Way:
    """The fastest way of training children on `mesh`.

    As `children.backend` and `children.group` say, where these leave nothing open. Raises UserError
    for a group where each child has a program of its own.
    """
    settings, dataset = ctx.settings, ctx.dataset
    if settings.halving:
        settings = dataclasses.replace(settings, group=_alone(settings))
    most = devices.padded_size(ctx.config.search.batch, mesh) // mesh.shape[devices.CHILDREN]
    backends = _backends(ctx)
    if settings.backend in elastic.NOT_SHARED and settings.group > 1:
        raise UserError(
            f"children.group is {settings.group}, and by children.backend={settings.backend} one"
            " child is trained at a time; allowed are 0 and 1"
        )
    if jax.default_backend() == "cpu":
        # Together they would only share what each has to itself in turn.
        return Way(
            backends[0], 1 if backends[0] in elastic.NOT_SHARED else min(settings.group or 1, most)
        )
    ways = ways_of(backends, settings.group, most)
    if settings.group and len(ways) == 1:
        return ways[0]
    own = devices.children_mesh(jax.local_devices()[:1])
    count = images_at_once(settings.device_images, dataset, own)
    seconds = functools.partial(seconds_of_a_step, ctx, own, most, count)
    kind, shape = jax.local_devices()[0].device_kind, dataset.image_shape
    described = (ctx.space.spec, shape, dataset.outputs, count, most)
    name = f"{kind} jax {jax.__version__} {described} {settings}"
    steps = settings.steps * ctx.config.search.budget / mesh.shape[devices.CHILDREN]
    chosen = np.array([0, 1], np.int32)
    if hosts.is_first():
        way = autotune.fastest(seconds, ways, name, ctx.config.jax.cache_dir, steps)
        chosen = np.asarray([backends.index(way.backend), way.group], np.int32)
    if mesh.is_multi_process:  # a plan is made by one host, with its own devices
        chosen = hosts.broadcast(chosen)
    return Way(backends[int(chosen[0])], int(chosen[1]))


def _alone(settings: Children) -> int:
    """The group where children stop early, which those of one program at once cannot. UserError."""
    if settings.group > 1:
        raise UserError(
            f"children.group is {settings.group}, and with children.halving={settings.halving} some"
            " children stop before others, which those that are trained at once cannot; allowed are"
            " 0 and 1"
        )
    return 1


def ways_of(backends: tuple[str, ...], group: int, most: int) -> list[Way]:
    """Those that `children.group` leaves open, in the order in which they are tried.

    That is of how long they took on a GPU (docs/performance.md).
    """
    groups = (min(group, most),) if group else tuple(dict.fromkeys((most, 1)))
    names = [name for name in reversed(backends) if name not in elastic.NOT_SHARED]
    shared = [Way(name, size) for size in groups for name in names]
    each = [Way(name, 1) for name in elastic.NOT_SHARED if name in backends]
    return [*(each if 1 in groups or not shared else ()), *shared]


def seconds_of_a_step(
    ctx: TrainContext, own: Mesh, most: int, count: int | None, way: Way
) -> float | None:
    """Of a child, where `most` are trained `way` on `count` images (None: all).

    With its share of the compilation, where each child has a program of its own; the devices of a
    host share its cores. None where memory does not suffice; by programs of layers, not for the
    largest child.
    """
    exact, dataset = way.backend == elastic.EXACT, ctx.dataset
    most = min(most, ALONE) if exact else most
    images = (dataset.train_images[:count], dataset.train_labels[:count])
    examples = devices.replicate(Data(*images, *(part[:256] for part in images)), own)
    run = population.make(_by(ctx, _network(ctx, way.backend), way, own))
    archs = ctx.canonical(ctx.space.sample(jax.random.key(0), most))

    def seconds(steps: int, archs: Array = archs) -> float:
        n, last = len(archs), devices.replicate(np.int32(steps), own)
        keys = jax.random.key_data(jax.random.split(jax.random.key(1), n))
        given = devices.shard((archs, jnp.ones(n, bool), keys), own)
        return parts.timed(lambda: run(examples, *given, last))[1]

    try:
        if way.backend == elastic.REGIONAL:
            seconds(1, ctx.canonical(jnp.asarray(ctx.space.largest)[None]))
        compiling = seconds(1)
        few = seconds(1)
        step = max(seconds(1 + TIMED_STEPS) - few, 1e-9) / (TIMED_STEPS * most)
        if not exact:
            return step
        compiling = (compiling - few) * len(jax.local_devices()) / most
        return step + compiling / ctx.settings.steps
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return None
