"""Whether children fit into the memory of the devices, told before the first one is trained.

What does not fit would be killed by the system without a word (CPUs), or fail in the first batch
(accelerators). The estimate is made without compiling anything. Its formulas are held against JAX's
derivatives by tests (`networks.sizes`); that it covers all else was compared with a few runs only.
"""

from __future__ import annotations

import dataclasses
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fnas_jax.core import devices
from fnas_jax.core import memory as memory_lib
from fnas_jax.core.types import UserError
from fnas_jax.layers import choose
from fnas_jax.networks import elastic, mobile_spaces, sizes
from fnas_jax.networks.base import Network
from fnas_jax.networks.sizes import Kept
from fnas_jax.tasks import halved, long_batches, trained
from fnas_jax.tasks.context import TrainContext
from fnas_jax.training import child, one_each
from fnas_jax.training.minibatches import Data

SAMPLE = 64  # random children, of which the one that keeps most has to fit
# Of parameters while a child is trained: themselves, as tensors, their gradients as such and as one
# vector, momentum, and two that the optimiser works in (`training.child.advance`).
COPIES = 7
GIB = 2**30
_TRACED = 5  # times as much as the kernels keep, at most, other code does


class Need(NamedTuple):
    """Bytes on a device while children are trained there, by what they are for."""

    parameters: float  # with gradients and the optimiser's
    activations: float  # that a step keeps, and what the largest layer works in
    images: float  # of the data set on the device, and the minibatch
    pool: float  # that children start from
    trained: float  # parameters of the batch's children, on their way to the pool

    @property
    def total(self) -> float:
        """All of it."""
        return sum(self)


class Machine(NamedTuple):
    """Where children are trained."""

    kind: str
    devices: int
    memory: float  # bytes that each has, of which nothing is taken yet
    kernels: bool  # layers run by the kernels for CPUs
    shared: bool  # the devices are cores, which have one memory and train a child each
    number_bytes: int = sizes.FLOAT  # of what layers keep by kernels


class Sizes(NamedTuple):
    """Bytes of a network in training."""

    kept: Kept  # of an image
    parameters: float


