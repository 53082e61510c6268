"""The elastic network of this package: compiled once, children on all cores at once.

On an accelerator, all children of a group at once.
"""

from __future__ import annotations

import functools
import time

import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmarks.throughput import common
from fnas_jax.core import devices
from fnas_jax.networks import elastic
from fnas_jax.objectives import classification
from fnas_jax.training import child, minibatches, population
from fnas_jax.training.config import Children
from fnas_jax.training.minibatches import Data, Pipeline


def begin(cache: str) -> None:
    """Before anything is compiled."""
    devices.use_all_cores()
    devices.enable_compilation_cache(cache)


def settings() -> Children:
    return Children(
        batch_size=common.BATCH,
        lr=common.LR,
        momentum=common.MOMENTUM,
        weight_decay=common.DECAY,
        warmup=common.WARMUP,
        max_grad_norm=common.CLIP,
        eval_batch=common.EVAL_BATCH,
    )


@functools.cache
def contest(space: str, size: int, backend: str) -> tuple:
    """(compiled population of `size` children, data, seconds of compilation)."""
    start = time.perf_counter()
    network = elastic.make(common.space(space), common.CHANNELS, common.CLASSES, backend)
    pipeline = Pipeline(normalise=lambda x: x, augment=minibatches.unchanged)
    mesh = devices.children_mesh()
    one = child.Context(network, settings(), pipeline, classification.of(common.CLASSES))
    at_once = 1 if jax.default_backend() == "cpu" else size
    run = population.jitted(population.Context(one, mesh, at_once))
    data = devices.replicate(Data(*common.images()), mesh)
    nothing = np.zeros((size, len(common.space(space).cardinalities)), np.int32)
    children = shard(space, nothing, np.zeros(size, bool), mesh, 0)
    compiled = run.lower(data, *children, devices.replicate(np.int32(0), mesh)).compile()
    return compiled, data, mesh, time.perf_counter() - start


def shard(
    space: str, archs: np.ndarray, active: np.ndarray, mesh: jax.sharding.Mesh, seed: int
) -> tuple:
    """(archs, active, keys), over the devices of `mesh`."""
    keys = jax.random.split(jax.random.key(seed), len(archs))
    canonical = common.space(space).canonical(jnp.asarray(archs))
    return devices.shard((canonical, active, keys), mesh)


def answer(
    space: str, archs: np.ndarray, steps: int, seed: int, short: bool = False
) -> common.Answer:
    """Trains all children together; `short`: products of bfloat16 numbers, on CPUs."""
    start = time.perf_counter()
    known = contest.cache_info().currsize
    n = len(archs)
    size = devices.padded_size(n, devices.children_mesh())
    compiled, data, mesh, compile_s = contest(space, size, "kernels_bf16" if short else "auto")
    if contest.cache_info().currsize == known:
        compile_s = 0.0
    began = time.perf_counter()
    archs, active = np.pad(archs, ((0, size - n), (0, 0))), np.arange(size) < n
    order = devices.balanced(common.mflops(space, archs) * active, mesh)
    children = shard(space, archs[order], active[order], mesh, seed)
    trained = compiled(data, *children, devices.replicate(np.int32(steps), mesh))
    accuracy = np.empty(size)
    accuracy[order] = np.asarray(trained.outcome.accuracy)
    end = time.perf_counter()
    mean = 1000 * (end - began) / steps / n
    return common.Answer(end - start, compile_s, accuracy[:n].tolist(), [mean] * n)
