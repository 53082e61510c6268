"""A dry run: what a search would take, told without training a child; refuses what does not fit.

For this machine, whose speed is measured by some steps, or for one that is not here, by published
figures. The images are read, or their number and size are stated.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from fnas_jax import registry
from fnas_jax.core import devices
from fnas_jax.core.types import UserError
from fnas_jax.layers import choose
from fnas_jax.networks import cost, elastic, mobile, mobile_spaces, sizes
from fnas_jax.networks.base import Network
from fnas_jax.planning import machines, plan, schedule, speed, work
from fnas_jax.planning.machines import Cluster
from fnas_jax.planning.schedule import Size
from fnas_jax.planning.work import Work
from fnas_jax.tasks import images, memory, trained
from fnas_jax.tasks.context import TrainContext
from fnas_jax.tasks.data import Dataset
from fnas_jax.tasks.memory import GIB, Machine, Need, Sizes
from fnas_jax.training import parallel

_FORM = "NUMBER[+TEST]xHEIGHTxWIDTHxCHANNELSxCLASSES"


class Asked(NamedTuple):
    """What is asked beside the configuration."""

    machine: str = ""  # as `machines.parse` takes it; "": this one
    price: float = 0.0  # dollars for an hour of a device; 0: as published
    images: str = ""  # `_FORM` of images that are not here; "": the task's


def run(
    config: ml_collections.ConfigDict, asked: Asked, folder: str, say: Callable[[str], object]
) -> None:
    """Says line by line what the search of `config` in `folder` would take.

    Raises UserError, at the end, where its children do not fit into memory.
    """
    check(config, asked)
    cluster = machines.parse(asked.machine, asked.price) if asked.machine else None
    dataset = stated(config, asked.images) if asked.images else None
    if dataset is None:
        config = plan.settle(config, folder)
        dataset = images.load(config)
    ctx = images.train_context(config, registry.build_space(config), dataset)
    machine = memory.here(ctx) if cluster is None else on(cluster)
    network = network_for(ctx, cluster)
    own = memory.of_children(ctx, network, machine)
    group = children_at_once(ctx, machine, own)
    for line in (*described(ctx, machine), *memory_lines(ctx, cluster, machine, own, group)):
        say(line)
    size = speed.size_of(ctx)
    found = work.of(ctx, size)
    for line in work_lines(ctx, found, size):
        say(line)
    wanted = memory.need(ctx, machine, own).total
    if wanted > machine.memory:
        refused = memory.refusal(ctx, machine, wanted)
        raise UserError(f"{refused}: {memory.advice(ctx, machine, own)}")
    for line in time_lines(ctx, machine, cluster):
        say(line)
    if ctx.config.features.proxies and registry.goes_by_features(ctx.config.method.name):
        say("zero-cost proxies: not counted, minutes before the search, most of it compilation")


def check(config: ml_collections.ConfigDict, asked: Asked) -> None:
    """Raises UserError for what cannot be planned."""
    if not config.task.name.startswith("images/"):
        raise UserError(f"--plan is for searches on images, and task.name is {config.task.name!r}")
    if config.method.name in registry.ONE_SHOT:
        raise UserError(
            f"--plan counts children, and method.name={config.method.name} trains one network for"
            " all of them"
        )
    if config.search.plan == plan.AUTO and (asked.machine or asked.images):
        raise UserError(
            "search.plan=auto measures its images and devices, so --plan_on and --plan_images need"
            " search.plan=none and the keys that it would choose"
        )
    if asked.price and not asked.machine:
        raise UserError("--plan_price is the price of a device of --plan_on, which is missing")


def stated(config: ml_collections.ConfigDict, text: str) -> Dataset:
    """A data set of stated sizes, without storage; parts as the configuration divides them.

    As in `data.load`, test images are split off unless there are TEST more. Raises UserError.
    """
    match = re.fullmatch(r"(\d+)(?:\+(\d+))?" + 4 * r"x(\d+)", text.lower().replace(",", ""))
    numbers = [int(n) for n in match.groups() if n is not None] if match else [0]
    if min(numbers) < 1 or numbers[-1] < 2:
        raise UserError(f"--plan_images is {text!r}; it is {_FORM}, as 50000+10000x32x32x3x10")
    count, (height, width, channels, classes) = numbers[0], numbers[-4:]
    brought = numbers[1] if len(numbers) > 5 else 0
    if config.task.objective != "classification":
        raise UserError(
            f"--plan_images states classes, and task.objective is {config.task.objective!r}"
        )
    count += brought
    test = brought or int(count * config.task.test_fraction)
    judged = int((count - test) * config.task.val_fraction)
    if min(test, judged, count - test - judged) < classes:
        raise UserError(f"--plan_images has {count} images, too few for three parts of {classes}")
    side = config.task.image_size
    shape = (side, side) if side else (height, width)

    def part(number: int) -> tuple[np.ndarray, np.ndarray]:
        pixel = np.zeros((1, 1, 1, 1), np.uint8)  # of all images: nothing is stored
        labels = (np.arange(number) % classes).astype(np.int32)
        return np.broadcast_to(pixel, (number, *shape, channels)), labels

    (train, labels), (val, val_labels), (tests, test_labels) = map(
        part, (count - test - judged, judged, test)
    )
    ones = np.ones(channels, np.float32)
    return Dataset(
        name="stated",
        train_images=train,
        train_labels=labels,
        val_images=val,
        val_labels=val_labels,
        test_images=tests,
        test_labels=test_labels,
        num_classes=classes,
        mean=0 * ones,
        std=ones,
        class_names=tuple(map(str, range(classes))),
    )


def on(cluster: Cluster) -> Machine:
    """The devices of `cluster`, which are accelerators."""
    return Machine(cluster.name, cluster.devices, cluster.kind.gib * GIB, False, False)


def network_for(
    ctx: TrainContext, cluster: Cluster | None, arch: np.ndarray | None = None
) -> Network:
    """The elastic network, or that of `arch` [T], as it runs here, or on accelerators."""
    shape, outputs = ctx.dataset.image_shape, ctx.dataset.outputs
    if cluster is None or type(ctx.space.spec) not in mobile_spaces.MODULES:
        if arch is None:
            return trained.elastic_network(ctx)
        return elastic.fixed_network(ctx.space, arch, shape, outputs, ctx.settings.backend)
    made = (shape[-1], outputs, choose.masked_in(jnp.bfloat16))
    if arch is None:
        return mobile.network(mobile.elastic(ctx.space.spec, *made))
    return mobile.network(mobile.fixed(ctx.space.spec, arch, *made))


def children_at_once(ctx: TrainContext, machine: Machine, own: Sizes) -> int:
    """Children that a device trains at once: `children.group`, or as many as fit, by halves."""
    most = -(-ctx.config.search.batch // machine.devices)
    if ctx.settings.backend in elastic.NOT_SHARED:
        return 1
    if machine.shared or ctx.settings.group:
        return 1 if machine.shared else min(ctx.settings.group, most)
    fitting = (
        group
        for group in (most, *memory.halves(most))
        if memory.need(ctx, machine, own, group=group).total <= machine.memory
    )
    return next(fitting, 1)


def described(ctx: TrainContext, machine: Machine) -> list[str]:
    """Images and machine."""
    dataset = ctx.dataset
    parts = (dataset.train_labels, dataset.val_labels, dataset.test_labels)
    train, val, test = (f"{len(labels):,}" for labels in parts)
    height, width, channels = dataset.image_shape
    found = [
        f"images: {train} to train, {val} to validate, {test} to test, {height}x{width}x{channels}",
        f"devices: {machine.devices} x {machine.kind}, {machine.memory / GIB:.3g} GiB each",
    ]
    if machine.devices > ctx.config.search.batch:
        found.append(
            f"warning: search.batch={ctx.config.search.batch} children leave"
            f" {machine.devices - ctx.config.search.batch} devices without work"
        )
    return found


def memory_lines(
    ctx: TrainContext, cluster: Cluster | None, machine: Machine, own: Sizes, group: int
) -> list[str]:
    """Memory of a device for children and for the winner, GiB."""
    children = memory.need(ctx, machine, own, group=group)
    at_once = "a child" if group == 1 else f"{group} children at once"
    return [
        f"memory of a device for {at_once}: {gib(children)}",
        f"memory of a device for the winner: {gib(of_winner(ctx, cluster, machine))}",
    ]


def gib(need: Need) -> str:
    """A need in words."""
    parts = (f"{name} {size / GIB:.2f}" for name, size in need._asdict().items() if size)
    return f"{need.total / GIB:.2f} GiB ({', '.join(parts)})"


def of_winner(ctx: TrainContext, cluster: Cluster | None, machine: Machine) -> Need:
    """The need of a device for the winner, of whose minibatches it has a part."""
    arch = np.asarray(speed.of_cost(ctx, 0.75)[0])
    shape = ctx.dataset.image_shape
    parameters = sizes.FLOAT * cost.one_cost(ctx.space, arch, shape, ctx.dataset.outputs)[0]
    images = ctx.settings.batch_size
    batch = images // devices.sharing(images, parallel.LEAST_IMAGES, machine.devices)
    if machine.kernels:
        kept = sizes.by_kernels(ctx.space, shape, arch, machine.number_bytes)
    else:
        network = network_for(ctx, cluster, arch)
        traced = sizes.traced(network, len(arch), (batch, *shape))
        kept = sizes.Kept(traced.layers / batch, traced.largest / batch)
    need = memory.need(ctx, machine, Sizes(kept, parameters), batch=batch, group=1)
    return need._replace(
        parameters=need.parameters + parameters * (ctx.config.winner.ema > 0), pool=0, trained=0
    )


def work_lines(ctx: TrainContext, found: Work, size: Size) -> list[str]:
    """Children, steps and multiply-adds."""
    settings, count = ctx.settings, len(ctx.dataset.train_labels)
    epochs = settings.steps * min(settings.batch_size, count) / count
    more = work.extra(ctx)
    made, _ = work.of_children(ctx)
    stopping = f", of which {100 * made:.0f}% are made on average" if made < 1 else ""
    besides = f" ({more} of them for the pool and as finalists)" if more else ""
    return [
        f"children: {found.children}{besides}, each {settings.steps} steps of"
        f" {settings.batch_size} images ({epochs:.3g} epochs){stopping}",
        f"networks: {size.mean / 1e6:.4g} million multiply-adds on average,"
        f" {size.high / 1e6:.4g} the upper quarter",
        f"work: {machines.operations(work.total(found)):.3g} floating-point operations, of which"
        f" {100 * found.children * found.child / work.total(found):.0f}% for children",
    ]


def time_lines(ctx: TrainContext, machine: Machine, cluster: Cluster | None) -> list[str]:
    """How long it takes: as measured here, or at shares of a published peak."""
    if cluster is None:
        devices.enable_compilation_cache(ctx.config.jax.cache_dir)
        measured = speed.measure(ctx)
        compiled = schedule.COMPILATIONS * measured.compilation
        size = speed.size_of(ctx, measured.moved)
        found, count = work.of(ctx, size), len(jax.devices())
        taken = work.seconds(found, measured.macs, count, measured.own) + compiled
        rate = measured.macs * speed.size_of(ctx).mean / size.mean
        lines = [
            f"time: {duration(taken)}, at {rate / 1e9:.3g} thousand million multiply-adds"
            " of forward passes a second on each device, measured just now"
        ]
        if ctx.config.search.seconds:
            lines.append(f"search.seconds: it ends after {duration(ctx.config.search.seconds)}")
        return lines
    found = work.of(ctx, speed.size_of(ctx))
    lines = [f"peak: {cluster.kind.tflops:g} TFLOPS each ({cluster.kind.source})"]
    for share in machines.SHARES:
        taken = work.seconds(found, cluster.speed(share), cluster.devices)
        price = cluster.kind.price * cluster.devices * taken / 3600
        money = f", {price:,.0f} dollars" if price else ""
        lines.append(f"time at {100 * share:.0f}% of peak, assumed: {duration(taken)}{money}")
    return lines


def duration(seconds: float) -> str:
    """Seconds, minutes, hours or days."""
    units = ((86400.0, "days"), (3600.0, "hours"), (60.0, "minutes"), (1.0, "seconds"))
    size, unit = next((u for u in units if seconds >= 2 * u[0]), units[-1])
    return f"{seconds / size:.3g} {unit}"
