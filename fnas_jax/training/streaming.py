"""Training of a population on images that do not fit into the devices' memory.

The images stay with the host and come in chunks; while the children of a batch train on one chunk,
which they share, the next one is on its way. A chunk is a random share of the images, other in
every epoch, so that batches are drawn without replacement, as `train.train` draws them from all.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from fnas_jax.core import devices
from fnas_jax.core.devices import CHILDREN
from fnas_jax.core.types import Array
from fnas_jax.networks.base import Network
from fnas_jax.training import child, population
from fnas_jax.training.child import Data, Outcome, Pipeline, Settings
from fnas_jax.training.population import Population, Start, Trained


def make(
    network: Network,
    settings: Settings,
    pipeline: Pipeline,
    mesh: Mesh,
    group: int,
    start: Start | None = None,
    *,
    chunk: int,
) -> Population:
    """`populations.make` for `Data` of numpy arrays, of which `chunk` images are on a device.

    Data that is one chunk gives the numbers of that; otherwise batches are drawn in another order,
    and what an epoch's last chunk would not fill is left out of it.
    """

    def begin(arch: Array, key: Array, pool: Any, source: Any) -> Any:
        first = None if start is None else start(pool, arch, source)
        return child.begin(network, settings, arch, key, first)

    def advance(
        progress: Any, data: Data, arch: Array, active: Array, key: Array, span: Any, steps: Array
    ) -> Any:
        first, last = span[0], span[1]
        if group == 1:  # together, a number per child would make the loop select
            last = jnp.where(active, last, first)
        return child.advance(
            network, settings, pipeline, data, arch, key, progress, first, last, steps
        )

    def judge(progress: Any, data: Data, arch: Array, active: Array) -> tuple[Outcome, Any]:
        params = child.params_of(network, arch, progress)
        everything = (network, settings, pipeline, data, arch, params)
        _, outcome = child.evaluate(*everything, active if group == 1 else jnp.bool_(True))
        return outcome, params

    def mapped(function: Callable[..., Any], same: str) -> Callable[..., Any]:
        """`function` of one child over all; `same`: 1 for arguments that all children share."""
        shared = [flag == "1" for flag in same]

        def on_device(*arguments: Any) -> Any:
            def one(own: tuple[Any, ...]) -> Any:
                items = iter(own)
                return function(
                    *(a if s else next(items) for a, s in zip(arguments, shared, strict=True))
                )

            own = tuple(a for a, s in zip(arguments, shared, strict=True) if not s)
            return population.in_groups(one, own, group)

        specs = tuple(PartitionSpec() if s else PartitionSpec(CHILDREN) for s in shared)
        return jax.shard_map(
            on_device, mesh=mesh, in_specs=specs, out_specs=PartitionSpec(CHILDREN), check_vma=False
        )

    begin_all = jax.jit(mapped(begin, "0010"))
    advance_all = jax.jit(mapped(advance, "0100011"), donate_argnums=0)
    judge_all = jax.jit(mapped(judge, "0100"))

    def run(
        data: Data,
        archs: Array,
        active: Array,
        keys: Array,
        steps: Array,
        pool: Any = None,
        sources: Any = None,
    ) -> Trained:
        keys = population.checked_keys(archs, active, keys)
        progress = begin_all(archs, keys, pool, sources)
        total = int(steps)
        for place, span in _prefetched(data, settings, total, chunk, mesh):
            given = devices.replicate((np.asarray(span, np.int32), np.int32(total)), mesh)
            # Three chunks at most: in use, next, and on its way.
            progress = advance_all(
                jax.block_until_ready(progress), place, archs, active, keys, *given
            )
            del place
        outcomes, counts, params = [], [], None
        enough = settings.calibration * settings.eval_batch  # for the statistics
        for part in _parts(len(data.eval_labels), chunk):
            rows = Data(
                data.train_images[:enough],
                data.train_labels[:enough],
                data.eval_images[part],
                data.eval_labels[part],
            )
            outcome, params = judge_all(progress, devices.replicate(rows, mesh), archs, active)
            outcomes.append(outcome)
            counts.append(len(rows.eval_labels))
        return Trained(_joined(outcomes, counts), None if start is None else params)

    return run


def _prefetched(
    data: Data, settings: Settings, steps: int, chunk: int, mesh: Mesh
) -> Iterator[tuple[Data, tuple[int, int]]]:
    """(chunk on the devices, its first step and the one after its last), one chunk ahead."""
    ahead: tuple[Data, tuple[int, int]] | None = None
    for rows, span in _visits(len(data.train_labels), settings.batch_size, steps, chunk):
        part = Data(
            data.train_images[rows],
            data.train_labels[rows],
            data.eval_images[:1],
            data.eval_labels[:1],
        )
        following = devices.replicate(part, mesh), span  # begins to copy and returns
        if ahead is not None:
            yield ahead
        ahead = following
    if ahead is not None:
        yield ahead


def _visits(
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


def _parts(count: int, chunk: int) -> list[slice]:
    """Slices of about equal size, none larger than `chunk`."""
    edges = np.linspace(0, count, math.ceil(count / chunk) + 1).astype(int)
    return [slice(a, b) for a, b in itertools.pairwise(edges)]


def _joined(outcomes: list[Outcome], counts: list[int]) -> Outcome:
    """The outcome on all parts of the evaluation images, of which `counts` are the sizes."""
    weights = np.asarray(counts) / sum(counts)

    def mean(name: str) -> Array:
        parts = (w * getattr(o, name) for w, o in zip(weights, outcomes, strict=True))
        return jnp.asarray(sum(parts), jnp.float32)

    ok = jnp.all(jnp.stack([o.ok for o in outcomes]), axis=0)
    return Outcome(jnp.where(ok, mean("accuracy"), 0.0), mean("loss"), ok)
