"""Children by programs of their layers, which all children of a space share.

A program for each child takes longer to compile than most children train (docs/performance.md);
one program for all asks at each layer what it is. Here a layer is two programs in training and one
to judge, and a whole space has some hundred of them, in the sizes of `layers.cases`. They are
compiled side by side when a child first needs them, and kept on disk as all others.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from concurrent import futures
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fnas_jax.core import devices
from fnas_jax.networks import regions
from fnas_jax.networks.regions import Placed, Regions
from fnas_jax.training import child, host_loop, layer_programs, one_each, population, streaming
from fnas_jax.training.host_loop import Common, Given, Layer
from fnas_jax.training.layer_programs import Key, Size
from fnas_jax.training.minibatches import Data
from fnas_jax.training.population import Context

Known = dict[Any, futures.Future]  # programs of layers, by kind and `Key`


class Function(NamedTuple):
    """What is done with a child, and images of the minibatches in which; 0: there are none."""

    run: Callable[..., Any]  # (given, shared, *what is a child's own) -> its result
    trains: Callable[[Context, Data], int]
    judges: Callable[[Context, Data], int]


class Task(NamedTuple):
    """A batch of children."""

    ctx: Context
    net: Regions
    common: Common
    function: Function
    compilers: futures.Executor
    known: Known  # of this batch, all devices


def compiled(net: Regions, ctx: Context, function: Callable[..., Any]) -> Callable[..., Any]:
    """As `population.compiled`, of one of `FUNCTIONS`."""
    return functools.partial(run, net, ctx, host_loop.common(net, ctx), FUNCTIONS[function])


def run(
    net: Regions, ctx: Context, common: Common, function: Function, shared: Any, *children: Any
) -> Any:
    """Results [N, ..] of `children`, leaves [N, ..] over the devices; `shared` is on all."""
    local = ctx.mesh.local_devices
    with (
        futures.ThreadPoolExecutor(devices.cores()) as compilers,
        futures.ThreadPoolExecutor(len(local)) as drivers,
    ):
        task = Task(ctx, net, common, function, compilers, {})
        try:
            parts = list(drivers.map(lambda d: on_device(task, shared, children, d), local))
        finally:
            compilers.shutdown(cancel_futures=True)
    return jax.tree.map(lambda *leaves: one_each.joined(ctx.mesh, leaves), *parts)


def on_device(task: Task, shared: Any, children: Any, device: jax.Device) -> Any:
    """Results of the children of `device`, leaves [n, ..], one after another."""
    shared, own = one_each.on(device, (shared, children))
    archs, active = map(np.asarray, population.told(own))
    places = regions.places(task.net.context)
    zeros = tuple(jax.device_put(regions.flat(regions.like(slot)), device) for slot in places)
    with jax.default_device(device):
        plans = [
            given(task, shared.data, arch if on else None, zeros, device)
            for arch, on in zip(archs, active, strict=True)
        ]
        found = [
            task.function.run(plan, shared, *jax.tree.map(lambda leaf, i=i: leaf[i], own))
            for i, plan in enumerate(plans)
        ]
        return jax.tree.map(lambda *leaves: jnp.stack(leaves), *found)


def given(
    task: Task,
    data: Data,
    arch: np.ndarray | None,
    zeros: tuple[jax.Array, ...],
    device: jax.Device,
) -> Given:
    """The child `arch` [T], whose layers are being compiled; None: one that is not active."""
    layers = () if arch is None else regions.chain(task.net, arch)
    batches = (f(task.ctx, data) for f in (task.function.trains, task.function.judges))
    kinds, side = (layer_programs.of_training, layer_programs.of_judging), data.train_images.shape
    trained, judged = (
        tuple(
            _layer(task, kind, layer, Key(layer.region, size, device))
            for layer, size in zip(layers, sizes(layers, batch, *side[1:3]), strict=True)
        )
        if batch
        else ()
        for kind, batch in zip(kinds, batches, strict=True)
    )
    return Given(task.common, device, trained, judged, zeros)


def sizes(layers: tuple[Placed, ...], batch: int, height: int, width: int) -> Iterator[Size]:
    """Of what each layer is given."""
    for layer in layers:
        yield Size(batch, height, width)
        stride = layer.region.slot.stride
        height, width = -(-height // stride), -(-width // stride)


def _layer(task: Task, kind: Callable[[Key], Any], layer: Placed, key: Key) -> Layer:
    name = kind, key
    if name not in task.known:  # of two devices' threads, each has keys of its own
        task.known[name] = task.compilers.submit(kind, key)
    spec = jax.device_put(np.asarray(layer.spec, np.int32), key.device)
    return Layer(layer.place, spec, task.known[name])


def _in_training(ctx: Context, data: Data) -> int:
    return min(ctx.child.settings.batch_size, data.train_labels.shape[0])


def _in_judging(ctx: Context, data: Data) -> int:
    return child.judged_at_once(ctx.child.settings, data)[0]


def _never(ctx: Context, data: Data) -> int:
    return 0


FUNCTIONS = {
    population.train_child: Function(host_loop.train_child, _in_training, _in_judging),
    streaming.advance_child: Function(host_loop.advance_child, _in_training, _never),
    streaming.judge_child: Function(host_loop.judge_child, _never, _in_judging),
}
