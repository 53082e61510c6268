"""Children by programs of their layers, which all children of a space share.

A program for each child takes longer to compile than most children train (docs/performance.md);
one program for all asks at each layer what it is. Here a layer is two programs in training and one
to judge, and a whole space has some hundred of them, in the sizes of `layers.cases`. They are
compiled side by side when a child first needs them, and kept on disk as all others.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator
from concurrent import futures
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fnas_jax.core import devices
from fnas_jax.networks import regions
from fnas_jax.networks.regions import Placed, Region, Regions
from fnas_jax.training import (
    child,
    host_loop,
    layer_programs,
    minibatches,
    one_each,
    population,
    streaming,
)
from fnas_jax.training.host_loop import Common, Layer, Prepared
from fnas_jax.training.layer_programs import Key, Size
from fnas_jax.training.minibatches import Data
from fnas_jax.training.population import Context

# Programs of layers, by kind, region and size, of each device
Known = dict[Any, dict[jax.Device, futures.Future]]


class Function(NamedTuple):
    """What is done with a child."""

    run: Callable[..., Any]  # (prepared, shared, *what is a child's own) -> its result
    trains: bool
    judges: bool


class Task(NamedTuple):
    """A batch of children."""

    ctx: Context
    net: Regions
    common: Common
    function: Function
    compilers: futures.Executor
    known: Known  # of this batch, all devices
    lock: threading.Lock  # of `known`
    stop: threading.Event  # set: nobody waits for the rest, whose results mean nothing


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
        task = Task(ctx, net, common, function, compilers, {}, threading.Lock(), threading.Event())
        try:
            each = [drivers.submit(on_device, task, shared, children, device) for device in local]
            for done in futures.as_completed(each):
                done.result()  # or its error, as soon as there is one
        finally:  # also where somebody interrupts: only what is being compiled comes to its end
            task.stop.set()
            compilers.shutdown(cancel_futures=True)
    parts = [done.result() for done in each]
    return jax.tree.map(lambda *leaves: one_each.joined(ctx.mesh, leaves), *parts)


def on_device(task: Task, shared: Any, children: Any, device: jax.Device) -> Any:
    """Results of the children of `device`, leaves [n, ..], one after another."""
    shared, own = one_each.on(device, (shared, children))
    archs, active = map(np.asarray, population.told(own))
    slots = regions.slots_of(task.net.context)
    zeros = tuple(jax.device_put(np.zeros(regions.size(s), np.float32), device) for s in slots)
    with jax.default_device(device):
        prepared = [
            prepare(task, shared.data, arch if on else None, zeros, device)
            for arch, on in zip(archs, active, strict=True)
        ]
        found = [
            task.function.run(child, shared, *jax.tree.map(lambda leaf, i=i: leaf[i], own))
            for i, child in enumerate(prepared)
        ]
        return jax.tree.map(lambda *leaves: jnp.stack(leaves), *found)


def prepare(
    task: Task,
    data: Data,
    arch: np.ndarray | None,
    zeros: tuple[jax.Array, ...],
    device: jax.Device,
) -> Prepared:
    """The child `arch` [T], whose layers are being compiled; None: one that is not active."""
    placed = () if arch is None else regions.chain(task.net, arch)
    rows = [np.asarray(layer.spec, np.int32) for layer in placed]
    specs, side = jax.device_put(rows, device), data.train_images.shape[1:3]

    def layers(kind: Callable[[Key], Any], batch: int) -> tuple[Layer, ...]:
        return tuple(
            Layer(layer.place, spec, _program(task, kind, layer.region, size, device))
            for layer, spec, size in zip(placed, specs, sizes(placed, batch, *side), strict=True)
        )

    settings = task.ctx.child.settings
    trained: tuple[Layer, ...] = ()
    judged: tuple[Layer, ...] = ()
    if task.function.trains:
        batch = minibatches.size_of(data, settings.batch_size)
        trained = layers(layer_programs.of_training, batch)
    if task.function.judges:
        batch, _ = child.judged_at_once(settings, data)
        judged = layers(layer_programs.of_judging, batch)
    return Prepared(task.common, device, task.stop, trained, judged, zeros)


def _program(
    task: Task, kind: Callable[[Key], Any], region: Region, size: Size, device: jax.Device
) -> futures.Future:
    """The programs of a layer, which a thread compiles unless that was done."""
    with task.lock:
        of_devices = task.known.setdefault((kind, region, size), {})
        if device not in of_devices:
            # JAX keeps what GPUs run for all devices of a kind, what others run for each.
            one_for_all = device.platform == "gpu"
            first = next(iter(of_devices.values()), None) if one_for_all else None
            key = Key(region, size, device)
            of_devices[device] = task.compilers.submit(_after, first, kind, key)
        return of_devices[device]


def _after(first: futures.Future | None, kind: Callable[[Key], Any], key: Key) -> Any:
    """Compiled once another device has the same, which is then read from JAX's cache.

    It was asked for before, so that no thread waits for what no thread would come to.
    """
    if first is not None:
        first.exception()
    return kind(key)


def sizes(layers: tuple[Placed, ...], batch: int, height: int, width: int) -> Iterator[Size]:
    """Of what each layer is given."""
    for layer in layers:
        yield Size(batch, height, width)
        stride = layer.region.slot.stride
        height, width = -(-height // stride), -(-width // stride)


FUNCTIONS = {
    population.of_rate: Function(host_loop.of_rate, trains=True, judges=True),
    population.train_child: Function(host_loop.train_child, trains=True, judges=True),
    streaming.advance_child: Function(host_loop.advance_child, trains=True, judges=False),
    streaming.judge_child: Function(host_loop.judge_child, trains=False, judges=True),
}