def here(ctx: TrainContext) -> Machine:
    """Those of this host. CPUs share what is available just now."""
    most = -(-ctx.config.search.batch // jax.process_count())
    mesh = devices.children_mesh(jax.local_devices()[:most])
    count, device = len(mesh.local_devices), mesh.local_devices[0]
    on_cpu = device.platform == "cpu"
    memory = memory_lib.available_bytes() / count if on_cpu else devices.memory(mesh)
    mobile = type(ctx.space.spec) in mobile_spaces.MODULES
    backend = choose.choose(ctx.settings.backend) if mobile else None
    kernels = backend in choose.KERNELS_OF.values()
    number_bytes = sizes.SHORT if backend is choose.SHORT_KERNELS else sizes.FLOAT
    return Machine(device.device_kind, count, memory, kernels, on_cpu, number_bytes)


def bound(ctx: TrainContext, machine: Machine) -> Sizes:
    """By formula: no child needs more."""
    shape, outputs = ctx.dataset.image_shape, ctx.dataset.outputs
    most = sizes.widest(ctx.space, shape, machine.number_bytes)
    times = 1 if machine.kernels else _TRACED
    kept = Kept(times * most.layers, times * most.largest)
    return Sizes(kept, sizes.most_parameters(ctx.space, shape, outputs))


def of_children(ctx: TrainContext, network: Network, machine: Machine) -> Sizes:
    """Of the one of `SAMPLE` children that keeps most, by the kernels; else of any of `network`.

    Programs of layers keep the results of convolutions for the derivative, as the kernels do; a
    program for each child keeps about two numbers, of half the bytes, of each.
    """
    shape, space = ctx.dataset.image_shape, ctx.space
    parameters = sizes.parameters(network, len(space.cardinalities))
    alone = ctx.settings.backend in elastic.NOT_SHARED
    if machine.kernels or (alone and type(space.spec) in mobile_spaces.MODULES):
        if alone:  # the largest may come, and has to fit
            archs = np.asarray(ctx.canonical(jnp.asarray(space.largest)[None]))
            short = ctx.settings.backend == elastic.REGIONAL and not machine.shared
            number = sizes.SHORT if short else sizes.FLOAT
        else:
            archs = np.asarray(ctx.canonical(space.sample(jax.random.key(0), SAMPLE)))
            number = machine.number_bytes
        kept = max((sizes.by_kernels(space, shape, arch, number) for arch in archs), key=sum)
        return Sizes(kept, parameters)
    batch = ctx.settings.batch_size
    kept = sizes.traced(network, len(space.cardinalities), (batch, *shape))
    return Sizes(Kept(kept.layers / batch, kept.largest / batch), parameters)


def need(ctx: TrainContext, machine: Machine, own: Sizes, batch: int = 0, group: int = 0) -> Need:
    """Of a device that trains `group` children of `own` size at once, by `batch` images a step.

    0: as configured, where a group that is chosen at the start counts as 1.
    """
    dataset, settings = ctx.dataset, ctx.settings
    settings = dataclasses.replace(settings, batch_size=batch or settings.batch_size)
    group = 1 if machine.shared else group or settings.group or 1
    parts = (dataset.train_images, dataset.train_labels, dataset.val_images, dataset.val_labels)
    step = min(settings.batch_size, len(dataset.train_labels))
    most = max(step, child.judged_at_once(settings, Data(*parts))[0])
    image = math.prod(dataset.image_shape) * sizes.FLOAT
    pool = pool_bytes(ctx, own.parameters)
    # Of long batches all children are there in parts, each with its momentum.
    waiting = max(-(-ctx.config.search.batch // machine.devices) - group, 0)
    stepwise = waiting if long_batches.are_long(ctx) or halved.rungs(ctx) else 0
    copies = 1 if machine.shared else one_each.COPIES
    # Of an accelerator the first one, which gathers what all have trained.
    share = 1 / machine.devices if machine.shared else 1.0
    return Need(
        parameters=(group * COPIES + stepwise * 2 * copies) * own.parameters,
        activations=group * (step * own.kept.layers + most * own.kept.largest),
        images=images_bytes(ctx, machine.memory) + group * 3 * most * image,  # e.g. normalised
        pool=pool * (1 + share),
        trained=2 * share * ctx.config.search.batch * own.parameters if pool else 0.0,
    )


def check(ctx: TrainContext, machine: Machine | None = None) -> None:
    """Raises UserError where a child does not fit, with the batch or group that would.

    `machine`: None is this one. What a bound says to fit is not looked at any closer.
    """
    machine = here(ctx) if machine is None else machine
    if need(ctx, machine, bound(ctx, machine)).total <= machine.memory:
        return
    own = of_children(ctx, trained.elastic_network(ctx), machine)
    wanted = need(ctx, machine, own).total
    if wanted > machine.memory:
        raise UserError(f"{refusal(ctx, machine, wanted)}: {advice(ctx, machine, own)}")


def refusal(ctx: TrainContext, machine: Machine, wanted: float) -> str:
    """What does not fit, in words."""
    height, width, _ = ctx.dataset.image_shape
    group = 1 if machine.shared else max(ctx.settings.group, 1)
    children = "a child" if group == 1 else f"{group} children at once"
    each = f"each of {machine.devices} devices" if machine.devices > 1 else "the device"
    return (
        f"children.batch_size is {ctx.settings.batch_size}, of images of {height}x{width}:"
        f" {children} may take {wanted / GIB:.3g} GiB of {each} ({machine.kind}), which"
        f" {'have' if machine.devices > 1 else 'has'} {machine.memory / GIB:.3g} GiB"
        f"{' each' if machine.devices > 1 else ''}"
    )


def advice(ctx: TrainContext, machine: Machine, own: Sizes) -> str:
    """What would fit: a smaller group, a smaller batch, or fewer devices that share a memory."""

    def fits(machine: Machine, batch: int = 0, group: int = 0) -> bool:
        return need(ctx, machine, own, batch, group).total <= machine.memory

    groups = [] if machine.shared else halves(ctx.settings.group)
    for group in groups:
        if fits(machine, group=group):
            return f"children.group={group} would fit"
    said = []
    for batch in halves(ctx.settings.batch_size):
        if fits(machine, batch, 1):
            also = " with children.group=1" if groups else ""
            said.append(f"children.batch_size={batch}{also} would fit")
            break
    for count in halves(machine.devices) if machine.shared else ():
        memory = machine.memory * machine.devices / count
        if fits(machine._replace(devices=count, memory=memory)):
            said.append(f"JAX_NUM_CPU_DEVICES={count} (fewer children at a time) would fit")
            break
    return ", or ".join(said) or "no batch would fit; smaller are task.image_size and space.width"


def halves(number: int) -> list[int]:
    """Half of it, a quarter, .., 1."""
    return [number >> n for n in range(1, number.bit_length())]


def images_bytes(ctx: TrainContext, memory: float) -> float:
    """Bytes of the images on a device: all of them, or three chunks (`training.streaming`)."""
    dataset = ctx.dataset
    stored = float(dataset.train_images.nbytes + dataset.val_images.nbytes)
    one = dataset.train_images.nbytes / len(dataset.train_labels)
    if ctx.settings.device_images:
        return min(3 * ctx.settings.device_images * one, stored)
    return min(stored, memory / 2)


def pool_bytes(ctx: TrainContext, parameters: float) -> float:
    """Bytes of the knowledge pool of networks with `parameters` bytes; 0 without one."""
    akp = ctx.config.akp
    if not akp.enabled:
        return 0.0
    entries = min(akp.capacity, max(int(akp.mib * 2**20 / parameters), 2))
    return entries * parameters
