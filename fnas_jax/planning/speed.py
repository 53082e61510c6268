"""How fast children train here: some steps of a few, on all devices.

Narrow networks do fewer multiply-adds a second than wide ones, because what they move between
layers takes as long. So speed is measured in both, and tells of widths that were not tried.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import scipy.optimize

from fnas_jax.core import devices
from fnas_jax.core.types import Array
from fnas_jax.networks import sizes
from fnas_jax.planning.schedule import Size, Speed
from fnas_jax.tasks import memory, trained, ways
from fnas_jax.tasks.context import TrainContext
from fnas_jax.training import parts, population
from fnas_jax.training.minibatches import Data

_SAMPLE = 256  # architectures that stand for a space
_IMAGES = 1024  # of the data set, which suffice for a few steps
# Of a space's architectures that cost less than those that are timed
_SHARES = (0.1, 0.3, 0.5, 0.7, 0.9)
_LEAST = 1.0  # seconds that are timed, so that a clock and a neighbour matter little
_MOST_STEPS = 512


def sampled(ctx: TrainContext) -> tuple[Array, np.ndarray]:
    """(random architectures [`_SAMPLE`, T], multiply-adds of each)."""
    archs = ctx.canonical(ctx.space.sample(jax.random.key(0), _SAMPLE))
    return archs, np.asarray(jax.jit(ctx.cost)(archs)[1], np.float64)


def of_cost(ctx: TrainContext, share: float) -> tuple[Array, float]:
    """(the architecture [T] of `sampled` that costs more than this share of them, its own cost)."""
    archs, macs = sampled(ctx)
    place = int(np.argsort(macs)[int(share * len(macs))])
    return archs[place], float(macs[place])


def size_of(ctx: TrainContext, moved: float = 0.0) -> Size:
    """Of `_SAMPLE` random architectures, where a number that is moved counts `moved`."""
    archs, macs = sampled(ctx)
    work = sizes.work(ctx.space, ctx.dataset.image_shape, archs, macs, moved)
    return Size(float(work.mean()), float(np.quantile(work, 0.75)))


def kept_by(ctx: TrainContext, arch: np.ndarray) -> float:
    """Numbers that the layers of `arch` [T] keep of an image, by the kernels for CPUs."""
    return sizes.numbers_kept(ctx.space, ctx.dataset.image_shape, arch)


def measure(ctx: TrainContext) -> Speed:
    """Times architectures of several costs, on every device as many as it trains at once.

    Where it is not the kernels for CPUs that train, one of the middle cost.
    """
    moves = memory.here(ctx).kernels
    chosen = [of_cost(ctx, share) for share in (_SHARES if moves else (0.5,))]
    compilation, seconds, alone = timed(ctx, jnp.stack([arch for arch, _ in chosen]))
    macs = np.array([macs for _, macs in chosen])
    if not moves:
        return Speed(macs[0] / float(seconds[0]), compilation, own=compilation * alone)
    return fitted(
        macs, np.array([kept_by(ctx, np.asarray(a)) for a, _ in chosen]), seconds
    )._replace(compilation=compilation)


def fitted(macs: np.ndarray, kept: np.ndarray, seconds: np.ndarray) -> Speed:
    """The speed by which images of such work [N] took these seconds [N] each, by least squares.

    seconds = macs / `Speed.macs` + kept * `Speed.moved` / `Speed.macs`, neither below 0.
    """
    scale = np.stack([macs / seconds, kept / seconds], axis=1)  # relative errors count alike
    each, moving = scipy.optimize.nnls(scale / scale.max(0), np.ones(len(macs)))[0] / scale.max(0)
    if not each:  # moving is all: counted as if multiply-adds were nearly nothing
        each = 1e-3 * moving
    return Speed(float(1 / each), 0.0, float(moving / each))


def timed(ctx: TrainContext, archs: Array) -> tuple[float, np.ndarray, bool]:
    """(seconds of compilation, seconds of an image [N] on each device) of architectures [N, T].

    And whether each child has a program of its own, so that each is compiled.
    """
    network = trained.elastic_network(ctx)
    mesh = devices.children_mesh(jax.local_devices())  # of the host that plans
    by = ways.children_by(ctx, network, mesh)
    run, group = population.make(by), by.group
    count = group * mesh.shape[devices.CHILDREN]
    dataset = ctx.dataset
    images = np.asarray(dataset.train_images[:_IMAGES]), dataset.train_labels[:_IMAGES]
    examples = devices.replicate(Data(*images, *(part[:1] for part in images)), mesh)
    batch = min(ctx.settings.batch_size, len(images[1]))

    def seconds(arch: Array, steps: int) -> float:
        keys = jax.random.key_data(jax.random.split(jax.random.key(1), count))
        given = devices.shard((jnp.tile(arch, (count, 1)), jnp.ones(count, bool), keys), mesh)
        last = devices.replicate(np.int32(steps), mesh)
        return parts.timed(lambda: run(examples, *given, last))[1]

    compilation = seconds(archs[0], 1)

    def of_image(arch: Array) -> float:
        few, steps = seconds(arch, 1), 8
        while (taken := seconds(arch, 1 + steps) - few) < _LEAST and steps < _MOST_STEPS:
            steps *= 2
        return max(taken, 1e-6) / (steps * batch * group)

    return compilation, np.array([of_image(arch) for arch in archs]), by.own is not None
